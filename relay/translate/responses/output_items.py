"""The output items of an answer while it streams: their content, and their own events.

Decides which events tell of an item's content. An item is added, grows, is closed and is then
rendered as done. Events are pairs of a type and the item's own members. Must not know when
events are sent nor their sequence numbers; `stream` decides those.
"""

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from relay.translate.free_text import StreamedText
from relay.translate.messages import content
from relay.translate.request.thinking_replay import ANTHROPIC
from relay.translate.request.tool_names import CallerTool
from relay.translate.responses import render
from relay.translate.responses.fields import SearchArguments
from relay.translate.responses.render import AnswerMetadata

Event = tuple[bytes, bytes]

_IN_PROGRESS: Final = b"in_progress"
_STREAMED_KINDS: Final = ("function", "custom")
_EMPTY: Final = b'""'
_PART: Final = b'"content_index":0,"part":'
_SUMMARY: Final = b'"summary_index":0,'


_decode_search: Final = msgspec.json.Decoder(SearchArguments).decode
_decode_string: Final = msgspec.json.Decoder(str).decode


class OutputItem(ABC):
    """An item of the output. `index` is its place there, -1 until it is added."""

    __slots__ = ("_id_prefix", "id", "index", "metadata")

    def __init__(self, metadata: AnswerMetadata, id_prefix: str) -> None:
        """`id_prefix` names the item's type, as in "msg_…"."""
        self.metadata = metadata
        self._id_prefix = id_prefix
        self.id = b""
        self.index = -1

    @property
    def has_content(self) -> bool:
        """Whether there is anything in it to show."""
        return True

    def place(self, index: int) -> None:
        """Set its place in the output, and the id that follows from it."""
        self.index = index
        self.id = f"{self._id_prefix}_{self.metadata.id_suffix}_{index}".encode()

    @abstractmethod
    def render_added(self) -> bytes:
        """The item in `response.output_item.added`."""

    @abstractmethod
    def render_done(self, status: bytes) -> bytes:
        """The item in `response.output_item.done` and in the response."""

    def opening_events(self) -> list[Event]:
        """The events right after the item was added."""
        return []

    @abstractmethod
    def closing_events(self) -> list[Event]:
        """The events right before the item is done."""


class OmittedBlock:
    """A block of the upstream that has no output item."""

    __slots__ = ()


class MessageItem(OutputItem):
    """One message: consecutive text blocks of the upstream, or a refusal."""

    __slots__ = (
        "_annotations",
        "_block_start",
        "_citations",
        "_counted",
        "pieces",
        "refusal",
    )

    def __init__(self, metadata: AnswerMetadata) -> None:
        super().__init__(metadata, "msg")
        self.pieces: list[bytes] = []  # of the text, without quotation marks
        self.refusal = b""
        self._annotations: list[bytes] = []
        self._block_start = 0  # index in `pieces` of the current block's first piece
        self._citations: list[bytes] = []  # of the current block
        self._counted = (0, 0)  # the first n pieces have m characters

    def start_block(self) -> None:
        """Start another text block of the upstream."""
        self._block_start = len(self.pieces)

    def record_citation(self, citation: bytes) -> None:
        """Record a citation of the current block."""
        if len(self._citations) < content.MAX_CITATIONS:
            self._citations.append(citation)

    def end_block(self) -> list[Event]:
        """End the current block; the events of its citations."""
        if not self._citations:
            return []
        start, end = self._characters(self._block_start), self._characters(len(self.pieces))
        events = []
        for citation in self._citations:
            annotation = render.annotation(citation, start, end)
            indexes = b'"content_index":0,"annotation_index":%d,' % len(self._annotations)
            members = indexes + b'"annotation":' + annotation
            events.append((b"response.output_text.annotation.added", members))
            self._annotations.append(annotation)
        self._citations = []
        return events

    def render_added(self) -> bytes:
        return render.message(self.id, _IN_PROGRESS, b"")

    def opening_events(self) -> list[Event]:
        if not self.refusal:
            return [(b"response.content_part.added", _PART + render.output_text(_EMPTY))]
        delta = b'"content_index":0,"delta":' + self.refusal
        return [
            (b"response.content_part.added", _PART + render.refusal(_EMPTY)),
            (b"response.refusal.delta", delta),
        ]

    def closing_events(self) -> list[Event]:
        done = (b"response.content_part.done", _PART + self._part())
        if self.refusal:
            return [
                (b"response.refusal.done", b'"content_index":0,"refusal":' + self.refusal),
                done,
            ]
        text = b'"content_index":0,"text":%b,"logprobs":[]' % self._text()
        return [(b"response.output_text.done", text), done]

    def render_done(self, status: bytes) -> bytes:
        return render.message(self.id, status, self._part())

    def _part(self) -> bytes:
        if self.refusal:
            return render.refusal(self.refusal)
        return render.output_text(self._text(), self._annotations)

    def _text(self) -> bytes:
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
            self._counted = (0, 0)
        return b'"%b"' % b"".join(self.pieces)

    def _characters(self, pieces: int) -> int:
        """The characters of the first `pieces` pieces; no piece is counted twice."""
        counted, characters = self._counted
        for piece in self.pieces[counted:pieces]:
            characters += content.count_characters(b'"%b"' % piece)
        self._counted = (pieces, characters)
        return characters


