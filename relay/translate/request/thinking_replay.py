"""Puts the thinking that a caller sends back into its place in the conversation.

Callers of other dialects get a model's thinking beside the text, and send it back beside the text.
Decides where the blocks stand again, unchanged, and which model may have them: only the family
that signed a block accepts it. Must not know the dialect's other members.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read
from relay.translate.pacing import paced
from relay.translate.raw_json import (
    NOTHING,
    decode_string,
    encode_string,
    has_text,
    is_given,
    kind,
    not_text_error,
    string_content,
)
from relay.translate.request.block import Block, text_block
from relay.translate.request.fields import ReasoningDetail, SpecificFields, ThinkingBlock

ANTHROPIC: Final = "anthropic"

_MAX_THOUGHTS: Final = 256  # in one message; a real one has 1 to 20

_DETAIL_FORMAT: Final = re.compile(r"(?P<family>.+?)(?:-claude)?-v1")
_DETAIL_ID: Final = re.compile(r"thinking-(?P<characters>\d{1,9})-(?P<calls>\d{1,6})")
_THINKING_HEAD: Final = b'{"type":"thinking","thinking":'
_REDACTED_HEAD: Final = b'{"type":"redacted_thinking","data":'
THINKING_PREFIXES: Final = (_THINKING_HEAD, _REDACTED_HEAD)  # of their octets


class Thought:
    """A thinking block that came back. A value: never changed.

    `family` is the model family that produced it; "" is any but Anthropic's. A redacted block has
    `data` and nothing else. `place` is the number of characters and of tool calls before it.
    """

    __slots__ = ("data", "family", "place", "signature", "text")

    def __init__(
        self,
        family: str,
        text: msgspec.Raw = NOTHING,
        signature: msgspec.Raw = NOTHING,
        data: msgspec.Raw = NOTHING,
        place: tuple[int, int] | None = None,
    ) -> None:
        self.family = family
        self.text = text
        self.signature = signature
        self.data = data
        self.place = place

    def block(self, family: str) -> Block | None:
        """The block for a model of `family`; None if it must not have the block."""
        if self.family != family and (self.family or family == ANTHROPIC):
            return None
        if self.data is not NOTHING:
            return Block((_REDACTED_HEAD, self.data))
        signature: msgspec.Raw | bytes = self.signature
        if signature is NOTHING:
            # Other vendors do not sign their thinking, but expect it back.
            if family == ANTHROPIC or self.text is NOTHING:
                return None
            signature = b'""'
        text = self.text if self.text is not NOTHING else b'""'
        return Block((_THINKING_HEAD, text, b',"signature":', signature))


@dataclass(slots=True)
class ThinkingMessage:
    """An assistant message with thinking beside its texts and tool calls.

    `texts` includes blank texts, because places count their characters.
    """

    texts: list[Block]
    calls: list[Block]
    thoughts: list[Thought]

    def blocks_for(self, family: str) -> tuple[list[Block], bool]:
        """All blocks in order for a model of `family`, and whether thinking is the first."""
        kept: list[Block] = []
        places: list[tuple[int, int]] = []
        for thought in self.thoughts:
            if (block := thought.block(family)) is not None:
                kept.append(block)
                places.append(thought.place or (-1, -1))
        if not self._are_possible(places):
            places = [(0, 0)] * len(kept)
        cutter, calls = _TextCutter(self.texts), self.calls
        blocks: list[Block] = []
        characters = call_count = 0
        for block, (before, calls_before) in zip(kept, places, strict=True):
            blocks += cutter.take(before - characters)
            blocks += calls[call_count:calls_before]
            blocks.append(block)
            characters, call_count = before, calls_before
        blocks += cutter.rest()
        blocks += calls[call_count:]
        return blocks, bool(kept) and blocks[0] is kept[0]

    def _are_possible(self, places: list[tuple[int, int]]) -> bool:
        """Whether these places, in this order, can all be in this message."""
        if not places or places[-1] == (0, 0):
            return all(place == (0, 0) for place in places)
        last = (0, 0)
        for place in places:
            if place[0] < last[0] or place[1] < last[1]:
                return False
            last = place
        length = sum(len(_text(block)) for block in paced(self.texts)) if last[0] else 0
        return last[0] <= length and last[1] <= len(self.calls)


_decode_details: Final = msgspec.json.Decoder(list[ReasoningDetail] | None).decode
_decode_blocks: Final = msgspec.json.Decoder(list[ThinkingBlock] | None).decode
_decode_specific: Final = msgspec.json.Decoder(SpecificFields | None).decode


def read_thoughts(
    details: msgspec.Raw,
    blocks: msgspec.Raw,
    specific: msgspec.Raw,
    content: msgspec.Raw,
    param: str,
) -> list[Thought]:
    """The thinking of one message.

    Args:
        details: `reasoning_details`, which comes before the others: it has places.
        blocks: `thinking_blocks`.
        specific: `provider_specific_fields`, where LiteLLM puts both of them.
        content: `reasoning_content`, plain text, used if there is nothing else.
        param: the message.

    Raises:
        RelayError: 400, one of them has the wrong type.
    """
    found = _from_details(details, f"{param}.reasoning_details")
    found = found or _from_blocks(blocks, f"{param}.thinking_blocks")
    if not found and is_given(specific):
        specific_param = f"{param}.provider_specific_fields"
        inner = read(_decode_specific, specific, specific_param)
        assert inner is not None  # null counts as not given
        found = _from_details(inner.reasoning_details, f"{specific_param}.reasoning_details")
        found = found or _from_blocks(inner.thinking_blocks, f"{specific_param}.thinking_blocks")
    if not found and is_given(content) and has_text(content, f"{param}.reasoning_content"):
        found = [Thought("", content)]
    return found


class _Entry:
    """An entry of `reasoning_details`, whose pieces are still coming."""

    __slots__ = ("_datas", "_family", "_place", "_signatures", "_texts")

    def __init__(self, family: str, place: tuple[int, int] | None) -> None:
        self._family = family
        self._place = place
        self._texts: list[msgspec.Raw] = []
        self._signatures: list[msgspec.Raw] = []
        self._datas: list[msgspec.Raw] = []

    def add(self, text: msgspec.Raw, signature: msgspec.Raw, data: msgspec.Raw) -> None:
        """Add a piece: JSON strings, `NOTHING` for none."""
        if text is not NOTHING:
            self._texts.append(text)
        if signature is not NOTHING:
            self._signatures.append(signature)
        if data is not NOTHING:
            self._datas.append(data)

    def thought(self) -> Thought:
        """The complete entry."""
        text, signature = _join(self._texts), _join(self._signatures)
        return Thought(self._family, text, signature, _join(self._datas), self._place)


def _from_details(raw: msgspec.Raw, param: str) -> list[Thought]:
    if not is_given(raw):
        return []
    found: list[_Entry] = []
    last: ReasoningDetail | None = None
    for number, detail in enumerate(paced(read(_decode_details, raw, param) or ())):
        here = f"{param}[{number}]"
        data = _optional_text(detail.data, f"{here}.data")
        text = _optional_text(detail.text, f"{here}.text")
        signature = _optional_text(detail.signature, f"{here}.signature")
        if (
            last is not None
            and detail.id is None
            and detail.index is not None
            and (detail.index, detail.type) == (last.index, last.type)
        ):
            # A piece of the same entry: the client kept the pieces of a stream as they came.
            found[-1].add(text, signature, data)
            continue
        last = detail
        format = _DETAIL_FORMAT.fullmatch(detail.format or "")
        # Thinking of an unknown family must not go to every model.
        family = format["family"] if format is not None else "?"
        place = _DETAIL_ID.fullmatch(detail.id or "")
        where = (int(place["characters"]), int(place["calls"])) if place is not None else None
        entry = _Entry(family, where)
        if detail.type == "reasoning.text":
            entry.add(text, signature, NOTHING)
        elif detail.type == "reasoning.encrypted":
            entry.add(NOTHING, NOTHING, data)
        else:  # for example a summary, which was never a block
            last = None
            continue
        _check_number(len(found), param)
        found.append(entry)
    return [entry.thought() for entry in found]


def _check_number(number: int, param: str) -> None:
    """Refuse one more block than a message may have."""
    if number >= _MAX_THOUGHTS:
        raise invalid_field(param, f"a message has at most {_MAX_THOUGHTS} thinking blocks")


def _from_blocks(raw: msgspec.Raw, param: str) -> list[Thought]:
    if not is_given(raw):
        return []
    found: list[Thought] = []
    for number, block in enumerate(read(_decode_blocks, raw, param) or ()):
        here = f"{param}[{number}]"
        _check_number(number, param)
        if block.type == "thinking":
            text = _optional_text(block.thinking, f"{here}.thinking")
            signature = _optional_text(block.signature, f"{here}.signature")
            found.append(Thought(ANTHROPIC, text, signature))
        elif block.type == "redacted_thinking":
            found.append(Thought(ANTHROPIC, data=_optional_text(block.data, f"{here}.data")))
    return found


def _optional_text(raw: msgspec.Raw, param: str) -> msgspec.Raw:
    """A JSON string; NOTHING if it is empty or null."""
    if not is_given(raw):
        return NOTHING
    if kind(raw) != '"':
        raise not_text_error(raw, param)
    return raw if len(memoryview(raw)) > 2 else NOTHING


def _join(strings: list[msgspec.Raw]) -> msgspec.Raw:
    """One JSON string from several; no escape is cut between them."""
    if len(strings) < 2:
        return strings[0] if strings else NOTHING
    return msgspec.Raw(b"".join((b'"', *map(string_content, strings), b'"')))


def _text(block: Block) -> str:
    assert block.text is not None
    return decode_string(block.text, "")


def _without_blank(texts: list[Block]) -> list[Block]:
    return [block for block in paced(texts) if block.text is not None and has_text(block.text, "")]


class _TextCutter:
    """Cuts texts at ascending numbers of characters. Each text is decoded once."""

    __slots__ = ("_at", "_number", "_texts", "_words")

    def __init__(self, texts: list[Block]) -> None:
        self._texts = texts
        self._number = 0  # of the current text
        self._words: str | None = None  # the current text, decoded
        self._at = 0  # characters of it that were taken

    def take(self, characters: int) -> list[Block]:
        """The texts of the next characters, without blank ones."""
        taken: list[Block] = []
        while characters and self._number < len(self._texts):
            if self._words is None:
                self._words = _text(self._texts[self._number])
            left = len(self._words) - self._at
            if characters < left:
                end = self._at + characters
                taken.append(text_block(msgspec.Raw(encode_string(self._words[self._at : end]))))
                self._at = end
                break
            taken.append(self._rest_of_text())
            characters -= left
        return _without_blank(taken)

    def rest(self) -> list[Block]:
        """The texts of all remaining characters, without blank ones."""
        taken: list[Block] = []
        if self._at:
            taken.append(self._rest_of_text())
        taken += self._texts[self._number :]
        self._number = len(self._texts)
        return _without_blank(taken)

    def _rest_of_text(self) -> Block:
        """What remains of the current text, which is then behind."""
        block = self._texts[self._number]
        if self._at:
            assert self._words is not None
            octets = encode_string(self._words[self._at :])
            block = text_block(msgspec.Raw(octets), block.cache)
        self._number += 1
        self._words = None
        self._at = 0
        return block
