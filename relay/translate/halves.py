"""Mends what strict JSON readers refuse and common ones take: halves of characters, and a mark.

`\\ud83d` alone is valid by the grammar (RFC 8259 §8.2), and models and editors write it. A byte
order mark before a text may be ignored (RFC 8259 §8.1). A mended body has the same length, so a
place in it is the same place in the body as it came.
"""

import re
from typing import Final

from relay.translate.pacing import paced

_MARK: Final = b"\xef\xbb\xbf"
_REPLACEMENT: Final = rb"\ufffd"
# An escape of a half with the backslashes before it. Of a pair both halves are one match.
_HALF: Final = re.compile(
    rb"(\\++)u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})"
)
_HALF_OCTETS: Final = len(_REPLACEMENT)


def mended(body: bytes) -> bytes:
    """The body with U+FFFD for each half of a character, and blanks for a byte order mark.

    It is the same object if there is nothing to mend.
    """
    places: list[int] = []
    for match in paced(_HALF.finditer(body)):
        # An even number of backslashes escape each other, and `ud83d` is text.
        if len(match[1]) % 2 and match[2] is None:
            places.append(match.end() - _HALF_OCTETS)
    if not places and not body.startswith(_MARK):
        return body
    copy = bytearray(body)
    if body.startswith(_MARK):
        copy[: len(_MARK)] = b" " * len(_MARK)
    for place in paced(places):
        copy[place : place + _HALF_OCTETS] = _REPLACEMENT
    return bytes(copy)
