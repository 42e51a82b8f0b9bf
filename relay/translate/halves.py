"""Mends what strict JSON readers refuse and common ones take: halves of characters, and a mark.

`\\ud83d` alone is valid by the grammar (RFC 8259 §8.2), and models and editors write it. A byte
order mark before a text may be ignored (RFC 8259 §8.1). A mended body has the same length, so a
place in it is the same place in the body as it came.
"""

import re
from collections.abc import Iterator
from typing import Final

from relay.translate.pacing import paced

_MARK: Final = b"\xef\xbb\xbf"
_REPLACEMENT: Final = rb"\ufffd"
# It begins with a literal text, so that no run of backslashes is looked at from each of them.
_HALF: Final = re.compile(rb"\\u[dD]([89a-fA-F])[0-9a-fA-F]{2}")
_HIGH: Final = b"89abAB"
_HALF_OCTETS: Final = len(_REPLACEMENT)
_PIECE_OCTETS: Final = 1024 * 1024


def mended(body: bytes) -> bytes:
    """The body with U+FFFD for each half of a character, and blanks for a byte order mark.

    It is the same object if there is nothing to mend.
    """
    places = list(_lone_halves(body))
    if not places and not body.startswith(_MARK):
        return body
    copy = bytearray(body)
    if body.startswith(_MARK):
        copy[: len(_MARK)] = b" " * len(_MARK)
    for place in paced(places):
        copy[place : place + _HALF_OCTETS] = _REPLACEMENT
    return bytes(copy)


def _lone_halves(body: bytes) -> Iterator[int]:
    """The places of the halves that are not one of a pair."""
    high = -1  # the place of a first half that may have its second one behind it
    for place, is_high in _halves(body):
        is_pair = not is_high and 0 <= high == place - _HALF_OCTETS
        if high >= 0 and not is_pair:
            yield high
        if not is_high and not is_pair:
            yield place
        high = place if is_high else -1
    if high >= 0:
        yield high


def _halves(body: bytes) -> Iterator[tuple[int, bool]]:
    """The places of all halves, and whether each is a first one."""
    end = 0  # of the half before
    for start in paced(range(0, len(body), _PIECE_OCTETS), large=True):
        stop = start + _PIECE_OCTETS + _HALF_OCTETS - 1
        for match in paced(_HALF.finditer(body, max(start, end), stop)):
            place = match.start()
            # An odd number of backslashes before it escapes its own, and `ud83d` is text.
            before = body[end:place]
            end = match.end()
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                yield place, match[1] in _HIGH