class ReasoningItem(OutputItem):
    """A thinking block: its text as a summary if the caller asked for one, and all of it sealed."""

    __slots__ = ("_data", "_family", "_pieces", "signature")

    def __init__(self, metadata: AnswerMetadata, family: str, data: bytes = b"") -> None:
        """`data` is that of a redacted block, which has nothing else."""
        super().__init__(metadata, "rs")
        self._family = family
        self._data = data
        self._pieces: list[bytes] = []
        self.signature: list[bytes] = []

    @property
    def has_content(self) -> bool:
        return bool(self._pieces or self.signature)

    @property
    def _shows_summary(self) -> bool:
        return self.metadata.summarizes_thinking and bool(self._pieces)

    def add_text(self, text: bytes) -> list[Event]:
        """Add a piece of the thinking, a JSON string."""
        events: list[Event] = []
        if self.metadata.summarizes_thinking and not self._pieces:
            part = _SUMMARY + b'"part":' + render.summary_text(_EMPTY)
            events.append((b"response.reasoning_summary_part.added", part))
        self._pieces.append(text[1:-1])
        if self.metadata.summarizes_thinking:
            delta = _SUMMARY + b'"delta":' + text
            events.append((b"response.reasoning_summary_text.delta", delta))
        return events

    def render_added(self) -> bytes:
        return render.reasoning(self.id, b"", None)

    def closing_events(self) -> list[Event]:
        if not self._shows_summary:
            return []
        text = self._text()
        part = _SUMMARY + b'"part":' + render.summary_text(text)
        return [
            (b"response.reasoning_summary_text.done", _SUMMARY + b'"text":' + text),
            (b"response.reasoning_summary_part.done", part),
        ]

    def render_done(self, status: bytes) -> bytes:
        summary = render.summary_text(self._text()) if self._shows_summary else b""
        return render.reasoning(self.id, summary, self._sealed())

    def _sealed(self) -> bytes | None:
        seal = self.metadata.seal
        if self._data:
            return seal.redacted(self._family, self._data)
        if not self.signature and self._family == ANTHROPIC:
            return None  # cut off before its signature: the API would refuse it
        return seal.thought(self._family, self._text(), b'"%b"' % b"".join(self.signature))

    def _text(self) -> bytes:
        return b'"%b"' % b"".join(self._pieces)


