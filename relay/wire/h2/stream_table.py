"""The streams of an HTTP/2 connection: opened, fed, reset, and the windows that they share.

Decides what a frame of a stream does in the stream's state (RFC 9113 §5.1), and how much may be on
its way (§5.2). Must not know the frames of the connection itself. Times are in seconds.
"""

from typing import Final

from relay.errors import RelayError
from relay.wire.events import CHUNKED, Limits, Request
from relay.wire.h2 import frames
from relay.wire.h2.blocks import unpadded
from relay.wire.h2.budget import (
    GRACEFUL,
    PREMATURE_RESET,
    PROVOKED_RESET,
    REFUSED_REQUEST,
)
from relay.wire.h2.events import BODY, REFUSED, REQUEST, RESET, StreamEvent
from relay.wire.h2.fields import Field
from relay.wire.h2.frames import (
    DEFAULT_WINDOW,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    LARGEST_WINDOW,
    PADDED,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
)
from relay.wire.h2.peer_settings import ProtocolError
from relay.wire.h2.request_head import (
    MalformedError,
    check_limits,
    check_trailers,
    read_refused,
    read_request,
)
from relay.wire.h2.stream import SendWindow, Stream

MAX_STREAMS: Final = 100
CONNECTION_WINDOW: Final = 1024 * 1024  # octets of all requests on their way
_TINY_DATA: Final = 64  # octets of a DATA frame that count as next to nothing
_TINY_INCREMENT: Final = 1024  # octets of a WINDOW_UPDATE that must be earned
_YOUNG_SECONDS: Final = 1.0
_REMEMBERED_RESETS: Final = 256


