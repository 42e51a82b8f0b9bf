"""An event stream of the Messages API as a stream of chat completion chunks, while it passes.

This decides which chunks an event becomes, and when. Nothing of the answer is kept: counters,
what is open, and half an event at most. The same octets come out however those that go in are
cut. It must not know of sockets or of time; a stream is never begun before it has something to
show, so that until then another upstream may still give the answer.

One read of the upstream is usually one event of about 120 octets, so the way of such an event
is short: one decode that leaves its text as the octets that it is, one join.
"""

from typing import Final

from relay.translate.chat import render as shape
from relay.translate.chat.render import AnswerMetadata
from relay.translate.messages import content
from relay.translate.messages.content import EMPTY, Block
from relay.translate.messages.error_document import error_event
from relay.translate.messages.event import Delta
from relay.translate.messages.event_stream import EventStream
from relay.translate.raw_json import NOTHING

KEEP_ALIVE: Final = b": keep-alive\n\n"

_MOST_OPEN: Final = 256  # blocks at once; answers have one or two
_MOST_KEPT: Final = 4 * 1024 * 1024  # octets of inputs and citations that wait for a block's stop


class _Open:
    """A block between its start and its stop."""

    __slots__ = ("cited", "kind", "number", "passed_over", "place", "start", "waiting")

    def __init__(self, kind: str, start: int) -> None:
        self.kind = kind
        self.passed_over = False
        self.start = start  # characters before it
        self.number = -1  # of the thought or call; a thought gets it with its first piece
        self.place = b""  # a thought's id and format, until they are told
        self.waiting = b""  # a call's arguments, if none come in pieces
        self.cited: list[bytes] = []