class ToolCallItem(OutputItem):
    """A call of one of the caller's tools."""

    __slots__ = (
        "_call_id",
        "_free_text",
        "_input",
        "_pieces",
        "_tool",
        "pending_arguments",
    )

    def __init__(self, metadata: AnswerMetadata, tool: CallerTool, call_id: bytes) -> None:
        """`call_id` is the upstream's id of the call, a JSON string."""
        super().__init__(metadata, render.ID_PREFIXES[tool.kind])
        self._tool = tool
        self._call_id = call_id
        self._pieces: list[bytes] = []
        self._free_text = StreamedText() if tool.kind == "custom" else None
        self._input = _EMPTY  # arguments or free text, complete at the end
        self.pending_arguments = b""  # from the block's start, used if no pieces come

    @property
    def is_streamed(self) -> bool:
        """Whether its events come while it grows; other kinds are added when they are complete."""
        return self._tool.kind in _STREAMED_KINDS

    def add_arguments(self, piece: bytes) -> list[Event]:
        """Add a piece of the arguments, a JSON string."""
        self.pending_arguments = b""
        if self._free_text is not None:
            return _shown(self._free_text.feed(piece))
        self._pieces.append(piece[1:-1])
        if self.is_streamed:
            return [(b"response.function_call_arguments.delta", b'"delta":' + piece)]
        return []

    def finish_arguments(self) -> list[Event]:
        """Complete the arguments: no more pieces come."""
        events = self.add_arguments(self.pending_arguments) if self.pending_arguments else []
        if self._free_text is None:
            self._input = b'"%b"' % b"".join(self._pieces)
            return events
        events += _shown(self._free_text.finish())
        self._input = b'"%b"' % self._free_text.text
        return events

    def render_added(self) -> bytes:
        if self.is_streamed:
            return self._render(_IN_PROGRESS, _EMPTY)
        return self._render(
            _IN_PROGRESS, self.pending_arguments or b'"%b"' % b"".join(self._pieces)
        )

    def closing_events(self) -> list[Event]:
        if self._free_text is not None:
            return [(b"response.custom_tool_call_input.done", b'"input":' + self._input)]
        if self.is_streamed:
            name = b'"name":' + msgspec.json.encode(self._tool.name)
            members = b'%b,"arguments":%b' % (name, self._input)
            return [(b"response.function_call_arguments.done", members)]
        return []

    def render_done(self, status: bytes) -> bytes:
        return self._render(status, self._input)

    def _render(self, status: bytes, text: bytes) -> bytes:
        tool = self._tool
        if tool.kind == "function":
            return render.function_call(self.id, status, self._call_id, tool, text)
        if tool.kind == "custom":
            return render.custom_call(self.id, status, self._call_id, tool, text)
        return render.hosted_call(tool.kind, self.id, status, self._call_id, text)


class WebSearchItem(OutputItem):
    """A web search that runs upstream."""

    __slots__ = ("_pieces", "pending_arguments")

    def __init__(self, metadata: AnswerMetadata) -> None:
        super().__init__(metadata, "ws")
        self.pending_arguments = b""  # from the block's start, used if no pieces come
        self._pieces: list[bytes] = []

    def add_arguments(self, piece: bytes) -> list[Event]:
        """Add a piece of the arguments, a JSON string."""
        self._pieces.append(piece[1:-1])
        return []

    def finish_arguments(self) -> list[Event]:
        """Complete the arguments: no more pieces come."""
        return []

    def render_added(self) -> bytes:
        return self._render(_IN_PROGRESS)

    def opening_events(self) -> list[Event]:
        return [
            (b"response.web_search_call.in_progress", b""),
            (b"response.web_search_call.searching", b""),
        ]

    def closing_events(self) -> list[Event]:
        return [(b"response.web_search_call.completed", b"")]

    def render_done(self, status: bytes) -> bytes:
        return self._render(b"completed")

    def _render(self, status: bytes) -> bytes:
        arguments = b'"%b"' % b"".join(self._pieces) if self._pieces else self.pending_arguments
        try:
            query = _decode_search(_decode_string(arguments)).query
        except (msgspec.DecodeError, RecursionError):
            query = ""
        return render.search_call(self.id, status, msgspec.json.encode(query))


def _shown(text: bytes) -> list[Event]:
    """The events of a piece of free text, the inside of a JSON string."""
    if not text:
        return []
    return [(b"response.custom_tool_call_input.delta", b'"delta":"%b"' % text)]
