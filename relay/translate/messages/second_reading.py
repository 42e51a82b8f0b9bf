"""Refuses a body that two JSON parsers could read as two different requests.

The relay reads the last of two equal keys. Other parsers take the first, or ignore capitals (Go's
encoding/json), so an upstream could serve another model than the relay has charged, or go on from
a message of another account. The members that decide about a request must therefore be given once,
in their exact spelling. Decides from the top-level keys only; text and nested keys may have these
names.
"""

import re
from typing import Any, Final

import msgspec

from relay.errors import INVALID_REQUEST, RelayError
from relay.translate.invalid import json_fault
from relay.translate.raw_json import find

NOTHING: Final = msgspec.Raw(b"")  # a member that is absent
_NAMES: Final = frozenset({"model", "stream", "max_tokens", "messages", "thread"})
_MAX_MEMBERS: Final = 256  # at the top level; the APIs have about 30
_MAX_SCANNED_OCTETS: Final = 64 * 1024  # beyond it, only a decode of the keys is fast enough
_SEARCHED_OCTETS: Final = 64  # of a value, to find its place
_MIN_REMOVED_OCTETS: Final = 512  # a shorter value costs more to remove than to scan
# U+017F and U+212A are other capitals of `s` and `k` (Unicode, CaseFolding.txt).
_FOREIGN_LETTERS: Final = ("\u017f".encode(), "\u212a".encode())
# An escaped letter, digit or underscore. Encoders escape none of them.
_ESCAPED_LETTER: Final = re.compile(rb"\\u(?:00[4-7]|017f|212a)", re.IGNORECASE)
_BACKSLASH: Final = 0x5C  # an octet is found faster than a text of one
_MARK: Final = b"~relay~"


def _spelling(name: str) -> bytes:
    """A pattern of every spelling of a name in JSON, with escapes and in any capitals."""
    letters = []
    for letter in name:
        codes = {f"{ord(one):04x}" for one in {letter, letter.upper()}}
        plain = letter + letter.upper()
        if letter in "sk":
            codes.add("017f" if letter == "s" else "212a")
        letters.append(f"(?:[{plain}]|\\\\u(?:{'|'.join(sorted(codes))}))")
    return "".join(letters).encode()


_SPELLED: Final = re.compile(
    b'"(?:%b)"' % b"|".join(_spelling(name) for name in sorted(_NAMES)), re.IGNORECASE
)


class _Key(str):
    """A top-level key; `_Keys.read` gets each one as it is decoded."""

    __slots__ = ()


class _Keys:
    """The top-level keys of one body, read one by one without keeping them."""

    __slots__ = ("_found", "_number")

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._number = 0

    def read(self, _: type[Any], key: str) -> _Key:
        """Raises RelayError: the key makes a second reading possible."""
        self._number += 1
        if self._number > _MAX_MEMBERS:
            raise RelayError(
                INVALID_REQUEST,
                f"The request body has more than {_MAX_MEMBERS} members at its top level.",
            )
        if key.startswith(_MARK.decode()):
            raise _error(key.removeprefix(_MARK.decode()).partition("~")[0])
        name = key.casefold()
        if name in _NAMES:
            if name != key or name in self._found:
                raise _error(name)
            self._found.add(name)
        return _ANY_KEY  # one key: each value replaces the one before


_ANY_KEY: Final = _Key("")


class LongMembers(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The members of a request that are usually long, unread."""

    messages: msgspec.Raw = NOTHING
    system: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    instructions: msgspec.Raw = NOTHING


def refuse_second_reading(
    body: bytes, members: LongMembers, stream: bool, max_tokens: bool, thread: bool
) -> None:
    """Refuse a body in which one of `_NAMES` is ambiguous.

    Args:
        body: a JSON object with a `model`.
        members: its long members.
        stream: whether it has a `stream`.
        max_tokens: whether it has a `max_tokens`.
        thread: whether it has a `thread`.

    Raises:
        RelayError: 400, one of the names is given twice, with escapes, or in other capitals.
    """
    rest = body if len(body) < _MIN_REMOVED_OCTETS else _without(body, members)
    if _BACKSLASH in rest and _ESCAPED_LETTER.search(rest) is not None:
        if len(rest) > _MAX_SCANNED_OCTETS:
            raise RelayError(
                INVALID_REQUEST,
                "The request body has escaped letters beside the conversation. Write letters, "
                "digits and _ without escapes.",
            )
        _check_keys(_SPELLED.sub(_marked, rest))
        return
    if len(rest) > _MAX_SCANNED_OCTETS:
        _check_keys(body)
        return
    plain = rest.lower()
    messages = members.messages is not NOTHING
    if (
        # Fewer texts than this begin with these letters in most bodies.
        (
            plain.count(b'"m') > 1 + max_tokens + messages
            and (
                plain.count(b'"model"') > 1
                or plain.count(b'"max_tokens"') > max_tokens
                or plain.count(b'"messages"') > messages
            )
        )
        or (plain.count(b'"st') > stream and plain.count(b'"stream"') > stream)
        or plain.count(b'"thread"') > thread
        or not (plain.isascii() or not any(letter in plain for letter in _FOREIGN_LETTERS))
    ):  # a name in a text or in a nested key is counted, too: the keys decide
        _check_keys(rest)


def _without(body: bytes, members: LongMembers) -> bytes:
    """The body with a 0 in place of each long value; equal ones are alike, so any of them goes."""
    for value in (
        members.messages,
        members.system,
        members.tools,
        members.input,
        members.instructions,
    ):
        if value is NOTHING:
            continue
        octets = memoryview(value)
        length = len(octets)
        if length >= _MIN_REMOVED_OCTETS:
            start = bytes(octets[:_SEARCHED_OCTETS])
            at = find(body, start)
            # At an earlier place these octets may be keys; the value would then come behind it.
            if body.startswith(octets, at) and find(body, start, at + length - 1) < 0:
                body = body[:at] + b"0" + body[at + length :]
    return body


def _marked(match: re.Match[bytes]) -> bytes:
    """A key of the same kind that no parser takes for another, if the name has an escape in it."""
    token = match[0]
    if b"\\" not in token:
        return token
    name: str = msgspec.json.decode(token)
    return b'"%b%b~"' % (_MARK, name.casefold().encode())


def _check_keys(body: bytes) -> None:
    """Raises RelayError: see `refuse_second_reading`."""
    keys = _Keys()
    try:
        msgspec.json.decode(body, type=dict[_Key, msgspec.Raw], dec_hook=keys.read)
    except UnicodeDecodeError:  # in a key, which `peek` has skipped
        raise not_json_error("a key is not UTF-8") from None
    except RecursionError as error:  # `peek` had a level more
        raise not_json_error(error) from None


def not_json_error(reason: Exception | str) -> RelayError:
    """The error for a body that cannot be decoded."""
    if isinstance(reason, RecursionError):
        reason = "nested too deeply"
    return RelayError(INVALID_REQUEST, f"The request body is not valid JSON: {json_fault(reason)}.")


def _error(name: str) -> RelayError:
    return RelayError(
        INVALID_REQUEST,
        f"{name}: give it once, at the top level, in small letters and without escapes.",
        param=name,
    )
