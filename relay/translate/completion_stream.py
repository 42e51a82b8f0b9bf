"""An event stream of the Messages API as a stream of chat completion chunks, while it passes.

This decides which chunks an event becomes, and when. Nothing of the answer is kept: counters,
what is open, and half an event at most. The same octets come out however those that go in are
cut. It must not know of sockets or of time; a stream is never begun before it has something to
show, so that until then another upstream may still give the answer.

One read of the upstream is usually one event of about 120 octets, so the way of such an event
is short: one decode that leaves its text as the octets that it is, one join.
"""

from typing import Final

from relay.translate import completion_shape as shape
from relay.translate.completion_error import error_event
from relay.translate.completion_event import Delta, read
from relay.translate.completion_shape import EMPTY, NOTHING, Block, Told
from relay.translate.usage import Usage, read_event
from relay.wire.sse import MAX_EVENT, EventReader

KEEP_ALIVE: Final = b": keep-alive\n\n"

_DELTA: Final = b"event: content_block_delta\ndata: "
_DATA_AT: Final = len(_DELTA)
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


class Stream:
    """Octets of an upstream's event stream in, octets for the caller out.

    `usage` fills as events pass; `usage.whole` says that the answer has come to its end, and
    `usage.error` that this was an error, whose data is `error`. What comes after is ignored.
    """

    __slots__ = (
        "_after_cr",
        "_annotations",
        "_begun",
        "_calls",
        "_head",
        "_include_usage",
        "_kept",
        "_open",
        "_prefix",
        "_refusal",
        "_rest",
        "_tail",
        "_text",
        "_thoughts",
        "_told",
        "_written",
        "error",
        "usage",
    )

    def __init__(self, told: Told, *, include_usage: bool) -> None:
        self.usage = Usage()
        self.error: bytes | None = None
        self._told = told
        self._include_usage = include_usage
        # The parts of a chunk that stay the same.
        self._prefix = b"data: " + shape.head(told, "chat.completion.chunk")
        self._head = self._prefix + b',"choices":[{"index":0,"delta":{'
        ending = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null' + ending
        self._text = self._head + b'"content":'
        # The octets of an event that is not whole yet.
        self._rest = bytearray()
        self._after_cr = False
        # The answer so far.
        self._begun = False
        self._open: dict[int, _Open] = {}
        self._kept = 0
        self._written = 0  # characters of text
        self._thoughts = 0
        self._calls = 0
        self._annotations = 0
        self._refusal = NOTHING

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; b"" if there is nothing to show for them.

        Raises:
            ValueError: an event cannot be read, or is too long. The stream is spoilt.
        """
        if self.usage.whole:
            return b""
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        if self._rest:
            if b"\n" not in data:
                return self._wait(data)
            data = bytes(self._rest) + data
            self._rest.clear()
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        if len(blocks) == 1:
            shown = self._block(blocks[0])
        else:
            pieces = []
            for block in blocks:
                pieces.append(self._block(block))
                if self.usage.whole:
                    break
            shown = b"".join(pieces)
        if rest and not self.usage.whole:
            self._wait(rest)
        return shown

    def finish(self) -> bytes:
        """The end of a stream whose answer is whole, and ended without an error.

        The usage is told as it is now: who knows that the upstream counts in another way may
        have put it right before.
        """
        usage = self.usage
        assert usage.whole
        assert not usage.error
        pieces = [self._stop(index) for index in list(self._open)]
        if usage.stop_reason == "refusal":
            pieces.append(self._show(b'"refusal":' + shape.refusal(self._refusal)))
        elif not self._begun:
            pieces.append(self._show(b""))
        reason = b'"finish_reason":"%b"' % shape.finish_reason(usage.stop_reason, self._calls)
        pieces += (self._head, self._tail.replace(b'"finish_reason":null', reason))
        if self._include_usage:
            pieces += (self._prefix, b',"choices":[],"usage":', shape.usage_object(usage))
            pieces.append(b"}\n\n")
        pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Lines may end with CR LF or CR, too (WHATWG HTML §9.2.6); here all end with LF."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _wait(self, rest: bytes) -> bytes:
        self._rest += rest
        if len(self._rest) > MAX_EVENT + 1:  # a line feed may belong to its end
            raise ValueError("an event that is too long")
        return b""

    def _block(self, block: bytes) -> bytes:
        """What is between two empty lines: an event, a comment or nothing."""
        if len(block) > MAX_EVENT:
            raise ValueError("an event that is too long")
        if block.startswith(_DELTA) and block.find(b"\n", _DATA_AT) < 0:
            return self._event(b"", block[_DATA_AT:])
        shown = b""
        for name, data in EventReader().feed(block + b"\n\n"):
            shown = self._event(name, data)
        return shown

    def _event(self, name: bytes, data: bytes) -> bytes:
        if name == b"error":
            return self._fail(data)
        event = read(name, data)
        kind = event.type
        if kind == "content_block_delta":
            return self._delta(event.index, event.delta)
        match kind:
            case "content_block_start":
                return self._start(event.index, event.content_block)
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start":
                read_event(self.usage, data)
            case "message_delta":
                read_event(self.usage, data)
                if event.delta is not None and bytes(event.delta.stop_details)[:1] == b"{":
                    self._refusal = event.delta.stop_details.copy()
            case "message_stop":
                self.usage.whole = True
            case "ping":
                return self._ping()
            case "error":
                return self._fail(data)
        return b""

    def _ping(self) -> bytes:
        # Before anything else it would begin an answer that nobody has promised yet.
        return KEEP_ALIVE if self._begun else b""

    def _fail(self, data: bytes) -> bytes:
        self.error = data
        self.usage.whole = self.usage.error = True
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
                for cited in shape.citations(block.citations):
                    self._cite(started, cited)
                return shown + self._say(shape.string(block.text))
            case "thinking":
                started.place = shape.place(self._written, self._calls, self._told)
                shown += self._think(started, shape.string(block.thinking))
                return shown + self._sign(started, shape.string(block.signature))
            case "redacted_thinking":
                if (data := shape.string(block.data)) != EMPTY:
                    started.place = shape.place(self._written, self._calls, self._told)
                    details = self._details(started, b"encrypted", b'"data":' + data)
                    shown += self._show(details)
            case "tool_use":
                started.number, self._calls = self._calls, self._calls + 1
                started.waiting = shape.arguments(block.input)
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
                return self._say(shape.string(delta.text))
        elif block is None:
            return b""
        elif kind == "input_json_delta":
            if block.kind == "tool_use":
                return self._argue(block, shape.string(delta.partial_json))
        elif kind == "thinking_delta":
            if block.kind == "thinking":
                return self._think(block, shape.string(delta.thinking))
        elif kind == "signature_delta":
            if block.kind == "thinking":
                return self._sign(block, shape.string(delta.signature))
        elif kind == "citations_delta" and block.kind == "text":
            cited = shape.citation(delta.citation)
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
        self._written += shape.characters(text)
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
        if len(block.cited) < shape.MOST_CITATIONS and self._kept + len(cited) <= _MOST_KEPT:
            block.cited.append(cited)
            self._kept += len(cited)