class StreamTable(SendWindow):
    """See the module.

    `streams`: those that are not over, or whose handler has not ended. `going`: no further stream
    is taken. `out`: octets to send. `now`: the time of what is being received.
    """

    __slots__ = (
        "_initial_window",
        "_last_fields",
        "_last_request",
        "_limits",
        "_receive_window",
        "_resets",
        "_skipped",
        "_uncredited",
        "events",
        "going",
        "last_stream",
        "now",
        "out",
        "streams",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.going = False
        self.streams: dict[int, Stream] = {}
        self.events: list[StreamEvent] = []
        self.out: list[bytes] = []
        self.last_stream = 0
        self.now = 0.0
        self._limits = limits
        self._initial_window = DEFAULT_WINDOW
        self._receive_window = CONNECTION_WINDOW
        self._uncredited = 0
        self._last_fields: list[Field] = []
        self._last_request: Request | None = None
        self._skipped = (0, 0)  # stream ids that were passed over, first and last
        self._resets: dict[int, None] = {}  # streams reset here, on which frames may still come

    # --- requests -------------------------------------------------------------------

    def check_head(self, number: int) -> None:
        """Check that a stream may have a header block. Raises ProtocolError."""
        if not number & 1:  # 0, or one that only a server opens
            raise ProtocolError(PROTOCOL_ERROR)
        known = self.streams.get(number)
        if known is None and number <= self.last_stream and number not in self._resets:
            first, last = self._skipped
            raise ProtocolError(PROTOCOL_ERROR if first <= number <= last else STREAM_CLOSED)
        if known is not None and known.reset and known.acknowledged:
            raise ProtocolError(STREAM_CLOSED)

    def read_fields(self, number: int, fields: list[Field], *, ended: bool) -> None:
        """Take the fields of a header block: the head of a request, or its trailers."""
        stream = self.streams.get(number)
        if stream is not None:
            self._read_trailers(stream, fields, ended=ended)
            return
        if number in self._resets:
            self.budget.control_frame(self.now)
            return
        if number > self.last_stream + 2:
            self._skipped = (self.last_stream + 2, number - 2)
        self.last_stream = number
        if self.going or len(self.streams) >= MAX_STREAMS:
            if self.budget.score >= GRACEFUL:  # it was warned
                self.budget.glitch(PROVOKED_RESET, self.now)
            elif self.going:
                self.budget.control_frame(self.now)
            else:
                self.budget.glitch(REFUSED_REQUEST, self.now)
            self._remember_reset(number)
            self.out.append(frames.rst_stream_frame(number, REFUSED_STREAM))
            return
        self._open(number, fields, ended=ended)

    def _open(self, number: int, fields: list[Field], *, ended: bool) -> None:
        kind, error = REQUEST, None
        try:
            request = self._read_request(fields, ended)
        except MalformedError:
            self._remember_reset(number)
            self.out.append(frames.rst_stream_frame(number, PROTOCOL_ERROR))
            self.budget.glitch(PROVOKED_RESET, self.now)
            return
        except RelayError as refusal:
            kind, error = REFUSED, refusal
            request = read_refused(fields, 0 if ended else CHUNKED)
        stream = Stream(self, number, request, self._initial_window, self.now)
        stream.received = ended
        self.budget.earned += 2
        self.streams[number] = stream
        self.events.append(StreamEvent(kind, stream, error=error))

    def _read_request(self, fields: list[Field], ended: bool) -> Request:
        """The request of these fields; the same fields, as `HeaderBlocks` keeps them, have the
        same request.

        Raises:
            MalformedError, RelayError: as in `read_request` and `check_limits`.
        """
        known = self._last_request
        if known is not None and fields is self._last_fields and ended == (known.length == 0):
            return known
        request = read_request(fields, ended)
        check_limits(fields, self._limits)
        if request.length != CHUNKED:  # its length is set once its body is complete
            self._last_fields = fields
            self._last_request = request
        return request

    def _read_trailers(self, stream: Stream, fields: list[Field], *, ended: bool) -> None:
        if stream.reset:  # here; the client did not know
            self.budget.control_frame(self.now)
        elif stream.received:
            self.reset(stream, STREAM_CLOSED)
        elif not ended or stream.left > 0:
            self.reset(stream, PROTOCOL_ERROR)
        else:
            try:
                check_trailers(fields)
            except MalformedError:
                self.reset(stream, PROTOCOL_ERROR)
            else:
                self._take_body(stream, b"", ended=True)

    def read_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ProtocolError(FLOW_CONTROL_ERROR)
        if not number:
            raise ProtocolError(PROTOCOL_ERROR)
        if flags & PADDED:
            payload = unpadded(payload)
        stream = self.streams.get(number)
        if stream is None or stream.reset:
            known_here = number in self._resets or (stream is not None and not stream.acknowledged)
            if not known_here:
                idle = number > self.last_stream or not number & 1
                raise ProtocolError(PROTOCOL_ERROR if idle else STREAM_CLOSED)
            self.budget.control_frame(self.now)
            self._give_back(size)
            return
        if stream.received:
            self._give_back(size)
            self.reset(stream, STREAM_CLOSED)
            return
        stream.receive_window -= size
        ended = bool(flags & END_STREAM)
        octets = len(payload)
        if stream.receive_window < 0:
            self._give_back(size)
            self.reset(stream, FLOW_CONTROL_ERROR)
            return
        if stream.left >= 0:
            stream.left -= octets
            if stream.left < 0 or (ended and stream.left):
                self._give_back(size)
                self.reset(stream, PROTOCOL_ERROR)
                return
        if octets < _TINY_DATA and not ended:
            self.budget.control_frame(self.now)
        stream.uncredited += size
        self._take_body(stream, payload, ended=ended)

    def _take_body(self, stream: Stream, payload: bytes, *, ended: bool) -> None:
        if ended:
            stream.received = True
        if stream.ended:  # it is answered already: what comes is dropped
            self._give_back(stream.uncredited)
            stream.uncredited = 0
            if ended and not stream.closed and not stream.queued and stream.id not in self.waiting:
                stream.close()
            return
        last = self.events[-1] if self.events else None
        if not stream.delivered:
            stream.early += payload  # it comes with its head, in most cases completely
        elif last is not None and last.kind == BODY and last.stream is stream:
            last.data += payload
        else:
            self.events.append(StreamEvent(BODY, stream, payload))

    # --- flow control ---------------------------------------------------------------

    def credit(self, stream: Stream, window: int = DEFAULT_WINDOW) -> None:
        """The octets received on `stream` are read: let as many follow, up to `window`."""
        read, stream.uncredited = stream.uncredited, 0
        self._give_back(read)
        room = window - stream.receive_window
        if not stream.received and not stream.closed and room >= window // 2:
            stream.receive_window += room
            self.out.append(frames.window_update_frame(stream.id, room))

    def _give_back(self, size: int) -> None:
        self._uncredited += size
        if self._uncredited >= CONNECTION_WINDOW // 4:
            self._receive_window += self._uncredited
            self.out.append(frames.window_update_frame(0, self._uncredited))
            self._uncredited = 0

    def read_window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(FRAME_SIZE_ERROR)
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not number:
            if not increment:
                raise ProtocolError(PROTOCOL_ERROR)
            grown = self.window + increment > DEFAULT_WINDOW
            self.window += increment
            if self.window > LARGEST_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR)
        else:
            stream = self.streams.get(number)
            if stream is None or stream.closed:
                if number > self.last_stream or not number & 1:
                    raise ProtocolError(PROTOCOL_ERROR)
                self.budget.control_frame(self.now)
                return
            if not increment:
                self.reset(stream, PROTOCOL_ERROR)
                return
            grown = stream.window + increment > self._initial_window
            stream.window += increment
            if stream.window > LARGEST_WINDOW:
                self.reset(stream, FLOW_CONTROL_ERROR)
                return
        if increment < _TINY_INCREMENT or grown:
            self.budget.control_frame(self.now)

    def set_initial_window(self, window: int) -> None:
        """The peer has set the window of its streams. Raises ProtocolError: one is too large."""
        change = window - self._initial_window
        self._initial_window = window
        for stream in self.streams.values():
            stream.window += change
            if stream.window > LARGEST_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR)

    def pump(self, octets: int) -> bytes:
        """About so many octets of the streams that wait, a frame of each in turn."""
        out: list[bytes] = []
        waiting = self.waiting
        sent = -1
        while sent and octets > 0:
            sent = 0
            for stream in tuple(waiting.values()):
                frame = stream.next_frame()
                if not frame:
                    continue
                out.append(frame)
                sent += len(frame)
                octets -= len(frame)
                if stream.id in waiting:  # behind the others
                    waiting[stream.id] = waiting.pop(stream.id)
                if octets <= 0:
                    break
        return b"".join(out)

    # --- ends -----------------------------------------------------------------------

    def read_reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(FRAME_SIZE_ERROR)
        if not number or number > self.last_stream or not number & 1:
            raise ProtocolError(PROTOCOL_ERROR)
        stream = self.streams.get(number)
        if stream is None or stream.closed:
            self.budget.control_frame(self.now)
            if stream is not None:
                stream.acknowledged = True
            self._resets.pop(number, None)
            return
        stream.acknowledged = stream.reset = True
        stream.close()
        if not stream.answered and self.now - stream.opened <= _YOUNG_SECONDS:
            self.budget.glitch(PREMATURE_RESET, self.now)
        self._drop(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream for a fault of the client."""
        self.budget.glitch(PROVOKED_RESET, self.now)
        if not stream.closed:
            self.out.append(stream.abort(code))
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """A stream is over; its request is forgotten if nobody has seen it."""
        self._give_back(stream.uncredited)
        stream.uncredited = 0
        for index, event in enumerate(self.events):
            if event.stream is stream and event.kind in (REQUEST, REFUSED):
                del self.events[index]
                self.release(stream)
                break
        else:
            self.events.append(StreamEvent(RESET, stream))

    def stream_closed(self, stream: Stream) -> None:
        """Called by a stream on which nothing more is sent."""
        super().stream_closed(stream)
        if stream.reset and not stream.acknowledged:
            self._remember_reset(stream.id)
        if stream.released:
            self.streams.pop(stream.id, None)

    def release(self, stream: Stream) -> None:
        """The handler of a stream has ended: only now may another stream take its place."""
        stream.released = True
        if stream.closed:
            self.streams.pop(stream.id, None)

    def close(self) -> None:
        """The connection is over, and every stream with it."""
        self.going = True
        self.events.clear()
        for stream in tuple(self.streams.values()):
            stream.acknowledged = stream.reset = True
            stream.close()

    def _remember_reset(self, number: int) -> None:
        if len(self._resets) >= _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]
        self._resets[number] = None

    def read_priority(self, number: int, code: int) -> None:
        """Answer a PRIORITY frame that has the fault `code`. Raises ProtocolError."""
        stream = self.streams.get(number)
        if stream is not None and not stream.closed:
            self.reset(stream, code)
        elif number > self.last_stream:  # an idle stream cannot be reset
            raise ProtocolError(code)
        else:
            self.budget.glitch(PROVOKED_RESET, self.now)
            self.out.append(frames.rst_stream_frame(number, code))
