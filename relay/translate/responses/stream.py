"""A Messages event stream as an event stream of the Responses API, event by event.

Decides which events an upstream event becomes, and when. Keeps the output items, because the
last event repeats them. The same octets come out however the input is cut. Must not know
sockets. The first event waits for content or for a keep-alive.

The end of an item waits for the next one: only then is it known whether the item is complete or
the answer stopped at its token limit. A client acts on an item as soon as it is done.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.errors import RelayError
from relay.translate.messages import content
from relay.translate.messages.content import EMPTY
from relay.translate.messages.content_fields import Block
from relay.translate.messages.event_fields import Delta
from relay.translate.messages.event_stream import EventStream
from relay.translate.messages.usage import Usage
from relay.translate.raw_json import NOTHING
from relay.translate.request.thinking_replay import ANTHROPIC
from relay.translate.request.tool_names import CallerTool
from relay.translate.responses import error as error_object
from relay.translate.responses import render
from relay.translate.responses.output_items import (
    Event,
    MessageItem,
    OmittedBlock,
    OutputItem,
    ReasoningItem,
    ToolCallItem,
    WebSearchItem,
)
from relay.translate.responses.render import AnswerMetadata

_MAX_OPEN_BLOCKS: Final = 256  # answers have one or two at once
_MAX_KEPT_OCTETS: Final = 32 * 1024 * 1024  # of one answer
_TEXT_DELTA: Final = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","item_id":"%b","output_index":%d,'
    b'"content_index":0,"delta":'
)


class ResponsesStream(EventStream):
    """Upstream events in, response events out. See `EventStream`.

    One for a whole request: it may start with a keep-alive before an upstream is chosen, and it
    ends the stream on every outcome. `family` is that of the upstream's thinking blocks. `answer`
    is the response object at the end.
    """

    __slots__ = (
        "_call_ids",
        "_finished_items",
        "_kept_octets",
        "_message",
        "_metadata",
        "_open_blocks",
        "_output",
        "_sequence",
        "_started",
        "_text",
        "answer",
        "family",
    )

    def __init__(self, metadata: AnswerMetadata) -> None:
        super().__init__()
        self.family = ANTHROPIC
        self.answer = b""
        self._metadata = metadata
        self._started = False
        self._finished_items: list[OutputItem] = []  # done as soon as the next item is added
        self._kept_octets = 0
        self._call_ids: set[bytes] = set()
        self._open_blocks: dict[int, OutputItem | OmittedBlock] = {}  # by the index of their block
        self._output: list[bytes | None] = []  # the items in their order; None: not done yet
        self._sequence = 0
        self._text = b""  # the constant start of the current message's text deltas
        self._message: MessageItem | None = None  # the current message

    @property
    def output(self) -> list[bytes]:
        """The items that are done."""
        return [item for item in self._output if item is not None]

    def finish(self) -> bytes:
        """The last events of an answer that is complete and had no error.

        Reads `usage` now: the gateway may have corrected it for an upstream that counts in
        another way.
        """
        usage = self.usage
        events = [self._begin(), *(self._stop(index) for index in list(self._open_blocks))]
        at_limit = render.is_at_limit(usage.stop_reason)
        events.append(self._complete_items(at_limit=at_limit))
        if usage.stop_reason == "refusal":
            events.append(self._render_refusal())
        status = b"incomplete" if at_limit else b"completed"
        usage_object = render.usage_object(usage)
        self.answer = render.response(self._metadata, status, self.output, usage=usage_object)
        events.append(self._render_event(b"response." + status, b'"response":' + self.answer))
        return b"".join(events)

    def replay(self, blocks: Iterable[Block], usage: Usage, details: msgspec.Raw) -> None:
        """Take a complete answer; `details` is its `stop_details`. Sets `answer` and `output`."""
        self._started = True  # nobody reads the first events
        for index, block in enumerate(blocks):
            self._start(index, block)
            self._stop(index)
        self.usage = usage
        if bytes(details)[:1] == b"{":
            self._stop_details = details
        self.finish()

    def keep_alive(self) -> bytes:
        """An event that shows life while there is no content."""
        return self._begin() or self._render_progress()

    def fail(self, error: RelayError) -> bytes:
        """The last events of a stream that ends with an error."""
        self.usage.complete = self.usage.error = True
        self._piece_head = b""  # no further piece is taken
        events = self._begin()
        self.answer = render.response(
            self._metadata, b"failed", self.output, error=error_object.member(error)
        )
        return events + self._render_event(b"response.failed", b'"response":' + self.answer)

    # --- events of the upstream ---

    def _render_error(self, data: bytes) -> bytes:
        return self.fail(self.error_of(data))

    def _ping(self) -> bytes:
        return b""  # a comment would not do, and each event repeats the whole response

    def _start(self, index: int, block: Block | None) -> bytes:
        if block is None:
            raise ValueError("the start of no block")
        events = self._stop(index)  # a vendor may have left that out
        if len(self._open_blocks) >= _MAX_OPEN_BLOCKS:
            raise ValueError("too many blocks at once")
        match block.type:
            case "text":
                return events + self._start_text(index, block)
            case "thinking":
                reasoning = ReasoningItem(self._metadata, self.family)
                self._open_blocks[index] = reasoning
                events += self._render_thinking(reasoning, content.string(block.thinking))
                return events + self._render_signature(reasoning, content.string(block.signature))
            case "redacted_thinking":
                data = content.string(block.data)
                reasoning = ReasoningItem(self._metadata, self.family, data)
                self._open_blocks[index] = reasoning
                return events + (self._add(reasoning) if data != EMPTY else b"")
            case "tool_use":
                return events + self._start_call(index, block)
            case "server_tool_use" if content.string(block.name) == b'"web_search"':
                self._open_blocks[index] = search = WebSearchItem(self._metadata)
                search.pending_arguments = content.arguments(block.input)
                self._count(search.pending_arguments)
            case "web_search_tool_result":
                self._open_blocks[index] = OmittedBlock()
                events += self._complete_items()
            case _:
                self._open_blocks[index] = OmittedBlock()
        return events

    def _start_text(self, index: int, block: Block) -> bytes:
        message = self._open_blocks[index] = self._message or MessageItem(self._metadata)
        message.start_block()
        events = self._render_text(index, message, content.string(block.text))
        for citation in content.citations(block.citations):
            self._count(citation)
            message.record_citation(citation)
        return events

    def _start_call(self, index: int, block: Block) -> bytes:
        name = content.string(block.name)
        if name == EMPTY:
            raise ValueError("a tool call without a name")
        plain = name[1:-1].decode()
        tool = self._metadata.tools.get(plain) or CallerTool("function", plain)
        call_id = content.string(block.id)
        if call_id == EMPTY or call_id in self._call_ids:
            # A vendor may leave it out or repeat it, and the OpenAI SDK needs unique ones.
            suffix = self._metadata.id_suffix.encode()
            call_id = b'"call_%b_%d"' % (suffix, len(self._call_ids))
        self._call_ids.add(call_id)
        call = ToolCallItem(self._metadata, tool, call_id)
        call.pending_arguments = content.arguments(block.input)
        self._count(call.pending_arguments)
        self._open_blocks[index] = call
        return self._add(call) if call.is_streamed else b""

    def _delta(self, index: int, delta: Delta | None) -> bytes:
        if delta is None:
            return b""
        item = self._open_blocks.get(index)
        kind = delta.type
        if kind is None and delta.text is not NOTHING:
            kind = "text_delta"  # Kimi's plan, at times (llm_wiki #303)
        if kind == "text_delta":
            if item is None or isinstance(item, MessageItem):
                return self._piece(index, kind, content.string(delta.text))
        elif item is None:
            return b""
        elif kind == "input_json_delta":
            if isinstance(item, (ToolCallItem, WebSearchItem)):
                return self._piece(index, kind, content.string(delta.partial_json))
        elif kind == "thinking_delta":
            if isinstance(item, ReasoningItem):
                return self._piece(index, kind, content.string(delta.thinking))
        elif kind == "signature_delta":
            if isinstance(item, ReasoningItem):
                return self._render_signature(item, content.string(delta.signature))
        elif kind == "citations_delta" and isinstance(item, MessageItem):
            citation = content.citation(delta.citation)
            if citation is not None:
                self._count(citation)
                item.record_citation(citation)
        return b""

    def _piece(self, index: int, kind: str, text: bytes) -> bytes:
        item = self._open_blocks.get(index)
        if kind == "text_delta":
            if item is None:  # a vendor may have left its start out
                item = self._open_blocks[index] = self._message or MessageItem(self._metadata)
            if isinstance(item, MessageItem):
                return self._render_text(index, item, text)
        elif kind == "input_json_delta":
            if isinstance(item, (ToolCallItem, WebSearchItem)):
                return self._render_arguments(item, text)
        elif isinstance(item, ReasoningItem):
            return self._render_thinking(item, text)
        return b""

    def _stop(self, index: int) -> bytes:
        item = self._open_blocks.pop(index, None)
        if item is None or isinstance(item, OmittedBlock):
            return b""
        if isinstance(item, MessageItem):
            return self._render_annotations(item)  # the next block may continue the message
        events = b""
        if item.index < 0:
            if not item.has_content:
                return b""
            events = self._add(item)
        if isinstance(item, (ToolCallItem, WebSearchItem)):
            events += self._render_events(item, item.finish_arguments())
        self._finished_items.append(item)
        return events

    # --- events for the caller ---

    def _render_text(self, index: int, message: MessageItem, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._kept_octets += len(text)
        if self._kept_octets > _MAX_KEPT_OCTETS:
            raise _too_long_error()
        if message is self._message:
            message.pieces.append(text[1:-1])
            sequence = self._sequence
            self._sequence = sequence + 1
            return b'%b%b,"logprobs":[],"sequence_number":%d}\n\n' % (self._text, text, sequence)
        if message.index >= 0:  # another item came between, so this message is done
            message = self._open_blocks[index] = MessageItem(self._metadata)
        events = self._add(message)
        message.pieces.append(text[1:-1])
        self._message = message
        self._text = _TEXT_DELTA % (message.id, message.index)
        members = b'"content_index":0,"delta":%b,"logprobs":[]' % text
        delta = (b"response.output_text.delta", members)
        return events + self._render_events(message, [delta])

    def _render_annotations(self, message: MessageItem) -> bytes:
        if message is not self._message:
            return b""
        return self._render_events(message, message.end_block())

    def _render_thinking(self, reasoning: ReasoningItem, text: bytes) -> bytes:
        if text == EMPTY:
            return b""
        self._count(text)
        events = self._add(reasoning) if reasoning.index < 0 else b""
        return events + self._render_events(reasoning, reasoning.add_text(text))

    def _render_signature(self, reasoning: ReasoningItem, signature: bytes) -> bytes:
        if signature == EMPTY:
            return b""
        self._count(signature)
        reasoning.signature.append(signature[1:-1])
        return self._add(reasoning) if reasoning.index < 0 else b""

    def _render_arguments(self, item: ToolCallItem | WebSearchItem, piece: bytes) -> bytes:
        if piece == EMPTY:
            return b""
        self._count(piece)
        return self._render_events(item, item.add_arguments(piece))

    def _render_refusal(self) -> bytes:
        message = MessageItem(self._metadata)
        text = content.refusal(self._stop_details)
        if self._metadata.refusal_as_text:
            return self._render_text(-1, message, text) + self._complete_items()
        message.refusal = text
        return self._add(message) + self._complete_item(message, b"completed")

    def _add(self, item: OutputItem) -> bytes:
        """Add an item to the output. All items that ended before it are complete."""
        events = self._begin() + self._complete_items()
        item.place(len(self._output))
        self._output.append(None)
        members = b'"output_index":%d,"item":%b' % (item.index, item.render_added())
        events += self._render_event(b"response.output_item.added", members)
        return events + self._render_events(item, item.opening_events())

    def _complete_items(self, *, at_limit: bool = False) -> bytes:
        """Complete all items that have ended; `at_limit`: the last of them is incomplete."""
        items, self._finished_items = self._finished_items, []
        events = b""
        if self._message is not None:
            events = self._render_annotations(self._message)  # its block may continue in another
            items.append(self._message)
            self._message = None
        items.sort(key=_place)
        for item in items:
            incomplete = at_limit and item is items[-1]
            events += self._complete_item(item, b"incomplete" if incomplete else b"completed")
        return events

    def _complete_item(self, item: OutputItem, status: bytes) -> bytes:
        events = self._render_events(item, item.closing_events())
        done = item.render_done(status)
        self._output[item.index] = done
        members = b'"output_index":%d,"item":%b' % (item.index, done)
        return events + self._render_event(b"response.output_item.done", members)

    def _render_events(self, item: OutputItem, events: list[Event]) -> bytes:
        """Events of an item, each with the item's id and place and its own members."""
        if not events:
            return b""
        place = b'"item_id":"%b","output_index":%d' % (item.id, item.index)
        return b"".join(
            [
                self._render_event(name, place + b"," + members if members else place)
                for name, members in events
            ]
        )

    def _begin(self) -> bytes:
        """The first events of the stream, once."""
        if self._started:
            return b""
        self._started = True
        response = b'"response":' + render.response(self._metadata, b"in_progress", ())
        return self._render_event(b"response.created", response) + self._render_progress()

    def _render_progress(self) -> bytes:
        response = render.response(self._metadata, b"in_progress", self.output)
        return self._render_event(b"response.in_progress", b'"response":' + response)

    def _render_event(self, name: bytes, members: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = sequence + 1
        event = (name, name, members, sequence)
        return b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % event

    def _count(self, octets: bytes) -> None:
        """Count octets that the stream keeps.

        Raises:
            ValueError: they are too many.
        """
        self._kept_octets += len(octets)
        if self._kept_octets > _MAX_KEPT_OCTETS:
            raise _too_long_error()


def _too_long_error() -> ValueError:
    return ValueError("an answer that is too long")


def _place(item: OutputItem) -> int:
    return item.index
