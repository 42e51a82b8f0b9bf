"""Thinking that comes back in a conversation, put where it once stood.

A model's thinking reaches callers of other dialects beside the text (`completion_shape`), and
they send it back beside the text. Here it becomes blocks again: untouched, in their old places,
and only for models of the family that did the thinking, for another one refuses the signature.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.invalid import read
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

ANTHROPIC: Final = "anthropic"

_FORMAT: Final = re.compile(r"(?P<family>.+?)(?:-claude)?-v1")
_ID: Final = re.compile(r"thinking-(?P<characters>\d{1,9})-(?P<calls>\d{1,6})")
_THINKING: Final = b'{"type":"thinking","thinking":'
_REDACTED: Final = b'{"type":"redacted_thinking","data":'
THINKING_PREFIXES: Final = (_THINKING, _REDACTED)  # what such blocks begin with


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
        """The block for a model of `family`; None: that one must not have it."""
        if self.family != family and (self.family or family == ANTHROPIC):
            return None
        if self.data is not NOTHING:
            return Block((_REDACTED, self.data))
        signature: msgspec.Raw | bytes = self.signature
        if signature is NOTHING:
            # Other vendors sign nothing, and want their thinking back all the same.
            if family == ANTHROPIC or self.text is NOTHING:
                return None
            signature = b'""'
        text = self.text if self.text is not NOTHING else b'""'
        return Block((_THINKING, text, b',"signature":', signature))


@dataclass(slots=True)
class ThinkingMessage:
    """An assistant's message that has thinking beside what it says and calls.

    Texts that say nothing are among `texts`: places count their characters, too.
    """

    texts: list[Block]
    calls: list[Block]
    thoughts: list[Thought]

    def blocks_for(self, family: str) -> tuple[list[Block], bool]:
        """All blocks in their order for a model of `family`; whether thinking comes first."""
        kept: list[Block] = []
        places: list[tuple[int, int]] = []
        for thought in self.thoughts:
            if (block := thought.block(family)) is not None:
                kept.append(block)
                places.append(thought.place or (-1, -1))
        if not self._fit(places):
            places = [(0, 0)] * len(kept)
        rest, calls = self.texts, self.calls
        found: list[Block] = []
        characters = number = 0
        for block, (before, called) in zip(kept, places, strict=True):
            said, rest = _split(rest, before - characters)
            found += said
            found += calls[number:called]
            found.append(block)
            characters, number = before, called
        found += _saying(rest)
        found += calls[number:]
        return found, bool(kept) and found[0] is kept[0]

    def _fit(self, places: list[tuple[int, int]]) -> bool:
        """Whether such places can all have been in this message, one after the other."""
        if not places or places[-1] == (0, 0):
            return all(place == (0, 0) for place in places)
        last = (0, 0)
        for place in places:
            if place[0] < last[0] or place[1] < last[1]:
                return False
            last = place
        length = sum(len(_words(block)) for block in self.texts) if last[0] else 0
        return last[0] <= length and last[1] <= len(self.calls)


class _Detail(msgspec.Struct, frozen=True, gc=False):
    """An entry of `reasoning_details`, as OpenRouter documents them."""

    type: str
    index: int | None = None
    id: str | None = None
    format: str | None = None
    text: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


class _Block(msgspec.Struct, frozen=True, gc=False):
    """An entry of LiteLLM's `thinking_blocks`."""

    type: str
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


class _Specific(msgspec.Struct, frozen=True, gc=False):
    reasoning_details: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING


_details = msgspec.json.Decoder(list[_Detail] | None).decode
_blocks = msgspec.json.Decoder(list[_Block] | None).decode
_specific = msgspec.json.Decoder(_Specific | None).decode


