"""JSON strings as the octets that they came in.

What a caller says is spliced into what goes upstream, escapes and all: so a text costs nothing
to carry, however long, and stays the same from turn to turn. Only who must change a text, or
look into it, decodes it here.
"""

import re
from typing import Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field, unreadable_error

NOTHING: Final = msgspec.Raw(b"")  # stands for a member that was not given
Octets = bytes | memoryview | msgspec.Raw

# All that str.isspace knows, in UTF-8 and as escapes.
_SPACE: Final = (
    rb"(?: |\\[nrtf]"
    rb"|\\u(?:00(?:0[9-dA-D]|1[c-fC-F]|20|85|[aA]0)|1680|20(?:0[0-9aA]|2[89fF]|5[fF])|3000)"
    rb"|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)"
)
_MOST_SPACE: Final = 256  # that a pattern goes through: decoding is faster than that
_START: Final = re.compile(rb'"' + _SPACE + rb'{0,%d}+(")?' % _MOST_SPACE)
_NULL: Final = 0x6E
_string: Final = msgspec.json.Decoder(str).decode


def has_text(raw: Octets, at: str) -> bool:
    """Whether the text says anything: the API refuses one that is empty or only white space.

    Raises:
        RelayError: 400, it is no text; `at` is its place.
    """
    match = _START.match(raw)
    if match is None:
        raise not_text_error(raw, at)
    if match.end() <= _MOST_SPACE or match[1] is not None:
        return match[1] is None
    words = decode_string(raw, at)
    return bool(words) and not words.isspace()


def is_given(raw: msgspec.Raw) -> bool:
    """Whether there is a value, and it is not null."""
    return raw is not NOTHING and memoryview(raw)[0] != _NULL


def kind(raw: msgspec.Raw) -> str:
    """What a value begins with, which tells what it is; empty if it was not given."""
    return chr(memoryview(raw)[0]) if raw is not NOTHING else ""


def decode_string(raw: Octets, at: str) -> str:
    """The text itself.

    Raises:
        RelayError: 400, it is none; `at` is its place.
    """
    if raw is NOTHING:
        raise not_text_error(raw, at)
    try:
        return _string(raw)
    except msgspec.ValidationError:
        raise not_text_error(raw, at) from None
    except UNREADABLE as error:
        raise unreadable_error(error, at) from None


def utf8(raw: msgspec.Raw, at: str) -> bytes:
    """The text itself, as octets.

    Raises:
        RelayError: 400, it is none; `at` is its place.
    """
    octets = bytes(raw)
    if octets[:1] == b'"' and b"\\" not in octets:
        return octets[1:-1]
    return decode_string(raw, at).encode()


def encode_string(words: str) -> bytes:
    """A text as JSON."""
    return msgspec.json.encode(words)


def string_content(raw: Octets) -> memoryview:
    """The octets of a text between its quotation marks."""
    return memoryview(raw)[1:-1]


def not_text_error(raw: Octets, at: str) -> Exception:
    """The refusal of something that should have been a text."""
    return invalid_field(
        at, "it must be given, as a text" if raw is NOTHING else "it must be a text"
    )
