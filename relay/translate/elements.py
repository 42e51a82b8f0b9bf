"""Counts the elements of a JSON text, without building any of them.

A few MiB of JSON may be millions of values: a hundred times their size in memory, and seconds of
work. So their number is bounded before anything is decoded. Decides what counts as an element: each
array and object, and each comma between values. Commas and brackets in texts do not count. Must
not know what the elements mean, or check that the text is JSON.
"""

from typing import Final

from relay.errors import TOO_LARGE, RelayError
from relay.translate.pacing import paced

# A conversation of a million tokens has about 50,000. Reading an element takes up to 2 µs.
MAX_ELEMENTS: Final = 100_000
# 24 MiB of text in which every character is written as \uXXXX. Decoding 4 million at once
# takes 20 ms.
MAX_BACKSLASHES: Final = 4 * 1024 * 1024

_SLICE_OCTETS: Final = 128 * 1024
_MARKS: Final = (b",", b"[", b"{")
_LIGHT_OCTETS: Final = 1024 * 1024
_LIGHT_COMMAS: Final = 8_000


def is_light(body: bytes) -> bool:
    """Whether reading the body takes a few milliseconds at most, as an upper bound."""
    if len(body) > _LIGHT_OCTETS:
        return False
    # `count` looks at each octet by itself; this jumps from comma to comma, and stops at the limit.
    others = body.replace(b",", b"", _LIGHT_COMMAS + 1)
    return len(body) - len(others) <= _LIGHT_COMMAS


def check_elements(body: bytes) -> None:
    """Refuse a body that has too many elements or escapes.

    Raises:
        RelayError: 413.
    """
    bound = backslashes = 0
    starts = range(0, len(body), _SLICE_OCTETS)
    for start in paced(starts):
        end = start + _SLICE_OCTETS
        for mark in _MARKS:
            bound += body.count(mark, start, end)
        backslashes += body.count(b"\\", start, end)
    if backslashes > MAX_BACKSLASHES:
        raise RelayError(
            TOO_LARGE,
            f"The request body has more than {MAX_BACKSLASHES:,} backslashes. Send characters as "
            "they are in place of escapes.",
        )
    if bound <= MAX_ELEMENTS:  # true even if all of them were outside of texts
        return
    counter = ElementCounter()
    for start in paced(starts):
        counter.feed(body[start : start + _SLICE_OCTETS])
        if counter.elements > MAX_ELEMENTS:
            raise RelayError(
                TOO_LARGE,
                f"The request body has more than {MAX_ELEMENTS:,} elements: values in arrays and "
                "members of objects. Shorten the conversation, or send data as text.",
            )


class ElementCounter:
    """Pieces of a JSON text in, cut anywhere; `elements` is their number so far."""

    __slots__ = ("_escaped", "_in_text", "elements")

    def __init__(self) -> None:
        self.elements = 0
        self._in_text = False
        self._escaped = False  # the next octet follows a backslash

    def feed(self, piece: bytes) -> None:
        """Count the next piece."""
        if self._escaped and piece:
            self._escaped = False
            piece = piece[1:]
        if b"\\" in piece:
            # First the escaped backslashes: what is left of each run then escapes what follows.
            piece = piece.replace(b"\\\\", b"")
            self._escaped = piece.endswith(b"\\")
            piece = piece.replace(b'\\"', b"")
        texts = piece.split(b'"')
        outside = b"".join(texts[self._in_text :: 2])
        self._in_text ^= len(texts) % 2 == 0
        for mark in _MARKS:
            self.elements += outside.count(mark)
