"""A Messages event stream as a stream of chat completion chunks, event by event.

Decides which chunks an event becomes, and when. Keeps no text of the answer: only counters, the
open blocks and at most half an event. The same octets come out however the input is cut. Must
not know sockets or time. The first chunk waits for content, so that until then another upstream
can still give the answer.

One read of the upstream is usually one event of about 120 octets. Such an event costs one decode
that leaves its text as octets, and one join.
"""

from typing import Final

from relay.errors import ErrorShape
from relay.translate.chat import render
from relay.translate.chat.render import AnswerMetadata
from relay.translate.free_text import StreamedText
from relay.translate.messages import content
from relay.translate.messages.content import EMPTY
from relay.translate.messages.content_fields import Block
from relay.translate.messages.event_fields import Delta
from relay.translate.messages.event_stream import EventStream
from relay.translate.raw_json import NOTHING

KEEP_ALIVE: Final = b": keep-alive\n\n"

_MAX_OPEN_BLOCKS: Final = 256  # answers have one or two at once
_MAX_PENDING_OCTETS: Final = 4 * 1024 * 1024  # of arguments and citations that wait for a stop


class _OpenBlock:
    """A block between its start and its stop."""

    __slots__ = (
        "call",
        "citations",
        "free_text",
        "index",
        "kind",
        "omitted",
        "pending_arguments",
        "position",
        "start",
    )

    def __init__(self, kind: str, start: int) -> None:
        self.kind = kind
        self.omitted = False  # chat completions have no such block
        self.start = start  # characters of text before it
        self.index = -1  # of the thought or call; a thought gets it with its first piece
        self.position = b""  # id and format of a thought that has not been rendered yet
        self.pending_arguments = b""  # rendered at the stop unless arguments come in pieces
        self.citations: list[bytes] = []
        self.call: render.Call | None = None
        self.free_text: StreamedText | None = None  # of a custom tool's call


