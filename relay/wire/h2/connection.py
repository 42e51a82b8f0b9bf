"""One HTTP/2 connection of a client (RFC 9113): octets in, events and octets out.

`receive` takes the octets of the network and returns events; `take_output` gives the octets that
answer them. Streams make the octets of their own answers (`stream.Stream`), for which
`StreamTable.pump` shares out the connection's window.

Decides the rules of frames and of the connection, and when it has used up its budget for odd
frames. Must not know sockets or what a request asks for. Times are in seconds.
"""

from typing import Final

from relay.wire.events import Limits
from relay.wire.h2 import frames
from relay.wire.h2.blocks import HeaderBlocks
from relay.wire.h2.budget import GRACEFUL, LIMIT
from relay.wire.h2.events import StreamEvent
from relay.wire.h2.fields import FIELD_OCTETS
from relay.wire.h2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FRAME_HEAD,
    FRAME_HEAD_OCTETS,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    LARGEST_STREAM,
    NO_ERROR,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from relay.wire.h2.hpack import TABLE_OCTETS, CompressionError, HeaderBombError
from relay.wire.h2.peer_settings import ProtocolError, read_settings
from relay.wire.h2.response_head import NO_TABLE
from relay.wire.h2.stream_table import CONNECTION_WINDOW, MAX_STREAMS, StreamTable

_HEAD_OCTETS_AT_ONCE: Final = 32 * 1024  # of header blocks in one `receive`: they are work
_DRAIN_PING: Final = b"\0relay\0\0"


def _opening(limits: Limits) -> bytes:
    """The server's preface: its settings, and the window of the connection."""
    settings = [
        (frames.MAX_CONCURRENT_STREAMS, MAX_STREAMS),
        (frames.MAX_HEADER_LIST_SIZE, limits.head + FIELD_OCTETS * limits.fields),
    ]
    update = frames.window_update_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
    return frames.settings_frame(settings) + update