def read_thoughts(
    details: msgspec.Raw, blocks: msgspec.Raw, specific: msgspec.Raw, content: msgspec.Raw, at: str
) -> list[Thought]:
    """The thinking of one message.

    Args:
        details: `reasoning_details`, which counts more than the others: it tells places.
        blocks: `thinking_blocks`.
        specific: `provider_specific_fields`, where LiteLLM has both of them.
        content: `reasoning_content`, bare text; it counts if there is nothing else.
        at: the message.

    Raises:
        RelayError: 400, one of them is not what it should be.
    """
    found = _detailed(details, f"{at}.reasoning_details") or _plain(blocks, f"{at}.thinking_blocks")
    if not found and is_given(specific):
        at_specific = f"{at}.provider_specific_fields"
        inner = read(_specific, specific, at_specific)
        if inner is not None:
            found = _detailed(inner.reasoning_details, f"{at_specific}.reasoning_details")
            found = found or _plain(inner.thinking_blocks, f"{at_specific}.thinking_blocks")
    if not found and is_given(content) and has_text(content, f"{at}.reasoning_content"):
        found = [Thought("", content)]
    return found


def _detailed(raw: msgspec.Raw, at: str) -> list[Thought]:
    if not is_given(raw):
        return []
    found: list[Thought] = []
    last: _Detail | None = None
    for number, detail in enumerate(read(_details, raw, at) or ()):
        here = f"{at}[{number}]"
        data = _text(detail.data, f"{here}.data")
        text = _text(detail.text, f"{here}.text")
        signature = _text(detail.signature, f"{here}.signature")
        if (
            last is not None
            and detail.id is None
            and detail.index is not None
            and (detail.index, detail.type) == (last.index, last.type)
        ):
            # A piece of the same entry, from one who kept the pieces of a stream as they came.
            whole = found[-1]
            found[-1] = Thought(
                whole.family,
                _joined(whole.text, text),
                _joined(whole.signature, signature),
                _joined(whole.data, data),
                whole.place,
            )
            continue
        last = detail
        form = _FORMAT.fullmatch(detail.format or "")
        # One that does not say whose it is must not be taken for just anybody's.
        family = form["family"] if form is not None else "?"
        place = _ID.fullmatch(detail.id or "")
        where = (int(place["characters"]), int(place["calls"])) if place is not None else None
        if detail.type == "reasoning.text":
            found.append(Thought(family, text, signature, place=where))
        elif detail.type == "reasoning.encrypted":
            found.append(Thought(family, data=data, place=where))
        else:  # a summary, for one: no block was ever made of it
            last = None
    return found


def _plain(raw: msgspec.Raw, at: str) -> list[Thought]:
    if not is_given(raw):
        return []
    found: list[Thought] = []
    for number, block in enumerate(read(_blocks, raw, at) or ()):
        here = f"{at}[{number}]"
        if block.type == "thinking":
            text = _text(block.thinking, f"{here}.thinking")
            found.append(Thought(ANTHROPIC, text, _text(block.signature, f"{here}.signature")))
        elif block.type == "redacted_thinking":
            found.append(Thought(ANTHROPIC, data=_text(block.data, f"{here}.data")))
    return found


def _text(raw: msgspec.Raw, at: str) -> msgspec.Raw:
    """A text; `NOTHING` if it is empty or null."""
    if not is_given(raw):
        return NOTHING
    if kind(raw) != '"':
        raise not_text_error(raw, at)
    return raw if len(memoryview(raw)) > 2 else NOTHING


def _joined(first: msgspec.Raw, second: msgspec.Raw) -> msgspec.Raw:
    """One text of two; each of them has whole escapes only."""
    if first is NOTHING or second is NOTHING:
        return first if second is NOTHING else second
    return msgspec.Raw(b"".join((b'"', string_content(first), string_content(second), b'"')))


def _words(block: Block) -> str:
    assert block.text is not None
    return decode_string(block.text, "")


def _saying(texts: list[Block]) -> list[Block]:
    return [block for block in texts if block.text is not None and has_text(block.text, "")]


def _split(texts: list[Block], characters: int) -> tuple[list[Block], list[Block]]:
    """What of the texts comes before that many characters, and what comes after them."""
    if not characters:
        return [], texts
    before: list[Block] = []
    for number, block in enumerate(texts):
        words = _words(block)
        if characters < len(words):
            if not characters:
                return _saying(before), texts[number:]
            head = text_block(msgspec.Raw(encode_string(words[:characters])))
            tail = text_block(msgspec.Raw(encode_string(words[characters:])), block.cache)
            return _saying([*before, head]), [tail, *texts[number + 1 :]]
        before.append(block)
        characters -= len(words)
    return _saying(before), []
