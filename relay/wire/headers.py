"""Which header fields travel onward, decided once per distinct field line.

Requests are an open list, as gateways to the Messages API must be: every end-to-end
field goes upstream as it came, except what belongs to this hop, what names the caller,
and what the relay sets itself. Responses are an allow-list, since an upstream's fields
describe the operator's account. (RFC 9110 §7.6.1 for hop-by-hop fields.)

Clients repeat their field lines word for word from request to request, so a
`FieldTable` remembers lines it has read: one dict look-up in place of a parse.
"""

import re
from collections.abc import Callable
from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"close",  # reserved (RFC 9112 §9.6), and what `Connection: close` would nominate
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

_CREDENTIALS: Final = frozenset(
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

# Who the caller is and where they sit is nobody's business upstream.
_CALLERS_OWN: Final = _CREDENTIALS | {
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"client-ip",
    b"x-originating-ip",
    b"x-remote-addr",
    b"x-remote-ip",
    b"x-envoy-external-address",
    b"cdn-loop",
}
_CALLERS_OWN_PREFIXES: Final = (b"x-forwarded-", b"cf-", b"fastly-", b"x-amzn-trace-")

# Written by the relay: the body's extent, the origin, and an encoding whose usage it can read.
_SET_BY_RELAY: Final = frozenset({b"host", b"content-length", b"accept-encoding", b"expect"})

_KEPT_OUT: Final = HOP_BY_HOP | _CALLERS_OWN | _SET_BY_RELAY

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

# What a response's head is read for; the rest, often thirty lines of it, is passed over.
READ_OF_ANSWER: Final = ANSWERED | {
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"request-id",
}

# What the head of an error is read for besides: it tells how long to leave an upstream alone.
# (docs: api/rate-limits; the `unified` ones come from plans with a window.)
READ_OF_ERROR: Final = READ_OF_ANSWER | {
    b"anthropic-ratelimit-%b-%b" % (kind, field)
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
    for field in (b"limit", b"remaining", b"reset")
} | {
    b"anthropic-ratelimit-unified-%b" % field
    for field in (b"status", b"reset", b"representative-claim", b"5h-status", b"7d-status")
}  # fmt: skip

_REMEMBERED_LINES = 1024
_REMEMBERED_LENGTH = 256

_CANONICAL_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)"
)


# Lower-case name, value, and the line to send onward with its CRLF (empty: none). A plain
# tuple, since taking one apart is what the head readers do most.
Field = tuple[bytes, bytes, bytes]


class NotCanonicalError(Exception):
    """A head that must be judged by h1_legal."""


def goes_upstream(name: bytes) -> bool:
    """Whether a request's field of this (lower-case) name is passed to the upstream."""
    name = name.replace(b"_", b"-")  # one and the same name to a CGI or WSGI upstream
    return name not in _KEPT_OUT and not name.startswith(_CALLERS_OWN_PREFIXES)


def goes_to_caller(name: bytes) -> bool:
    """Whether a response's field of this (lower-case) name is passed to the caller."""
    return name in ANSWERED


class FieldTable:
    """Reads canonical field lines and remembers the last thousand or so, credentials excepted.

    `onward` is one of the two rules above. `special` names fields that bear on the framing,
    with what their values may be: other values, or None, make a line not canonical. Of fields
    not in `read` (None: all are) nothing is kept but that the line is good, in `ignored`.
    """

    __slots__ = ("_onward", "_read", "_special", "ignored", "seen")

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

    def learn(self, line: bytes) -> Field | None:
        """Read a line that is neither in `seen` nor in `ignored`. None: ignore it.

        Raises:
            NotCanonicalError: it has odd spacing or characters, or bears on the framing.
        """
        match = _CANONICAL_LINE.fullmatch(line)
        if match is None:
            raise NotCanonicalError
        name = match[1].lower()
        if self._read is not None and name not in self._read:
            if len(line) <= _REMEMBERED_LENGTH and name not in _CREDENTIALS:
                if len(self.ignored) >= _REMEMBERED_LINES:
                    self.ignored.clear()
                self.ignored.add(line)
            return None
        value = match[2]
        if name in self._special:
            pattern = self._special[name]
            if pattern is None or pattern.fullmatch(value) is None:
                raise NotCanonicalError
        # A response's names go out in lower case, so that one look tells which are there.
        shown = line if self._read is None else name + b": " + value
        field = (name, value, shown + b"\r\n" if self._onward(name) else b"")
        if len(line) <= _REMEMBERED_LENGTH and name not in _CREDENTIALS:
            if len(self.seen) >= _REMEMBERED_LINES:
                self.seen.clear()
            self.seen[line] = field
        return field