class Http2Engine:
    """See the module.

    `table`: its streams. `failed`: the connection is over. `more`: `receive` left octets unread.
    """

    __slots__ = (
        "_blocks",
        "_buffer",
        "_draining",
        "_fresh",
        "_has_settings",
        "_prefix",
        "_unacknowledged",
        "failed",
        "more",
        "table",
    )

    def __init__(self, limits: Limits) -> None:
        self.more = False
        self.failed = False
        self.table = StreamTable(limits)
        self.table.out.append(_opening(limits))
        self._blocks = HeaderBlocks(limits)
        self._prefix = b""  # of the next header block
        self._buffer = b""  # octets of an incomplete frame
        self._fresh = True  # the preface has not come
        self._has_settings = False
        self._unacknowledged = 1  # SETTINGS of ours
        self._draining = False  # GOAWAY was announced

    # --- octets ---------------------------------------------------------------------

    @property
    def in_head(self) -> bool:
        """Whether a part of a head, or of the preface, has come."""
        buffer = self._buffer
        if self._blocks.open or (self._fresh and buffer):
            return True
        return len(buffer) > 3 and buffer[3] in (HEADERS, CONTINUATION)

    def part_of(self, stream: int) -> int:
        """The octets of this stream's body in an incomplete frame."""
        buffer = self._buffer
        if len(buffer) <= FRAME_HEAD_OCTETS or buffer[3] != DATA:
            return 0
        of_stream = FRAME_HEAD.unpack_from(buffer)[2] == stream
        return len(buffer) - FRAME_HEAD_OCTETS if of_stream else 0

    def take_output(self) -> bytes:
        """The octets to send, in front of those that streams make from now on."""
        out = self.table.out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    def receive(self, data: bytes, now: float) -> list[StreamEvent]:
        """Take the next octets; return what happened. `more` says whether to call again."""
        self.table.now = now
        self.more = False
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        try:
            at = self._read_preface(data) if self._fresh else 0
            if not self._fresh:
                at = self._read_frames(data, at)
            self._buffer = data[at:]
        except ProtocolError as error:
            self._fail(error.code)
        except CompressionError:
            self._fail(frames.COMPRESSION_ERROR)
        except HeaderBombError:
            self._fail(ENHANCE_YOUR_CALM)
        events, self.table.events = self.table.events, []
        for event in events:
            event.stream.delivered = True
        return events

    def _read_preface(self, data: bytes) -> int:
        if not data.startswith(PREFACE):
            if not PREFACE.startswith(data):
                raise ProtocolError(PROTOCOL_ERROR)
            return 0
        self._fresh = False
        return len(PREFACE)

    def _read_frames(self, data: bytes, at: int) -> int:
        """Read complete frames; returns where the rest begins."""
        size = len(data)
        head_octets = 0
        unpack = FRAME_HEAD.unpack_from
        while size - at >= FRAME_HEAD_OCTETS:
            first, flags, stream = unpack(data, at)
            length = first >> 8
            if length > DEFAULT_FRAME_SIZE:
                raise ProtocolError(FRAME_SIZE_ERROR)
            end = at + FRAME_HEAD_OCTETS + length
            if end > size:
                break
            if first & 0xFF == HEADERS:
                if head_octets >= _HEAD_OCTETS_AT_ONCE:
                    self.more = True
                    break
                head_octets += length
            payload = data[at + FRAME_HEAD_OCTETS : end]
            at = end
            self._read_frame(first & 0xFF, flags, stream & LARGEST_STREAM, payload)
            if self.table.budget.score >= GRACEFUL:
                self._judge()
        return at

    def _read_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._blocks.open and (kind != CONTINUATION or stream != self._blocks.open):
            raise ProtocolError(PROTOCOL_ERROR)
        if not self._has_settings:
            if kind != SETTINGS or flags & frames.ACK:
                raise ProtocolError(PROTOCOL_ERROR)
            self._has_settings = True
        if kind == DATA:
            self.table.read_data(flags, stream, payload)
        elif kind == HEADERS:
            self._read_headers(flags, stream, payload)
        elif kind == WINDOW_UPDATE:
            self.table.read_window_update(stream, payload)
        elif kind == RST_STREAM:
            self.table.read_reset(stream, payload)
        elif kind == SETTINGS:
            self._read_settings(flags, stream, payload)
        elif kind == PING:
            self._read_ping(flags, stream, payload)
        elif kind == CONTINUATION:
            self._read_continuation(flags, stream, payload)
        elif kind == PRIORITY:
            self._read_priority(stream, payload)
        elif kind == GOAWAY:
            if stream:
                raise ProtocolError(PROTOCOL_ERROR)
            if len(payload) < 8:
                raise ProtocolError(FRAME_SIZE_ERROR)
            self.table.budget.control_frame(self.table.now)
        elif kind == PUSH_PROMISE:
            raise ProtocolError(PROTOCOL_ERROR)
        else:  # RFC 9113 §5.5: ignored
            self.table.budget.control_frame(self.table.now)

    def _read_headers(self, flags: int, stream: int, payload: bytes) -> None:
        table, blocks = self.table, self._blocks
        table.check_head(stream)
        fields = blocks.begin(flags, stream, payload)
        if fields is not None:
            table.read_fields(stream, fields, ended=blocks.ended)
            self._check_dependency(stream)

    def _read_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        fields = self._blocks.proceed(flags, payload)
        if fields is not None:
            self.table.read_fields(stream, fields, ended=self._blocks.ended)
            self._check_dependency(stream)

    def _check_dependency(self, stream: int) -> None:
        if self._blocks.self_dependent and (opened := self.table.streams.get(stream)) is not None:
            self.table.reset(opened, PROTOCOL_ERROR)

    # --- the frames of the connection ------------------------------------------------

    def _read_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ProtocolError(PROTOCOL_ERROR)
        if flags & frames.ACK:
            if payload:
                raise ProtocolError(FRAME_SIZE_ERROR)
            if self._unacknowledged:
                self._unacknowledged -= 1
            else:
                self.table.budget.control_frame(self.table.now)
            return
        for identifier, value in read_settings(payload):
            if identifier == frames.INITIAL_WINDOW_SIZE:
                self.table.set_initial_window(value)
            elif identifier == frames.HEADER_TABLE_SIZE and value < TABLE_OCTETS:
                self._prefix = NO_TABLE
        self.table.budget.control_frame(self.table.now)
        self.table.out.append(frames.SETTINGS_ACK)

    def _read_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ProtocolError(PROTOCOL_ERROR)
        if len(payload) != 8:
            raise ProtocolError(FRAME_SIZE_ERROR)
        if flags & frames.ACK and payload == _DRAIN_PING and self._draining:
            self._draining = False
            self.finish_drain()
            return
        self.table.budget.control_frame(self.table.now)
        if not flags & frames.ACK:
            self.table.out.append(frames.frame(PING, frames.ACK, 0, payload))

    def _read_priority(self, number: int, payload: bytes) -> None:
        if not number:
            raise ProtocolError(PROTOCOL_ERROR)
        self.table.budget.control_frame(self.table.now)
        if len(payload) != 5:
            self.table.read_priority(number, FRAME_SIZE_ERROR)
        elif int.from_bytes(payload[:4], "big") & LARGEST_STREAM == number:
            self.table.read_priority(number, PROTOCOL_ERROR)

    # --- ends -----------------------------------------------------------------------

    def head_prefix(self) -> bytes:
        """The octets in front of the next response's header block."""
        prefix, self._prefix = self._prefix, b""
        return prefix

    def begin_drain(self) -> None:
        """Announce the end (RFC 9113 §6.8): requests on their way still come in."""
        self._draining = True
        self.table.out.append(frames.goaway_frame(LARGEST_STREAM, NO_ERROR))
        self.table.out.append(frames.frame(PING, 0, 0, _DRAIN_PING))

    def finish_drain(self) -> None:
        """Take no further requests."""
        if not self.table.going:
            self.table.going = True
            self.table.out.append(frames.goaway_frame(self.table.last_stream, NO_ERROR))

    def end(self, code: int) -> None:
        """End the connection and every stream on it."""
        self.failed = True
        if code != NO_ERROR or not self.table.going:  # or it has been sent
            self.table.out.append(frames.goaway_frame(self.table.last_stream, code))
        self.table.close()

    def _judge(self) -> None:
        """The budget is nearly, or completely, used up."""
        if self.table.budget.score >= LIMIT:
            raise ProtocolError(ENHANCE_YOUR_CALM)
        if not self.table.going:
            self.table.going = True
            self.table.out.append(frames.goaway_frame(self.table.last_stream, ENHANCE_YOUR_CALM))

    def _fail(self, code: int) -> None:
        self.end(code)
        self._buffer = b""
        self._blocks.clear()
