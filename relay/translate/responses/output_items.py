"""The items of an answer while they grow: what each has said, and which events tell of it.

Each of them has the same life: it begins (`begun`, `first`), grows, comes to its end (`last`),
is closed (`close`) and then stands as a whole. Events are pairs of a name and the members that
are the item's own; when they are sent, and with which numbers, is decided in `stream`.
"""

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from relay.translate.messages import content
from relay.translate.request.thinking_replay import ANTHROPIC
from relay.translate.responses import render as shape
from relay.translate.responses.free_text import FreeText
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.tool_names import CallerTool

Event = tuple[bytes, bytes]

_IN_PROGRESS: Final = b"in_progress"
_STREAMED: Final = ("function", "custom")
_EMPTY: Final = b'""'
_PART: Final = b'"content_index":0,"part":'
_SUMMARY: Final = b'"summary_index":0,'


class _Input(msgspec.Struct, frozen=True):
    input: msgspec.Raw


class _Query(msgspec.Struct, frozen=True):
    query: str = ""


_input = msgspec.json.Decoder(_Input).decode
_query = msgspec.json.Decoder(_Query).decode
_string = msgspec.json.Decoder(str).decode


class Item(ABC):
    """`index` is its place in the output, -1 until it has begun."""

    __slots__ = ("id", "index", "told")

    says = True  # whether there is anything in it that could be shown

    def __init__(self, told: AnswerMetadata) -> None:
        self.told = told
        self.id = b""
        self.index = -1

    @property
    @abstractmethod
    def prefix(self) -> str:
        """What its id begins with."""

    def identify(self, index: int) -> bytes:
        """The id of an item at this place."""
        return f"{self.prefix}_{self.told.number}_{index}".encode()

    @abstractmethod
    def begun(self) -> bytes:
        """The item as it begins."""

    @abstractmethod
    def whole(self, status: bytes) -> bytes:
        """The item at its end."""

    def first(self) -> list[Event]:
        """What follows its beginning."""
        return []

    def close(self) -> list[Event]:
        """What comes before its end."""
        return []


class Message(Item):
    """Texts, one after the other, as one; or a refusal."""

    __slots__ = ("_cited", "_counted", "_start", "annotations", "pieces", "refusal")

    prefix = "msg"

    def __init__(self, told: AnswerMetadata) -> None:
        super().__init__(told)
        self.pieces: list[bytes] = []  # without quotation marks
        self.refusal = b""
        self.annotations: list[bytes] = []
        self._start = 0  # where in the pieces the block begins that is being written
        self._cited: list[bytes] = []
        self._counted = (0, 0)  # so many of the pieces have so many characters

    def begin_block(self) -> None:
        """Another of the upstream's texts begins."""
        self._start = len(self.pieces)

    def cite(self, cited: bytes) -> None:
        """What the block rests upon."""
        if len(self._cited) < content.MOST_CITATIONS:
            self._cited.append(cited)

    def end_block(self) -> list[Event]:
        """The block has ended."""
        if not self._cited:
            return []
        start, end = self._characters(self._start), self._characters(len(self.pieces))
        events = []
        for cited in self._cited:
            annotation = shape.annotation(cited, start, end)
            where = b'"content_index":0,"annotation_index":%d,' % len(self.annotations)
            own = where + b'"annotation":' + annotation
            events.append((b"response.output_text.annotation.added", own))
            self.annotations.append(annotation)
        self._cited = []
        return events

    def begun(self) -> bytes:
        return shape.message(self.id, _IN_PROGRESS, b"")

    def first(self) -> list[Event]:
        if not self.refusal:
            return [(b"response.content_part.added", _PART + shape.output_text(_EMPTY))]
        delta = b'"content_index":0,"delta":' + self.refusal
        return [
            (b"response.content_part.added", _PART + shape.refusal(_EMPTY)),
            (b"response.refusal.delta", delta),
        ]

    def close(self) -> list[Event]:
        done = (b"response.content_part.done", _PART + self._part())
        if self.refusal:
            return [
                (b"response.refusal.done", b'"content_index":0,"refusal":' + self.refusal),
                done,
            ]
        text = b'"content_index":0,"text":%b,"logprobs":[]' % self._text()
        return [(b"response.output_text.done", text), done]

    def whole(self, status: bytes) -> bytes:
        return shape.message(self.id, status, self._part())

    def _part(self) -> bytes:
        if self.refusal:
            return shape.refusal(self.refusal)
        return shape.output_text(self._text(), self.annotations)

    def _text(self) -> bytes:
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
            self._counted = (0, 0)
        return b'"%b"' % b"".join(self.pieces)

    def _characters(self, pieces: int) -> int:
        """How many characters so many of the pieces have: none is counted twice."""
        known, characters = self._counted
        for piece in self.pieces[known:pieces]:
            characters += content.characters(b'"%b"' % piece)
        self._counted = (pieces, characters)
        return characters


