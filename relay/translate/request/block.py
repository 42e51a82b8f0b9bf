"""A content block of the Messages API, as octets without the closing brace.

Decides how a block is written. Must not know what a block contains or where it stands.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.translate.raw_json import NOTHING, Octets, encode_string, string_content

# Asks for the rest of an answer that was cut off.
CONTINUE: Final = msgspec.Raw(encode_string("Continue."))

_TEXT_HEAD: Final = b'{"type":"text","text":'
_CACHE_HEAD: Final = b',"cache_control":'
_CACHE_MARK: Final = b',"cache_control":{"type":"ephemeral"}}'


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
    return Block((_TEXT_HEAD, raw), cache, raw, late_instruction)


def as_user_text(block: Block) -> Block:
    """A late instruction as a text of the user."""
    assert block.text is not None
    octets = (_TEXT_HEAD, b'"<system>\\n', string_content(block.text), b'\\n</system>"')
    return Block(octets, block.cache)


def write(out: list[Octets], blocks: Iterable[Block], *, mark: bool = False) -> None:
    """Append the blocks, and commas between them.

    Args:
        mark: put a cache mark on the last one, in place of its own.
    """
    comma = b""
    for block in blocks:
        if comma:
            out.append(comma)
        out += block.octets
        if block.cache is not NOTHING:
            out.append(_CACHE_HEAD)
            out.append(block.cache)
        out.append(b"}")
        comma = b","
    if mark and comma:
        out[-1] = _CACHE_MARK
