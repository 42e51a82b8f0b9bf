"""Handles JSON strings as the octets that they came in.

A caller's text is copied into the upstream's request with its escapes. It costs no decoding,
however long, and stays the same from turn to turn. Decides which texts are empty. Must not know
what a text is for.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from relay.translate.halves import mended
from relay.translate.invalid import UNREADABLE, invalid_field, unreadable_error
from relay.translate.pacing import paced

NOTHING: Final = msgspec.Raw(b"")  # a member that is absent
Octets = bytes | memoryview | msgspec.Raw

# All white space of str.isspace, in UTF-8 and as escapes.
_SPACE: Final = (
    rb"(?: |\\[nrtf]"
    rb"|\\u(?:00(?:0[9-dA-D]|1[c-fC-F]|20|85|[aA]0)|1680|20(?:0[0-9aA]|2[89fF]|5[fF])|3000)"
    rb"|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)"
)
_MAX_SPACES: Final = 256  # for the pattern; decoding is faster beyond it
_LEADING_SPACE: Final = re.compile(rb'"' + _SPACE + rb'{0,%d}+(")?' % _MAX_SPACES)
_SPACES_PER_STEP: Final = 64 * 1024  # once decoded
_NULL: Final = 0x6E
_QUOTE: Final = 0x22
# Longer texts are decoded and encoded in pieces, between which other threads get their turn.
_PIECE_OCTETS: Final = 1024 * 1024
_ESCAPE_OCTETS: Final = 6
_SURROGATES: Final = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]")


_decode_str: Final = msgspec.json.Decoder(str).decode
# Skips the members of an object.
_decode_object: Final = msgspec.json.Decoder(msgspec.defstruct("_AnyObject", ())).decode


def has_text(raw: Octets, param: str) -> bool:
    """Whether a text has more than white space: the API refuses a text without.

    Raises:
        RelayError: 400, the value at `param` is not a string.
    """
    match = _LEADING_SPACE.match(raw)
    if match is None:
        raise not_text_error(raw, param)
    if match.end() <= _MAX_SPACES or match[1] is not None:
        return match[1] is None
    text = decode_string(raw, param)
    starts = paced(range(0, len(text), _SPACES_PER_STEP))
    return not all(text[start : start + _SPACES_PER_STEP].isspace() for start in starts)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a value is present and not null."""
    return raw is not NOTHING and memoryview(raw)[0] != _NULL


def kind(raw: msgspec.Raw) -> str:
    """The first character of a value, which shows its type; empty if the value is absent."""
    return chr(memoryview(raw)[0]) if raw is not NOTHING else ""


def decode_string(raw: Octets, param: str) -> str:
    """The text of a JSON string.

    Raises:
        RelayError: 400, the value at `param` is not a string.
    """
    if raw is NOTHING:
        raise not_text_error(raw, param)
    if len(memoryview(raw)) > _PIECE_OCTETS:
        return "".join(_decoded_pieces(raw, param))
    return _decoded(raw, param)


def _decoded(raw: Octets, param: str) -> str:
    try:
        return _decode_str(raw)
    except msgspec.ValidationError:
        raise not_text_error(raw, param) from None
    except UNREADABLE as error:
        raise unreadable_error(error, param) from None


def _decoded_pieces(raw: Octets, param: str) -> Iterator[str]:
    """The text of a long JSON string. To decode 32 MiB with an escape at once takes 50 ms."""
    octets = memoryview(raw)
    end = len(octets) - 1
    if octets[0] != _QUOTE:
        raise not_text_error(raw, param)
    start = 1
    while start < end:
        stop = _cut(octets, start, min(start + _PIECE_OCTETS, end), end)
        for piece in paced((octets[start:stop],), large=True):
            yield _decoded(b'"%b"' % bytes(piece), param)
        start = stop


