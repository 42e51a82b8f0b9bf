"""One stream of an HTTP/2 connection: its state, and the octets that it sends.

Decides how payload becomes DATA frames within the flow-control windows. What does not fit waits
here; the connection shares its window out among those that wait. Must not know payload.
"""

from typing import Final

from relay.wire.events import Request
from relay.wire.h2.budget import GlitchBudget
from relay.wire.h2.frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_HEAD,
    U32,
    headers_frames,
    rst_stream_frame,
)

_EARNED_PER_FRAME: Final = 2  # WINDOW_UPDATE frames that a DATA frame may cause
_MAX_AT_ONCE: Final = 64 * 1024  # octets of one stream before its siblings get their turn


class SendWindow:
    """What the streams of a connection share to send by.

    `window`: octets that the peer takes on all streams. `held`: the network takes nothing.
    `waiting`: the streams with octets that have no room.
    """

    __slots__ = ("budget", "held", "waiting", "window")

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        self.held = False
        self.budget = GlitchBudget()
        self.waiting: dict[int, Stream] = {}

    def stream_closed(self, stream: "Stream") -> None:
        """Called by a stream on which nothing more is sent."""
        self.waiting.pop(stream.id, None)


class Stream:
    """See the module.

    `received`: the request's end has come. `ended`: the answer's end was sent, or waits in the
    queue. `closed`: nothing more is sent. `left`: octets of the body that have yet to come, CHUNKED
    if unknown. `early`: octets of the body that came with the head. `queued`: octets that wait.
    """

    __slots__ = (
        "_code",
        "_connection",
        "_last_tail",
        "_queue",
        "_tail",
        "acknowledged",
        "answered",
        "closed",
        "delivered",
        "early",
        "ended",
        "id",
        "left",
        "opened",
        "queued",
        "receive_window",
        "received",
        "released",
        "request",
        "reset",
        "uncredited",
        "window",
    )

    def __init__(
        self, connection: SendWindow, number: int, request: Request, window: int, now: float
    ) -> None:
        self.id = number
        self.request = request
        self.window = window
        self.opened = now
        self.left = request.length
        self.early = b""
        self.receive_window = DEFAULT_WINDOW
        self.uncredited = 0  # octets received, and not given back to the window
        self.received = False
        self.delivered = False  # its owner has been given the request
        self.answered = False  # the answer's head is sent
        self.ended = False
        self.closed = False
        self.reset = False  # by either side
        self.acknowledged = False  # the reset came from the client, or is known to it
        self.released = False  # its handler has ended
        self.queued = 0
        self._queue: list[memoryview] = []
        self._code = -1  # of the reset that follows the queue
        self._connection = connection
        self._tail = b"\0" + U32.pack(number)
        self._last_tail = bytes((END_STREAM,)) + self._tail[1:]

    def send_head(self, block: bytes, *, end: bool) -> bytes:
        """The octets of a response's head; `end`: it has no body."""
        if self.closed:
            return b""
        self.answered = True
        octets = headers_frames(self.id, block, end=end, limit=DEFAULT_FRAME_SIZE)
        if end:
            self.ended = True
            octets += self._finish()
        return octets

    def send(self, data: bytes) -> bytes:
        """The frames of `data` that can be sent now; the others wait."""
        connection = self._connection
        size = len(data)
        if (
            0 < size <= self.window
            and size <= connection.window
            and size <= DEFAULT_FRAME_SIZE
            and not self.queued
            and not connection.held
            and not self.closed
        ):
            self.window -= size
            connection.window -= size
            connection.budget.earned += _EARNED_PER_FRAME
            return U32.pack(size << 8) + self._tail + data
        if not size or self.closed or self.ended:
            return b""
        self._queue.append(memoryview(data))
        self.queued += size
        return self._send_first()

    def end(self, data: bytes) -> bytes:
        """The frames of the last octets of an answer, as far as they can be sent now."""
        if self.closed or self.ended:
            return b""
        connection = self._connection
        size = len(data)
        self.ended = True
        if (
            size <= self.window
            and size <= connection.window
            and size <= DEFAULT_FRAME_SIZE
            and not self.queued
            and not connection.held
        ):
            self.window -= size
            connection.window -= size
            connection.budget.earned += _EARNED_PER_FRAME
            return U32.pack(size << 8) + self._last_tail + data + self._finish()
        if size:
            self._queue.append(memoryview(data))
            self.queued += size
        return self._send_first()

    def cut(self, code: int) -> bytes:
        """Cut the answer with a reset that follows the octets in the queue."""
        if self.closed or self.ended:
            return b""
        self.ended = True
        if self.queued:
            self._code = code
            return b""
        return self.abort(code)

    def abort(self, code: int) -> bytes:
        """Reset the stream now, without the octets in the queue."""
        if self.closed:
            return b""
        self.reset = True
        self.close()
        return rst_stream_frame(self.id, code)

    def close(self) -> None:
        """Nothing more is sent on this stream."""
        self.closed = self.ended = True
        self._queue.clear()
        self.queued = 0
        self._connection.stream_closed(self)

    def next_frame(self) -> bytes:
        """The next frame of a stream that waits; empty if the windows have no room."""
        connection = self._connection
        if not self._queue:
            connection.waiting.pop(self.id, None)
            return U32.pack(0) + self._last_tail + self._finish()  # an end without octets
        first = self._queue[0]
        size = min(len(first), self.window, connection.window, DEFAULT_FRAME_SIZE)
        if size <= 0:
            return b""
        if size == len(first):
            del self._queue[0]
            piece = first
        else:
            piece = first[:size]
            self._queue[0] = first[size:]
        self.window -= size
        connection.window -= size
        self.queued -= size
        connection.budget.earned += _EARNED_PER_FRAME
        last = self.ended and not self.queued and self._code < 0
        frame = FRAME_HEAD.pack(size << 8 | DATA, END_STREAM if last else 0, self.id) + piece
        if self.queued:
            return frame
        connection.waiting.pop(self.id, None)
        if self._code >= 0:
            return frame + self.abort(self._code)
        return frame + self._finish() if last else frame

    def _send_first(self) -> bytes:
        """Send what fits of the queue, as far as the stream's share goes."""
        connection = self._connection
        connection.waiting[self.id] = self
        if connection.held:
            return b""
        frames = []
        total = 0
        # Once all is sent it waits no more; a further frame would be the end of the answer.
        while total < _MAX_AT_ONCE and self.id in connection.waiting:
            frame = self.next_frame()
            if not frame:
                break
            frames.append(frame)
            total += len(frame)
        return b"".join(frames)

    def _finish(self) -> bytes:
        """The answer is complete. A request that is not is no longer needed (RFC 9113 §8.1)."""
        # A reset at once makes curl drop the answer: the rest of the request gets a moment.
        if self.received:
            self.close()
        return b""