class Thinking(Item):
    """What was thought: its text as a summary, if the caller wants that, and all of it sealed."""

    __slots__ = ("_data", "_family", "_pieces", "signature")

    prefix = "rs"

    def __init__(self, told: AnswerMetadata, family: str, data: bytes = b"") -> None:
        """`data` is that of a redacted block, which has nothing else."""
        super().__init__(told)
        self._family = family
        self._data = data
        self._pieces: list[bytes] = []
        self.signature: list[bytes] = []

    @property
    def says(self) -> bool:  # type: ignore[override]
        return bool(self._pieces or self.signature)

    @property
    def _shown(self) -> bool:
        return self.told.summarizes_thinking and bool(self._pieces)

    def say(self, text: bytes) -> list[Event]:
        """A piece of it."""
        events: list[Event] = []
        if self.told.summarizes_thinking and not self._pieces:
            part = _SUMMARY + b'"part":' + shape.summary_text(_EMPTY)
            events.append((b"response.reasoning_summary_part.added", part))
        self._pieces.append(text[1:-1])
        if self.told.summarizes_thinking:
            delta = _SUMMARY + b'"delta":' + text
            events.append((b"response.reasoning_summary_text.delta", delta))
        return events

    def begun(self) -> bytes:
        return shape.reasoning(self.id, b"", None)

    def close(self) -> list[Event]:
        if not self._shown:
            return []
        text = self._text()
        part = _SUMMARY + b'"part":' + shape.summary_text(text)
        return [
            (b"response.reasoning_summary_text.done", _SUMMARY + b'"text":' + text),
            (b"response.reasoning_summary_part.done", part),
        ]

    def whole(self, status: bytes) -> bytes:
        summary = shape.summary_text(self._text()) if self._shown else b""
        return shape.reasoning(self.id, summary, self._sealed())

    def _sealed(self) -> bytes | None:
        seal = self.told.seal
        if self._data:
            return seal.redacted(self._family, self._data)
        if not self.signature and self._family == ANTHROPIC:
            return None  # it was cut, and would be refused
        return seal.thought(self._family, self._text(), b'"%b"' % b"".join(self.signature))

    def _text(self) -> bytes:
        return b'"%b"' % b"".join(self._pieces)


