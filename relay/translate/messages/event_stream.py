"""The events of a Messages stream, taken out of octets that may be cut anywhere.

This decides where events end, which of them tell of usage, of the answer's end or of an error,
and hands on the three that carry content. What becomes of those is each dialect's own matter.
Nothing is kept but half an event at most, and the same events come out however the octets that
go in are cut.

One read of the upstream is usually one event of about 120 octets, so the way of such an event
is short: one decode that leaves its text as the octets that it is.
"""

from abc import ABC, abstractmethod
from typing import Final

from relay.translate.messages.content import Block
from relay.translate.messages.event import Delta, read
from relay.translate.messages.usage import Usage, record_event
from relay.translate.raw_json import NOTHING
from relay.wire.sse import MAX_EVENT, EventReader

_DELTA: Final = b"event: content_block_delta\ndata: "
_DATA_AT: Final = len(_DELTA)


class EventStream(ABC):
    """Octets of an upstream's event stream in, octets for the caller out.

    `usage` fills as events pass; `usage.complete` says that the answer has come to its end, and
    `usage.error` that this was an error, whose data is `error`. What comes after is ignored.
    """

    __slots__ = ("_after_cr", "_rest", "_stop_details", "error", "usage")

    def __init__(self) -> None:
        self.usage = Usage()
        self.error: bytes | None = None
        self._rest = bytearray()  # the octets of an event that is not whole yet
        self._after_cr = False
        self._stop_details = NOTHING  # what the upstream says of why it ended, as an object

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; b"" if there is nothing to show for them.

        Raises:
            ValueError: an event cannot be read, or is too long. The stream is spoilt.
        """
        if self.usage.complete:
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
                if self.usage.complete:
                    break
            shown = b"".join(pieces)
        if rest and not self.usage.complete:
            self._wait(rest)
        return shown

    @abstractmethod
    def _start(self, index: int, block: Block | None) -> bytes:
        """A block begins."""

    @abstractmethod
    def _delta(self, index: int, delta: Delta | None) -> bytes:
        """A block goes on."""

    @abstractmethod
    def _stop(self, index: int) -> bytes:
        """A block ends; perhaps one that has never begun."""

    @abstractmethod
    def _ping(self) -> bytes:
        """The upstream shows that it is alive."""

    @abstractmethod
    def _render_error(self, data: bytes) -> bytes:
        """The answer ends with an error."""

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
                record_event(self.usage, data)
            case "message_delta":
                record_event(self.usage, data)
                if event.delta is not None and bytes(event.delta.stop_details)[:1] == b"{":
                    self._stop_details = event.delta.stop_details.copy()
            case "message_stop":
                self.usage.complete = True
            case "ping":
                return self._ping()
            case "error":
                return self._fail(data)
        return b""

    def _fail(self, data: bytes) -> bytes:
        self.error = data
        self.usage.complete = self.usage.error = True
        return self._render_error(data)
