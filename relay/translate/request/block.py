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


class Block(msgspec.Struct, frozen=True, gc=False):
    """`octets` is all but the closing brace; `cache` the caller's own cache_control.

    A tool has these two as well, and is written in the same way.
    """

    octets: tuple[Octets, ...]
    cache: msgspec.Raw = NOTHING
    text: msgspec.Raw | None = None  # what a block of text says
    late_instruction: bool = False  # an instruction that came later than the first user turn


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
