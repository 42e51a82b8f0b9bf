"""A content block of the Messages API, kept as octets that are open for one more member.

Decides how a block is written, and nothing of what should be in it or where it stands.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.translate.raw_json import NOTHING, Octets, string_content

_TEXT: Final = b'{"type":"text","text":'
_CACHE: Final = b',"cache_control":'
_EPHEMERAL: Final = b',"cache_control":{"type":"ephemeral"}}'


class Block:
    """A content block, or a tool, which is written in the same way. A value: never changed.

    `octets` is all but the closing brace; `cache` is the caller's own `cache_control`. A text
    block keeps its text, as a JSON string.
    """

    __slots__ = ("cache", "late_instruction", "octets", "text")

    def __init__(
        self,
        octets: tuple[Octets, ...],
        cache: msgspec.Raw = NOTHING,
        text: msgspec.Raw | None = None,
        late_instruction: bool = False,
    ) -> None:
        """`late_instruction`: it is an instruction from after the first user turn."""
        self.octets = octets
        self.cache = cache
        self.text = text
        self.late_instruction = late_instruction

    def with_cache(self, cache: msgspec.Raw) -> "Block":
        """The same block with another `cache_control`."""
        return Block(self.octets, cache, self.text, self.late_instruction)


def text_block(
    raw: msgspec.Raw, cache: msgspec.Raw = NOTHING, *, late_instruction: bool = False
) -> Block:
    """A block of text."""
    return Block((_TEXT, raw), cache, raw, late_instruction)


def as_user_text(block: Block) -> Block:
    """An aside as something that the user says."""
    assert block.text is not None
    octets = (_TEXT, b'"<system>\\n', string_content(block.text), b'\\n</system>"')
    return Block(octets, block.cache)


def write(out: list[Octets], blocks: Iterable[Block], *, mark: bool = False) -> None:
    """Append the blocks, and commas between them.

    Args:
        mark: put a cache breakpoint at the last one.
    """
    comma = b""
    for block in blocks:
        if comma:
            out.append(comma)
        out += block.octets
        if block.cache is not NOTHING:
            out.append(_CACHE)
            out.append(block.cache)
        out.append(b"}")
        comma = b","
    if mark and comma:
        out[-1] = _EPHEMERAL
