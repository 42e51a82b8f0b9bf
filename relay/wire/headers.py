"""Decides which header fields travel onward, once per distinct field line.

Both directions are allow-lists. A request's fields go upstream unchanged where the Messages API
has a use for them: others may identify the caller or repeat their key. A response's fields go to
the caller where they do not describe the operator's account.

Clients repeat their field lines from request to request, so a `FieldTable` caches parsed
lines: one dict look-up replaces a parse.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"close",  # reserved (RFC 9112 §9.6): `Connection: close` would nominate it
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)

CREDENTIALS: Final = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"x-auth-token",
        b"cookie",
        b"proxy-authorization",
    }
)

# The request fields that go upstream: those that the Messages API, its SDKs and Claude Code use,
# the names by which agents mark a conversation, and the script of the simulated upstream. Any
# other field may name the caller or hold a key.
_UPSTREAM: Final = frozenset(
    {
        b"accept",
        b"accept-language",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",
        b"session-id",
        b"thread-id",
        b"user-agent",
        b"x-app",
        b"x-client-request-id",
        b"x-session-affinity",
        b"x-session-id",
        b"x-simulate",
    }
)
_UPSTREAM_PREFIXES: Final = (b"anthropic-", b"x-claude-code-", b"x-stainless-")
_SECRET_WORDS: Final = re.compile(rb"auth|cookie|credential|key|secret|token")
_MIN_SECRET_OCTETS: Final = 16  # of a credential that is looked for in other fields

ANSWERED: Final = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"cache-control",
        b"date",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    }
)

# The fields read from a response's head. The others, often thirty lines, are ignored.
READ_OF_ANSWER: Final = ANSWERED | {
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"request-id",
}

# And from an error's head: how long the upstream's limits last (Anthropic API reference, Rate
# limits; the `unified` fields come from plans with a 5-hour and a weekly window).
READ_OF_ERROR: Final = READ_OF_ANSWER | {
    b"anthropic-ratelimit-%b-%b" % (kind, field)
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
    for field in (b"limit", b"remaining", b"reset")
} | {
    b"anthropic-ratelimit-unified-%b" % field
    for field in (b"status", b"reset", b"representative-claim", b"5h-status", b"7d-status")
}  # fmt: skip

_MAX_CACHED_LINES: Final = 1024
_MAX_CACHED_OCTETS: Final = 256  # of one line

_CANONICAL_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)"
)

_TEXT: Final = bytes([0x09, *range(0x20, 0x7F)])  # what a field's value may have

# Lower-case name, value, and the line to send onward with its CRLF (empty: none). A plain
# tuple, as the head readers unpack one per line.
Field: TypeAlias = tuple[bytes, bytes, bytes]


class NotCanonicalError(Exception):
    """A head that h1_legal must read."""


def goes_upstream(name: bytes) -> bool:
    """Whether a request's field of this (lower-case) name is passed to the upstream."""
    name = name.replace(b"_", b"-")  # the same name to a CGI or WSGI upstream
    if name in _UPSTREAM:
        return True
    return name.startswith(_UPSTREAM_PREFIXES) and _SECRET_WORDS.search(name) is None


def secrets(values: Iterable[bytes]) -> list[bytes]:
    """The secrets in the values of credential fields, to be looked for elsewhere.

    Too short ones are left out: they would be found by chance.
    """
    return [
        secret
        for value in values
        for secret in (value.rpartition(b" ")[2],)  # behind a scheme such as Bearer
        if len(secret) >= _MIN_SECRET_OCTETS
    ]


def goes_to_caller(name: bytes) -> bool:
    """Whether a response's field of this (lower-case) name is passed to the caller."""
    return name in ANSWERED


class FieldTable:
    """Reads canonical field lines and caches a thousand of them, never credentials.

    `onward` is one of the two rules above. `special` has the fields that affect the framing,
    with the values they may have: others, or a pattern of None, make a line not canonical.
    Lines of fields not in `read` (None: all are) are cached in `ignored`, without a value; where
    the value differs from answer to answer, as of a request's trace or of what a limit has left,
    the name is enough.
    """

    __slots__ = ("_ignored_names", "_onward", "_read", "_special", "ignored", "seen")

    def __init__(
        self,
        onward: Callable[[bytes], bool],
        special: dict[bytes, re.Pattern[bytes] | None],
        read: frozenset[bytes] | None = None,
    ) -> None:
        self._onward = onward
        self._special = special
        self._read = read
        self.seen: dict[bytes, Field] = {}
        self.ignored: set[bytes] = set()
        self._ignored_names: set[bytes] = set()  # as they are spelled

    def learn(self, line: bytes) -> Field | None:
        """Parse a line that is neither in `seen` nor in `ignored`; None to ignore it.

        Raises:
            NotCanonicalError: it has odd spacing or characters, or affects the framing.
        """
        spelled, colon, rest = line.partition(b":")
        if colon and spelled in self._ignored_names and not rest.translate(None, _TEXT):
            return None
        match = _CANONICAL_LINE.fullmatch(line)
        if match is None:
            raise NotCanonicalError
        name = match[1].lower()
        if self._read is not None and name not in self._read:
            if len(line) <= _MAX_CACHED_OCTETS and name not in CREDENTIALS:
                if len(self.ignored) >= _MAX_CACHED_LINES:
                    self.ignored.clear()
                    self._ignored_names.clear()
                self.ignored.add(line)
                self._ignored_names.add(spelled)
            return None
        value = match[2]
        if name in self._special:
            pattern = self._special[name]
            if pattern is None or pattern.fullmatch(value) is None:
                raise NotCanonicalError
        # A response's names go out in lower case, so that one search finds a field.
        sent = line if self._read is None else name + b": " + value
        field = (name, value, sent + b"\r\n" if self._onward(name) else b"")
        if len(line) <= _MAX_CACHED_OCTETS and name not in CREDENTIALS:
            if len(self.seen) >= _MAX_CACHED_LINES:
                self.seen.clear()
            self.seen[line] = field
        return field
