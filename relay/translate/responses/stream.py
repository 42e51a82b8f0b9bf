"""An event stream of the Messages API as a stream of the Responses API, while it passes.

This decides which events an event becomes, and when. The items of an answer are kept, for its
last event tells them all again. The same octets come out however those that go in are cut. It
must not know of sockets; a stream is never begun before it has something to show, but for a
keep-alive.

The end of an item waits for what comes next: only that tells whether the item is whole, or where
the answer was cut at its limit, and a client acts upon an item once it has ended.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.errors import RelayError
from relay.translate.messages import content
from relay.translate.messages.content import EMPTY, Block
from relay.translate.messages.error_document import judged_event
from relay.translate.messages.event import Delta
from relay.translate.messages.event_stream import EventStream
from relay.translate.messages.usage import Usage
from relay.translate.raw_json import NOTHING
from relay.translate.request.thinking_replay import ANTHROPIC
from relay.translate.responses import error as failure
from relay.translate.responses import render as shape
from relay.translate.responses.output_items import (
    Call,
    Event,
    Item,
    Message,
    Passed,
    Search,
    Thinking,
)
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.tool_names import CallerTool

_MOST_OPEN: Final = 256  # blocks at once; answers have one or two
_MOST_KEPT: Final = 32 * 1024 * 1024  # octets of an answer
_SEARCH: Final = "web_search"
_TEXT_DELTA: Final = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","item_id":"%b","output_index":%d,'
    b'"content_index":0,"delta":'
)


class ResponsesStream(EventStream):
    """One for a whole request: it says the first words before there is an upstream, and the last
    ones whatever happens. See `EventStream`; `family` is that of the upstream's thinking blocks."""

    __slots__ = (
        "_begun",
        "_ended",
        "_kept",
        "_numbers",
        "_open",
        "_output",
        "_sequence",
        "_text",
        "_told",
        "_writing",
        "answer",
        "family",
    )

    def __init__(self, told: AnswerMetadata) -> None:
        super().__init__()
        self.family = ANTHROPIC
        self.answer = b""
        self._told = told
        self._begun = False
        self._ended: list[Item] = []  # whose end waits for what comes next
        self._kept = 0
        self._numbers: set[bytes] = set()  # what calls are known by
        self._open: dict[int, Item] = {}  # by the index of their block
        self._output: list[bytes | None] = []  # the items, in their order; None: not ended yet
        self._sequence = 0
        self._text = b""  # how a piece of the message begins that is being written
        self._writing: Message | None = None

    @property
    def output(self) -> list[bytes]:
        """The items that have ended."""
        return [item for item in self._output if item is not None]

    def finish(self) -> bytes:
        """The end of a stream whose answer is whole, and ended without an error.

        The usage is told as it is now: who knows that the upstream counts in another way may
        have put it right before.
        """
        usage = self.usage
        shown = [self._begin(), *(self._stop(index) for index in list(self._open))]
        cut = shape.is_cut(usage.stop_reason)
        shown.append(self._settle(cut=cut))
        if usage.stop_reason == "refusal":
            shown.append(self._refuse())
        status = b"incomplete" if cut else b"completed"
        told = shape.usage_object(usage)
        self.answer = shape.response(self._told, status, self.output, usage=told)
        shown.append(self._event_of(b"response." + status, b'"response":' + self.answer))
        return b"".join(shown)

    def replay(self, blocks: Iterable[Block], usage: Usage, details: msgspec.Raw) -> None:
        """Take a whole answer at once; `details` is its `stop_details`."""
        self._begun = True  # nobody reads how it begins
        for index, block in enumerate(blocks):
            self._start(index, block)
            self._stop(index)
        self.usage = usage
        if bytes(details)[:1] == b"{":
            self._refusal = details
        self.finish()

    def keep_alive(self) -> bytes:
        """Something to show while there is nothing."""
        return self._begin() or self._progress()

    def fail(self, error: RelayError) -> bytes:
        """The end of a stream that came to nothing."""
        self.usage.complete = self.usage.error = True
        shown = self._begin()
        self.answer = shape.response(
            self._told, b"failed", self.output, error=failure.member(error)
        )
        return shown + self._event_of(b"response.failed", b'"response":' + self.answer)

    # --- what the upstream says ---

    def _failed(self, data: bytes) -> bytes:
        return self.fail(judged_event(data))

    def _ping(self) -> bytes:
        return b""  # comments would not do, and each event has the whole response in it

    def _start(self, index: int, block: Block | None) -> bytes:
        if block is None:
            raise ValueError("the start of no block")
        shown = self._stop(index)  # a vendor may have left that out
        if len(self._open) >= _MOST_OPEN:
            raise ValueError("too many blocks at once")
        match block.type:
            case "text":
                message = self._open[index] = self._writing or Message(self._told)
                message.begin_block()
                shown += self._say(index, message, content.string(block.text))
                for cited in content.citations(block.citations):
                    self._keep(cited)
                    message.cite(cited)
                return shown
            case "thinking":
                thinking = Thinking(self._told, self.family)
                self._open[index] = thinking
                shown += self._think(thinking, content.string(block.thinking))
                return shown + self._sign(thinking, content.string(block.signature))
            case "redacted_thinking":
                data = content.string(block.data)
                thinking = Thinking(self._told, self.family, data)
                self._open[index] = thinking
                return shown + (self._add(thinking) if data != EMPTY else b"")
            case "tool_use":
                return shown + self._call(index, block)
            case "server_tool_use" if content.string(block.name) == b'"web_search"':
                self._open[index] = search = Search(self._told)
                search.waiting = content.arguments(block.input)
                self._keep(search.waiting)
            case "web_search_tool_result":
                self._open[index] = Passed(self._told)
                shown += self._settle()
            case _:
                self._open[index] = Passed(self._told)
        return shown

    def _call(self, index: int, block: Block) -> bytes:
        name = content.string(block.name)
        if name == EMPTY:
            raise ValueError("a tool call without a name")
        plain = name[1:-1].decode()
        known = self._told.tools.get(plain) or CallerTool("function", plain)
        number = content.string(block.id)
        if number == EMPTY or number in self._numbers:
            # A vendor may leave it out, or give it twice, and the SDK wants each but once.
            number = b'"call_%b_%d"' % (self._told.number.encode(), len(self._numbers))
        self._numbers.add(number)
        call = Call(self._told, known, number)
        call.waiting = content.arguments(block.input)
        self._keep(call.waiting)
        self._open[index] = call
        return self._add(call) if call.streams else b""

    def _delta(self, index: int, delta: Delta | None) -> bytes:
        if delta is None:
            return b""
        item = self._open.get(index)
        kind = delta.type
        if kind is None and delta.text is not NOTHING:
            kind = "text_delta"  # Kimi's plan, at times (llm_wiki #303)
        if kind == "text_delta":
            if item is None:  # a vendor may have left its start out
                item = self._open[index] = self._writing or Message(self._told)
            if isinstance(item, Message):
                return self._say(index, item, content.string(delta.text))
        elif item is None:
            return b""
        elif kind == "input_json_delta":
            if isinstance(item, Call | Search):
                return self._argue(item, content.string(delta.partial_json))
        elif kind == "thinking_delta":
            if isinstance(item, Thinking):
                return self._think(item, content.string(delta.thinking))
        elif kind == "signature_delta":
            if isinstance(item, Thinking):
                return self._sign(item, content.string(delta.signature))
        elif kind == "citations_delta" and isinstance(item, Message):
            cited = content.citation(delta.citation)
            if cited is not None:
                self._keep(cited)
                item.cite(cited)
        return b""

    def _stop(self, index: int) -> bytes:
        item = self._open.pop(index, None)
        if item is None:
            return b""
        if isinstance(item, Message):
            return self._annotate(item)  # the next block may go on with it
        shown = b""
        if item.index < 0:
            if not item.says:
                return b""
            shown = self._add(item)
        if isinstance(item, Call | Search):
            shown += self._emit(item, item.last())
        self._ended.append(item)
        return shown

    # --- what the caller is shown ---

    def _say(self, index: int, message: Message, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._kept += len(text)
        if self._kept > _MOST_KEPT:
            raise _too_long()
        if message is self._writing:
            message.pieces.append(text[1:-1])
            sequence = self._sequence
            self._sequence = sequence + 1
            return b'%b%b,"logprobs":[],"sequence_number":%d}\n\n' % (self._text, text, sequence)
        if message.index >= 0:  # it has ended: another block came between
            message = self._open[index] = Message(self._told)
        shown = self._add(message)
        message.pieces.append(text[1:-1])
        self._writing = message
        self._text = _TEXT_DELTA % (message.id, message.index)
        delta = b'"delta":%b,"logprobs":[]' % text
        where = b'"item_id":"%b","output_index":%d,"content_index":0,'
        return shown + self._event_of(
            b"response.output_text.delta", where % (message.id, message.index) + delta
        )

    def _annotate(self, message: Message) -> bytes:
        return self._emit(message, message.end_block()) if message is self._writing else b""

    def _think(self, thinking: Thinking, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._keep(text)
        shown = self._add(thinking) if thinking.index < 0 else b""
        return shown + self._emit(thinking, thinking.say(text))

    def _sign(self, thinking: Thinking, signature: bytes) -> bytes:
        if signature == EMPTY:
            return b""
        self._keep(signature)
        thinking.signature.append(signature[1:-1])
        return self._add(thinking) if thinking.index < 0 else b""

    def _argue(self, item: Call | Search, piece: bytes) -> bytes:
        if piece == EMPTY:
            return b""
        self._keep(piece)
        return self._emit(item, item.argue(piece))

    def _refuse(self) -> bytes:
        message = Message(self._told)
        words = content.refusal(self._refusal)
        if self._told.refusal_as_text:
            return self._say(-1, message, words) + self._settle()
        message.refusal = words
        return self._add(message) + self._settle_one(message, cut=False)

    def _add(self, item: Item) -> bytes:
        """An item begins: whatever has ended before it is whole."""
        shown = self._begin() + self._settle()
        item.index = len(self._output)
        self._output.append(None)
        item.id = item.identify(item.index)
        where = b'"output_index":%d,"item":%b' % (item.index, item.begun())
        shown += self._event_of(b"response.output_item.added", where)
        return shown + self._emit(item, item.first())

    def _settle(self, *, cut: bool = False) -> bytes:
        """End what has come to its end; `cut`: the last of it was cut."""
        ended, self._ended = self._ended, []
        shown = b""
        if self._writing is not None:
            shown = self._annotate(self._writing)  # its block may go on, but not here
            ended.append(self._writing)
            self._writing = None
        if not ended:
            return b""
        last = max(ended, key=_place)
        for item in sorted(ended, key=_place):
            shown += self._settle_one(item, cut=cut and item is last)
        return shown

    def _settle_one(self, item: Item, *, cut: bool) -> bytes:
        shown = self._emit(item, item.close())
        whole = item.whole(b"incomplete" if cut else b"completed")
        self._output[item.index] = whole
        where = b'"output_index":%d,"item":%b' % (item.index, whole)
        return shown + self._event_of(b"response.output_item.done", where)

    def _emit(self, item: Item, events: list[Event]) -> bytes:
        """Events of an item, each a name and the members that are its own."""
        if not events:
            return b""
        where = b'"item_id":"%b","output_index":%d' % (item.id, item.index)
        return b"".join(
            [self._event_of(name, where + b"," + own if own else where) for name, own in events]
        )

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        response = b'"response":' + shape.response(self._told, b"in_progress", ())
        return self._event_of(b"response.created", response) + self._progress()

    def _progress(self) -> bytes:
        response = shape.response(self._told, b"in_progress", self.output)
        return self._event_of(b"response.in_progress", b'"response":' + response)

    def _event_of(self, name: bytes, members: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = sequence + 1
        told = (name, name, members, sequence)
        return b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % told

    def _keep(self, octets: bytes) -> None:
        self._kept += len(octets)
        if self._kept > _MOST_KEPT:
            raise _too_long()


def _too_long() -> ValueError:
    return ValueError("an answer that is too long")


def _place(item: Item) -> int:
    return item.index
