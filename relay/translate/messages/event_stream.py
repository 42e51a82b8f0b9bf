"""Splits a Messages stream into events, at any cut of its octets, for a dialect to render.

Decides where an event ends, and handles the events of usage, of the end and of errors. Those with
content go to a subclass, one per dialect. Must not know any dialect. It keeps at most one
incomplete event, and how the input is cut does not change the events.

One read from the upstream usually brings one event of about 120 octets, which differs from the one
before in its text alone. Such an event costs no decode: the octets before the text are compared
with those of the event before, and the text is carried over as it is.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.translate.messages.answer_form import is_untyped_error
from relay.translate.messages.content_fields import Block
from relay.translate.messages.error_document import stream_error
from relay.translate.messages.event import read
from relay.translate.messages.event_fields import Delta
from relay.translate.messages.usage import DATA_OCTETS, Usage, record_event
from relay.translate.raw_json import NOTHING
from relay.wire.sse import MAX_EVENT, EventReader

_DELTA_HEAD: Final = b"event: content_block_delta\ndata: "
_DATA_AT: Final = len(_DELTA_HEAD)
_LINE_FEED: Final = 0x0A
_CARRIAGE_RETURN: Final = 0x0D
_QUOTE: Final = b'"'
# The beginning of a piece of text, up to the text, in the spelling of nearly all upstreams.
_PIECE_HEAD: Final = re.compile(
    _DELTA_HEAD + rb'\{"type": ?"content_block_delta", ?"index": ?(0|[1-9][0-9]{0,5}), ?'
    rb'"delta": ?\{"type": ?"'
    rb'(?:(text_delta)", ?"text|(thinking_delta)", ?"thinking|(input_json_delta)", ?"partial_json)'
    rb'": ?"'
)
_PIECE_END: Final = b"}}\n\n"
_is_piece_end: Final = re.compile(rb"\} *+\} *+\n\n").fullmatch  # Anthropic pads events with spaces
# A JSON string that needs no second look. Half a character does: the other half may follow.
_is_plain: Final = re.compile(
    rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*+"'
).fullmatch
_AROUND_DATA: Final = _DATA_AT + 2 + DATA_OCTETS  # octets of an event that are not its text


class EventStream(ABC):
    """Octets of an upstream's event stream in, octets for the caller out.

    `usage` is updated as events pass. `usage.complete` is set when the answer has ended, and
    `usage.error` when it ended with an error event, whose data is `error`. Later octets are
    ignored. `error_of` makes the caller's error of such data.
    """

    __slots__ = (
        "_after_cr",
        "_piece_head",
        "_piece_index",
        "_piece_kind",
        "_rest",
        "_stop_details",
        "error",
        "error_of",
        "usage",
    )

    def __init__(self) -> None:
        self.usage = Usage()
        self.error: bytes | None = None
        self.error_of: Callable[[bytes], RelayError] = stream_error
        self._rest = bytearray()  # an incomplete event
        self._after_cr = False
        # The head of the event before, if it was a piece of text, and nothing came behind it. The
        # next event is another piece of the same text if it begins so.
        self._piece_head = b""
        self._piece_index = 0
        self._piece_kind = ""
        self._stop_details = NOTHING  # an object, if the upstream gave one

    def feed(self, data: bytes) -> bytes:
        """The caller's octets for the next ones of the upstream; may be empty.

        Raises:
            ValueError: an event cannot be read, or is too long. The stream cannot go on.
        """
        head = self._piece_head
        if head and data.startswith(head):
            end = data.rfind(_QUOTE) + 1
            text = data[len(head) - 1 : end]
            if (
                (data[end:] == _PIECE_END or _is_piece_end(data, end))
                and _is_plain(text)
                and end <= MAX_EVENT
            ):
                if not text.isascii():
                    text.decode()  # it must be UTF-8
                self.usage.passed += len(data) - _AROUND_DATA
                return self._piece(self._piece_index, self._piece_kind, text)
        return self._read(data)

    def _read(self, data: bytes) -> bytes:
        """As `feed`, for octets of any form."""
        self._piece_head = b""
        if self.usage.complete:
            return b""
        if self._after_cr or _CARRIAGE_RETURN in data:
            data = self._with_line_feeds(data)
        if self._rest:
            if b"\n\n" not in data and (data[:1] != b"\n" or self._rest[-1] != _LINE_FEED):
                return self._keep_rest(data)  # no event ends here
            data = bytes(self._rest) + data
            self._rest.clear()
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        if len(blocks) == 1:
            output = self._block(blocks[0])
            if not rest and not self._after_cr:
                self._note_piece(blocks[0])
        else:
            pieces = []
            for block in blocks:
                pieces.append(self._block(block))
                if self.usage.complete:
                    break
            output = b"".join(pieces)
        if rest and not self.usage.complete:
            self._keep_rest(rest)
        return output

    @abstractmethod
    def _start(self, index: int, block: Block | None) -> bytes:
        """Render the start of a block."""

    @abstractmethod
    def _delta(self, index: int, delta: Delta | None) -> bytes:
        """Render a piece of a block."""

    @abstractmethod
    def _piece(self, index: int, kind: str, text: bytes) -> bytes:
        """Render a piece of a block's text, thinking or input, a JSON string; `kind` is the type of
        its delta."""

    @abstractmethod
    def _stop(self, index: int) -> bytes:
        """Render the end of a block, which may have had no start."""

    @abstractmethod
    def _ping(self) -> bytes:
        """Render a keep-alive of the upstream."""

    @abstractmethod
    def _render_error(self, data: bytes) -> bytes:
        """Render the end of an answer that an error event has ended."""

    def _with_line_feeds(self, data: bytes) -> bytes:
        """LF for every line end; CR LF and CR are valid, too (WHATWG HTML §9.2.6)."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _note_piece(self, block: bytes) -> None:
        """Note the head of an event that was the last one, and is a piece of text."""
        head = _PIECE_HEAD.match(block)
        if head is not None and head.lastindex is not None:
            self._piece_head = head[0]
            self._piece_index = int(head[1])
            self._piece_kind = head[head.lastindex].decode()

    def _keep_rest(self, rest: bytes) -> bytes:
        self._rest += rest
        if len(self._rest) > MAX_EVENT + 1:  # one line feed may belong to its end
            raise ValueError("an event that is too long")
        return b""

    def _block(self, block: bytes) -> bytes:
        """Handle the octets between two empty lines: an event, a comment or nothing."""
        if len(block) > MAX_EVENT:
            raise ValueError("an event that is too long")
        if block.startswith(_DELTA_HEAD) and block.find(b"\n", _DATA_AT) < 0:
            return self._event(b"", block[_DATA_AT:])
        output = b""
        for name, data in EventReader().feed(block + b"\n\n"):
            output = self._event(name, data)
        return output

    def _event(self, name: bytes, data: bytes) -> bytes:
        if name == b"error":
            return self._end_with_error(data)
        event = read(name, data)
        kind = event.type
        if kind == "content_block_delta":
            self.usage.passed += len(data) - DATA_OCTETS
            return self._delta(event.index, event.delta)
        match kind:
            case "content_block_start":
                return self._start(event.index, event.content_block)
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start":
                record_event(self.usage, data)
            case "message_delta":
                record_event(self.usage, data)
                if b'"usage"' in data:  # its output is stated, no longer estimated
                    self.usage.passed = 0
                if event.delta is not None and bytes(event.delta.stop_details)[:1] == b"{":
                    self._stop_details = event.delta.stop_details.copy()
            case "message_stop":
                self.usage.complete = True
            case "ping":
                return self._ping()
            case "error":
                return self._end_with_error(data)
            case _ if is_untyped_error(data):
                return self._end_with_error(data)
        return b""

    def _end_with_error(self, data: bytes) -> bytes:
        self.error = data
        self.usage.complete = self.usage.error = True
        return self._render_error(data)
