"""Texts of a given length: the filler of the simulated model.

Pure and deterministic. Some words have characters of two, three and four octets in UTF-8, which
exposes a relay that splits a text within a character.
"""

from functools import lru_cache
from typing import Final

_SENTENCE: Final = (
    "the relay reads every byte once and hands it on as it came with naïve "
    "patience through Zürich 東京 and Кишинёв while a small 🙂 clock counts tokens "
    "from the first event to the last without ever asking what they mean"
)
_WORDS: Final = _SENTENCE.split()
_LINE: Final = "Grüße aus 東京 🙂 und von der Gegenstelle. "
_LINE_BYTES: Final = len(_LINE.encode())


@lru_cache(maxsize=64)
def tokens(count: int, seed: str = "") -> tuple[str, ...]:
    """`count` pieces of text, one token each."""
    start = sum(seed.encode()) % len(_WORDS)
    pieces = [_WORDS[(start + index) % len(_WORDS)] + " " for index in range(count)]
    if pieces:
        pieces[-1] = pieces[-1].rstrip() + "."
    return tuple(pieces)


@lru_cache(maxsize=1)
def exactly(size: int) -> str:
    """A text of `size` octets in UTF-8."""
    lines, rest = divmod(size, _LINE_BYTES)
    return _LINE * lines + "." * rest


def pieces(text: str) -> list[str]:
    """The text in pieces of one token each; joined, they are the text again."""
    parts = text.split(" ")
    last = len(parts) - 1
    return [part + " " if index < last else part for index, part in enumerate(parts)]