class ChatStream(EventStream):
    """Chunks out; see `EventStream`."""

    __slots__ = (
        "_annotations",
        "_begun",
        "_calls",
        "_head",
        "_include_usage",
        "_kept",
        "_open",
        "_prefix",
        "_tail",
        "_text",
        "_thoughts",
        "_told",
        "_written",
    )

    def __init__(self, told: AnswerMetadata, *, include_usage: bool) -> None:
        super().__init__()
        self._told = told
        self._include_usage = include_usage
        # The parts of a chunk that stay the same.
        self._prefix = b"data: " + shape.head(told, "chat.completion.chunk")
        self._head = self._prefix + b',"choices":[{"index":0,"delta":{'
        ending = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null' + ending
        self._text = self._head + b'"content":'
        # The answer so far.
        self._begun = False
        self._open: dict[int, _Open] = {}
        self._kept = 0
        self._written = 0  # characters of text
        self._thoughts = 0
        self._calls = 0
        self._annotations = 0

    def finish(self) -> bytes:
        """The end of a stream whose answer is whole, and ended without an error.

        The usage is told as it is now: who knows that the upstream counts in another way may
        have put it right before.
        """
        usage = self.usage
        assert usage.complete
        assert not usage.error
        pieces = [self._stop(index) for index in list(self._open)]
        if usage.stop_reason == "refusal":
            pieces.append(self._show(b'"refusal":' + content.refusal(self._refusal)))
        elif not self._begun:
            pieces.append(self._show(b""))
        reason = b'"finish_reason":"%b"' % shape.finish_reason(usage.stop_reason, self._calls)
        pieces += (self._head, self._tail.replace(b'"finish_reason":null', reason))
        if self._include_usage:
            pieces += (self._prefix, b',"choices":[],"usage":', shape.usage_object(usage))
            pieces.append(b"}\n\n")
        pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def _ping(self) -> bytes:
        # Before anything else it would begin an answer that nobody has promised yet.
        return KEEP_ALIVE if self._begun else b""

    def _failed(self, data: bytes) -> bytes:
        return error_event(data)

    def _show(self, delta: bytes) -> bytes:
        """A chunk with these members of `delta`; the first brings the role with it."""
        if self._begun:
            return b"%b%b%b" % (self._head, delta, self._tail)
        self._begun = True
        role = b"%b%b%b" % (self._head, shape.ROLE, self._tail)
        return role + self._show(delta) if delta else role

    def _start(self, index: int, block: Block | None) -> bytes:
        if block is None:
            raise ValueError("the start of no block")
        shown = self._stop(index)  # a vendor may have left that out
        if len(self._open) >= _MOST_OPEN:
            raise ValueError("too many blocks at once")
        started = self._open[index] = _Open(block.type, self._written)
        match block.type:
            case "text":
                for cited in content.citations(block.citations):
                    self._cite(started, cited)
                return shown + self._say(content.string(block.text))
            case "thinking":
                started.place = shape.place(self._written, self._calls, self._told)
                shown += self._think(started, content.string(block.thinking))
                return shown + self._sign(started, content.string(block.signature))
            case "redacted_thinking":
                if (data := content.string(block.data)) != EMPTY:
                    started.place = shape.place(self._written, self._calls, self._told)
                    details = self._details(started, b"encrypted", b'"data":' + data)
                    shown += self._show(details)
            case "tool_use":
                started.number, self._calls = self._calls, self._calls + 1
                started.waiting = content.arguments(block.input)
                self._kept += len(started.waiting)
                if self._kept > _MOST_KEPT:
                    raise ValueError("too much input at once")
                call = shape.call(started.number, block, self._told, EMPTY)
                shown += self._show(b'"tool_calls":[{"index":%d,%b}]' % (started.number, call))
            case _:
                started.passed_over = True
        return shown

    def _delta(self, index: int, delta: Delta | None) -> bytes:
        if delta is None:
            return b""
        block = self._open.get(index)
        kind = delta.type
        if kind is None and delta.text is not NOTHING:  # Kimi's plan, at times (llm_wiki #303)
            kind = "text_delta"
        if kind == "text_delta":
            if block is None or not block.passed_over:
                return self._say(content.string(delta.text))
        elif block is None:
            return b""
        elif kind == "input_json_delta":
            if block.kind == "tool_use":
                return self._argue(block, content.string(delta.partial_json))
        elif kind == "thinking_delta":
            if block.kind == "thinking":
                return self._think(block, content.string(delta.thinking))
        elif kind == "signature_delta":
            if block.kind == "thinking":
                return self._sign(block, content.string(delta.signature))
        elif kind == "citations_delta" and block.kind == "text":
            cited = content.citation(delta.citation)
            if cited is not None:
                self._cite(block, cited)
        return b""

    def _stop(self, index: int) -> bytes:
        block = self._open.pop(index, None)
        if block is None:
            return b""
        if block.waiting:
            return self._argue(block, block.waiting)
        if not block.cited:
            return b""
        entries = []
        for cited in block.cited:
            self._kept -= len(cited)
            entry = shape.annotation(cited, block.start, self._written)
            # OpenAI's have no index; but helpers that join deltas refuse a second list without.
            entries.append(b'{"index":%d,%b}' % (self._annotations, entry))
            self._annotations += 1
        return self._show(b'"annotations":[%b]' % b",".join(entries))

    def _say(self, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._written += content.characters(text)
        if self._begun:
            return b"%b%b%b" % (self._text, text, self._tail)
        return self._show(b'"content":' + text)

    def _think(self, block: _Open, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        details = self._details(block, b"text", b'"text":' + text)
        return self._show(b'"reasoning_content":%b,%b' % (text, details))

    def _sign(self, block: _Open, signature: bytes) -> bytes:
        if signature == EMPTY:
            return b""
        # A thought that is not shown has no text but a signature.
        silent = b'"text":"",' if block.place else b""
        return self._show(self._details(block, b"text", b'%b"signature":%b' % (silent, signature)))

    def _details(self, block: _Open, kind: bytes, rest: bytes) -> bytes:
        """A piece of a thought. Helpers join strings, so its id and format come only once."""
        if block.place:
            rest = b"%b,%b" % (block.place, rest)
            block.place = b""
            block.number, self._thoughts = self._thoughts, self._thoughts + 1
        entry = (block.number, kind, rest)
        return b'"reasoning_details":[{"index":%d,"type":"reasoning.%b",%b}]' % entry

    def _argue(self, block: _Open, piece: bytes) -> bytes:
        if piece == EMPTY:
            return b""
        if block.waiting:
            self._kept -= len(block.waiting)
            block.waiting = b""
        call = b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (block.number, piece)
        return self._show(call)

    def _cite(self, block: _Open, cited: bytes) -> None:
        if len(block.cited) < content.MOST_CITATIONS and self._kept + len(cited) <= _MOST_KEPT:
            block.cited.append(cited)
            self._kept += len(cited)
