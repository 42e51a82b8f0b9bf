"""Request bodies of a wanted size: an agent's long conversation, cut to the octet.

Decides the turns that fill a body. Must not know a dialect's fields.
"""

import re
from collections.abc import Callable, Sequence

_SIZE = re.compile(r"([1-9]\d*)([kKmM]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
# Code has newlines and quotes, which JSON escapes: the decoded text is shorter than the body.
_PASSAGE = (
    "def merge(left: list[str], right: list[str]) -> list[str]:\n"
    '    """Keeps equal items in order."""\n'
    "    merged: list[str] = []\n    while left and right:\n"
    "        merged.append(left.pop(0) if left[0] <= right[0] else right.pop(0))\n"
    "    return merged + left + right\n\n"
) * 8


def octets(size: str) -> int:
    """`"300k"` → 300,000.

    Raises:
        ValueError: it is no size.
    """
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(f"{size!r} is no size: 1000, 300k or 1m are")
    return int(found[1]) * _UNITS[found[2].lower()]


def filled(build: Callable[[Sequence[str]], bytes], size: int) -> bytes:
    """The body that `build` makes of turns, with as many turns as make it `size` octets long.

    `build` gets an even number of texts, the user's and the model's in turns, and one more text
    of the user at the end.

    Raises:
        ValueError: the body is longer without any turn.
    """
    least = len(build([""]))
    if size < least:
        raise ValueError(f"a body has at least {least} octets, {size} are too few")
    pair = len(build([_PASSAGE, _PASSAGE, ""])) - least
    turns = [_PASSAGE] * (2 * ((size - least) // pair))
    return build([*turns, "x" * (size - len(build([*turns, ""])))])