def _cut(octets: memoryview, start: int, stop: int, end: int) -> int:
    """The last place up to `stop` where the content of a JSON string can be cut.

    That is between two characters, and not within an escape or a pair of surrogates.
    """
    if stop == end:
        return stop
    while octets[stop] & 0xC0 == 0x80:
        stop -= 1
    before = bytes(octets[start:stop])
    escape = before.rfind(b"\\", -_ESCAPE_OCTETS)
    if escape >= 0:
        run = before[: escape + 1]
        if (len(run) - len(run.rstrip(b"\\"))) % 2:
            stop = start + escape
            high = max(start, stop - _ESCAPE_OCTETS)
            if _SURROGATES.match(octets[high : stop + _ESCAPE_OCTETS]) is not None:
                stop = high
    return stop


def utf8(raw: msgspec.Raw, param: str) -> bytes:
    """The text of a JSON string, as UTF-8.

    Raises:
        RelayError: 400, the value at `param` is not a string.
    """
    octets = bytes(raw)
    if octets[:1] == b'"' and b"\\" not in octets:
        return octets[1:-1]
    if len(octets) > _PIECE_OCTETS:
        return b"".join([piece.encode() for piece in _decoded_pieces(raw, param)])
    return decode_string(raw, param).encode()


def object_in_string(raw: msgspec.Raw, param: str) -> bytes | None:
    """The JSON object within a text: `{}` if the text is blank, None if it is no object.

    Raises:
        RelayError: 400, the value at `param` is not a string.
    """
    octets = utf8(raw, param).strip()
    if not octets:
        return b"{}"
    if _is_object(octets):
        return octets
    again = mended(octets)
    return again if again is not octets and _is_object(again) else None


def _is_object(octets: bytes) -> bool:
    try:
        _decode_object(octets)
    except UNREADABLE:
        return False
    return True


def encode_string(text: str) -> bytes:
    """A text as a JSON string."""
    if len(text) > _PIECE_OCTETS:
        starts = paced(range(0, len(text), _PIECE_OCTETS), large=True)
        pieces = [msgspec.json.encode(text[start : start + _PIECE_OCTETS]) for start in starts]
        return b'"%b"' % b"".join([piece[1:-1] for piece in pieces])
    return msgspec.json.encode(text)


def string_content(raw: Octets) -> memoryview:
    """The octets between the quotation marks of a JSON string."""
    return memoryview(raw)[1:-1]


def find(text: bytes, word: bytes, start: int = 0) -> int:
    """Where the word is, from `start` on; -1 if it is not there.

    A word with a letter of which the text has many is searched for at 2 to 3 ns an octet, so this
    pauses within a long text.
    """
    if len(text) - start <= _PIECE_OCTETS:
        return text.find(word, start)
    for at in paced(range(start, len(text), _PIECE_OCTETS), large=True):
        found = text.find(word, at, at + _PIECE_OCTETS + len(word) - 1)
        if found >= 0:
            return found
    return -1


def count(text: bytes, word: bytes) -> int:
    """How often the word is there. It may count words twice that overlap in a long text."""
    if len(text) <= _PIECE_OCTETS:
        return text.count(word)
    starts = paced(range(0, len(text), _PIECE_OCTETS), large=True)
    return sum([text.count(word, at, at + _PIECE_OCTETS + len(word) - 1) for at in starts])


def lower(text: bytes) -> bytes:
    """The text in small letters; this pauses within a long one, which takes 1 to 2 ns an octet."""
    if len(text) <= _PIECE_OCTETS:
        return text.lower()
    starts = paced(range(0, len(text), _PIECE_OCTETS), large=True)
    return b"".join([text[at : at + _PIECE_OCTETS].lower() for at in starts])


def unreadable(reason: str) -> ValueError:
    """The error of an upstream's value that has another shape than its API states."""
    return ValueError(reason)


def not_text_error(raw: Octets, param: str) -> Exception:
    """The 400 for a value that should be a string."""
    return invalid_field(
        param, "it must be given, as a text" if raw is NOTHING else "it must be a text"
    )