class Call(Item):
    """A call of one of the caller's tools. `waiting` are its arguments if none come in pieces."""

    __slots__ = ("_inner", "_known", "_number", "_pieces", "_shown", "_text", "waiting")

    def __init__(self, told: AnswerMetadata, known: CallerTool, number: bytes) -> None:
        """`number` is what the upstream knows it by, a JSON string."""
        super().__init__(told)
        self._known = known
        self._number = number
        self._pieces: list[bytes] = []
        self._inner = FreeText() if known.kind == "custom" else None
        self._shown: list[bytes] = []
        self._text = _EMPTY
        self.waiting = b""

    @property
    def prefix(self) -> str:
        return shape.PREFIXES[self._known.kind]

    @property
    def streams(self) -> bool:
        """Whether it is told while it comes; else it begins when it has ended."""
        return self._known.kind in _STREAMED

    def argue(self, piece: bytes) -> list[Event]:
        """A piece of its arguments."""
        self.waiting = b""
        self._pieces.append(piece[1:-1])
        if self._inner is not None:
            return self._tell(self._inner.feed(piece[1:-1]))
        if self.streams:
            return [(b"response.function_call_arguments.delta", b'"delta":' + piece)]
        return []

    def last(self) -> list[Event]:
        """Its end: nothing more comes."""
        events = self.argue(self.waiting) if self.waiting else []
        arguments = b'"%b"' % b"".join(self._pieces)
        if self._inner is None:
            self._text = arguments
            return events
        self._text = _free_text(arguments)
        shown = b"".join(self._shown)
        if self._text[1:].startswith(shown):
            events += self._tell(self._text[1 + len(shown) : -1])
        else:  # it was cut, or says it twice: what has been told stays as it is
            self._text = b'"%b"' % shown
        return events

    def begun(self) -> bytes:
        return self._told_as(_IN_PROGRESS, _EMPTY if self.streams else self._pieces_so_far())

    def close(self) -> list[Event]:
        if self._inner is not None:
            return [(b"response.custom_tool_call_input.done", b'"input":' + self._text)]
        if self.streams:
            name = b'"name":' + msgspec.json.encode(self._known.name)
            own = b'%b,"arguments":%b' % (name, self._text)
            return [(b"response.function_call_arguments.done", own)]
        return []

    def whole(self, status: bytes) -> bytes:
        return self._told_as(status, self._text)

    def _told_as(self, status: bytes, text: bytes) -> bytes:
        known = self._known
        if known.kind == "function":
            return shape.function_call(self.id, status, self._number, known, text)
        if known.kind == "custom":
            return shape.custom_call(self.id, status, self._number, known, text)
        return shape.hosted_call(known.kind, self.id, status, self._number, text)

    def _pieces_so_far(self) -> bytes:
        return self.waiting or b'"%b"' % b"".join(self._pieces)

    def _tell(self, text: bytes) -> list[Event]:
        if not text:
            return []
        self._shown.append(text)
        return [(b"response.custom_tool_call_input.delta", b'"delta":"%b"' % text)]


class Passed(Item):
    """A block that this dialect has no item for."""

    __slots__ = ()

    prefix = ""
    says = False

    def begun(self) -> bytes:
        raise NotImplementedError

    def whole(self, status: bytes) -> bytes:
        raise NotImplementedError


class Search(Item):
    """A search of the web that the upstream does by itself."""

    __slots__ = ("_pieces", "waiting")

    prefix = "ws"

    def __init__(self, told: AnswerMetadata) -> None:
        super().__init__(told)
        self.waiting = b""
        self._pieces: list[bytes] = []

    def argue(self, piece: bytes) -> list[Event]:
        """A piece of what it looks for."""
        self._pieces.append(piece[1:-1])
        return []

    def last(self) -> list[Event]:
        """All of it is known."""
        return []

    def begun(self) -> bytes:
        return self._told_as(_IN_PROGRESS)

    def first(self) -> list[Event]:
        return [
            (b"response.web_search_call.in_progress", b""),
            (b"response.web_search_call.searching", b""),
        ]

    def close(self) -> list[Event]:
        return [(b"response.web_search_call.completed", b"")]

    def whole(self, status: bytes) -> bytes:
        return self._told_as(b"completed")

    def _told_as(self, status: bytes) -> bytes:
        arguments = b'"%b"' % b"".join(self._pieces) if self._pieces else self.waiting
        try:
            query = _query(_string(arguments)).query
        except msgspec.DecodeError:
            query = ""
        return shape.search_call(self.id, status, msgspec.json.encode(query))


def _free_text(arguments: bytes) -> bytes:
    """The text that a call of such a tool has, which should be all that is in its arguments."""
    try:
        text = _input(_string(arguments)).input
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return bytes(text) if bytes(text)[:1] == b'"' else arguments