class ChatStream(EventStream):
    """Upstream events in, chunks out. See `EventStream`."""

    __slots__ = (
        "_annotations",
        "_call_ids",
        "_calls",
        "_characters",
        "_has_legacy_call",
        "_head",
        "_include_usage",
        "_metadata",
        "_open_blocks",
        "_pending_octets",
        "_prefix",
        "_started",
        "_tail",
        "_text",
        "_thoughts",
    )

    def __init__(self, metadata: AnswerMetadata, *, include_usage: bool) -> None:
        super().__init__()
        self._metadata = metadata
        self._include_usage = include_usage
        # The constant octets of a chunk.
        self._prefix = b"data: " + render.head(metadata, "chat.completion.chunk")
        self._head = self._prefix + b',"choices":[{"index":0,"delta":{'
        ending = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null' + ending
        self._text = self._head + b'"content":'
        # The answer so far.
        self._started = False
        self._open_blocks: dict[int, _OpenBlock] = {}
        self._pending_octets = 0
        self._characters = 0  # of text
        self._thoughts = 0
        self._calls = 0
        self._call_ids: set[bytes] = set()
        self._has_legacy_call = False
        self._annotations = 0

    def finish(self) -> bytes:
        """The last chunks of an answer that is complete and had no error.

        Reads `usage` now: the gateway may have corrected it for an upstream that counts in
        another way.
        """
        usage = self.usage
        assert usage.complete
        assert not usage.error
        pieces = [self._stop(index) for index in list(self._open_blocks)]
        if usage.stop_reason == "refusal":
            pieces.append(self._render_chunk(b'"refusal":' + content.refusal(self._stop_details)))
        elif not self._started:
            pieces.append(self._render_chunk(b""))
        name = render.finish_reason(usage.stop_reason, self._calls, legacy=self._has_legacy_call)
        reason = b'"finish_reason":"%b"' % name
        pieces += (self._head, self._tail.replace(b'"finish_reason":null', reason))
        if self._include_usage:
            pieces += (self._prefix, b',"choices":[],"usage":', render.usage_object(usage))
            pieces.append(b"}\n\n")
        pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def _ping(self) -> bytes:
        # A comment before the first chunk would start an answer that another upstream may give.
        return KEEP_ALIVE if self._started else b""

    def _render_error(self, data: bytes) -> bytes:
        return self.error_of(data).event(ErrorShape.OPENAI)

    def _render_chunk(self, delta: bytes) -> bytes:
        """A chunk with these members of `delta`. The role's chunk comes before the first one."""
        if self._started:
            return b"%b%b%b" % (self._head, delta, self._tail)
        self._started = True
        role = b"%b%b%b" % (self._head, render.ROLE_DELTA, self._tail)
        return role + self._render_chunk(delta) if delta else role

    def _start(self, index: int, block: Block | None) -> bytes:
        if block is None:
            raise ValueError("the start of no block")
        chunks = self._stop(index)  # a vendor may have left that out
        if len(self._open_blocks) >= _MAX_OPEN_BLOCKS:
            raise ValueError("too many blocks at once")
        open_block = self._open_blocks[index] = _OpenBlock(block.type, self._characters)
        match block.type:
            case "text":
                for citation in content.citations(block.citations):
                    self._record_citation(open_block, citation)
                return chunks + self._render_text(content.string(block.text))
            case "thinking":
                open_block.position = render.thinking_position(
                    self._characters, self._calls, self._metadata
                )
                chunks += self._render_thinking(open_block, content.string(block.thinking))
                return chunks + self._render_signature(open_block, content.string(block.signature))
            case "redacted_thinking":
                if (data := content.string(block.data)) != EMPTY:
                    open_block.position = render.thinking_position(
                        self._characters, self._calls, self._metadata
                    )
                    details = self._render_details(open_block, b"encrypted", b'"data":' + data)
                    chunks += self._render_chunk(details)
            case "tool_use":
                chunks += self._render_call(open_block, block)
            case _:
                open_block.omitted = True
        return chunks

    def _render_call(self, open_block: _OpenBlock, block: Block) -> bytes:
        call = render.Call(block, self._metadata, self._call_ids)
        if call.kind == "legacy_function":
            if self._has_legacy_call:  # the form has room for one, and one was asked for
                open_block.omitted = True
                return b""
            self._has_legacy_call = True
        elif call.kind == "custom":
            open_block.free_text = StreamedText()
        open_block.call = call
        open_block.index, self._calls = self._calls, self._calls + 1
        open_block.pending_arguments = content.arguments(block.input)
        self._pending_octets += len(open_block.pending_arguments)
        if self._pending_octets > _MAX_PENDING_OCTETS:
            raise ValueError("too much input at once")
        if call.kind == "legacy_function":
            return self._render_chunk(call.function_call(EMPTY))
        members = call.members(EMPTY)
        return self._render_chunk(b'"tool_calls":[{"index":%d,%b}]' % (open_block.index, members))

    def _delta(self, index: int, delta: Delta | None) -> bytes:
        if delta is None:
            return b""
        block = self._open_blocks.get(index)
        kind = delta.type
        if kind is None and delta.text is not NOTHING:  # Kimi's plan, at times (llm_wiki #303)
            kind = "text_delta"
        if kind == "text_delta":
            return self._piece(index, kind, content.string(delta.text))
        if block is None:
            return b""
        if kind == "input_json_delta":
            if block.kind == "tool_use":
                return self._piece(index, kind, content.string(delta.partial_json))
        elif kind == "thinking_delta":
            if block.kind == "thinking":
                return self._piece(index, kind, content.string(delta.thinking))
        elif kind == "signature_delta":
            if block.kind == "thinking":
                return self._render_signature(block, content.string(delta.signature))
        elif kind == "citations_delta" and block.kind == "text":
            citation = content.citation(delta.citation)
            if citation is not None:
                self._record_citation(block, citation)
        return b""

    def _piece(self, index: int, kind: str, text: bytes) -> bytes:
        block = self._open_blocks.get(index)
        if kind == "text_delta":
            if block is None or not block.omitted:
                return self._render_text(text)
        elif block is None:
            return b""
        elif kind == "input_json_delta":
            if block.kind == "tool_use":
                return self._render_arguments(block, text)
        elif block.kind == "thinking":
            return self._render_thinking(block, text)
        return b""

    def _stop(self, index: int) -> bytes:
        block = self._open_blocks.pop(index, None)
        if block is None:
            return b""
        if block.pending_arguments:
            chunks = self._render_arguments(block, block.pending_arguments)
            return chunks + self._render_rest(block)
        if block.free_text is not None:
            return self._render_rest(block)
        if not block.citations:
            return b""
        annotations = []
        for citation in block.citations:
            self._pending_octets -= len(citation)
            annotation = render.annotation(citation, block.start, self._characters)
            # OpenAI's have no index, but SDK helpers that join deltas reject a second list
            # without one.
            annotations.append(b'{"index":%d,%b}' % (self._annotations, annotation))
            self._annotations += 1
        return self._render_chunk(b'"annotations":[%b]' % b",".join(annotations))

    def _render_text(self, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._characters += content.count_characters(text)
        if self._started:
            return b"%b%b%b" % (self._text, text, self._tail)
        return self._render_chunk(b'"content":' + text)

    def _render_thinking(self, block: _OpenBlock, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        details = self._render_details(block, b"text", b'"text":' + text)
        return self._render_chunk(b'"reasoning_content":%b,%b' % (text, details))

    def _render_signature(self, block: _OpenBlock, signature: bytes) -> bytes:
        if signature == EMPTY:
            return b""
        # Thinking that the upstream does not show has a signature and no text.
        text = b'"text":"",' if block.position else b""
        details = self._render_details(block, b"text", b'%b"signature":%b' % (text, signature))
        return self._render_chunk(details)

    def _render_details(self, block: _OpenBlock, kind: bytes, members: bytes) -> bytes:
        """A piece of a thought. Helpers join strings, so its id and format come only once."""
        if block.position:
            members = b"%b,%b" % (block.position, members)
            block.position = b""
            block.index, self._thoughts = self._thoughts, self._thoughts + 1
        entry = (block.index, kind, members)
        return b'"reasoning_details":[{"index":%d,"type":"reasoning.%b",%b}]' % entry

    def _render_arguments(self, block: _OpenBlock, piece: bytes) -> bytes:
        if piece == EMPTY or block.call is None:
            return b""
        if block.pending_arguments:
            self._pending_octets -= len(block.pending_arguments)
            block.pending_arguments = b""
        if block.free_text is not None:
            self._pending_octets += len(piece)
            if self._pending_octets > _MAX_PENDING_OCTETS:
                raise ValueError("too much input at once")
            piece = b'"%b"' % block.free_text.feed(piece)
            if piece == EMPTY:
                return b""
        return self._render_chunk(block.call.piece(block.index, piece))

    def _render_rest(self, block: _OpenBlock) -> bytes:
        """The end of a custom tool's free text."""
        if block.free_text is None or block.call is None:
            return b""
        self._pending_octets -= block.free_text.octets
        rest = block.free_text.finish()
        return self._render_chunk(block.call.piece(block.index, b'"%b"' % rest)) if rest else b""

    def _record_citation(self, block: _OpenBlock, citation: bytes) -> None:
        octets = self._pending_octets + len(citation)
        if len(block.citations) < content.MAX_CITATIONS and octets <= _MAX_PENDING_OCTETS:
            block.citations.append(citation)
            self._pending_octets = octets
