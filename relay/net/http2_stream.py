"""One request on an HTTP/2 connection: its exchange, its body, and its part of the connection.

A handler sees the same `Exchange` as over HTTP/1.1. Payload becomes DATA frames of one stream; each
write goes out immediately while the peer's windows have room.

Decides the framing of an answer in HTTP/2, and how long a stream may be slow. Must not know models,
keys or the dialect of an error.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from relay.net.deadlines import NEVER
from relay.net.exchange import Exchange, date
from relay.net.memory_budget import MemoryBudget
from relay.net.request_body import BODY_OCTETS_PER_SECOND, RequestBody
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Response
from relay.wire.h2.frames import CANCEL, INTERNAL_ERROR, NO_ERROR
from relay.wire.h2.response_head import fields_block, length_field, status_field
from relay.wire.h2.stream import Stream

if TYPE_CHECKING:
    from relay.net.http2 import Http2Connection

_CONTINUE: Final = status_field(100)
_RESET_DELAY_SECONDS: Final = 0.1


class StreamBody(RequestBody):
    """A request body in DATA frames, which the end of the stream ends."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Take the next octets of payload."""
        if self._failure is None:
            self._collect(data)
        return b""

    def end(self) -> None:
        """The last octet has come."""
        self.complete = True
        self._wake()


class StreamTransport:
    """The transport of one stream's exchange; the writes of all streams meet in the connection.

    `reading`: the handler awaits the body, so the peer may send more of it.
    """

    __slots__ = (
        "_connection",
        "_part",
        "_write",
        "deadline",
        "exchange",
        "peer",
        "proxies",
        "reading",
        "stream",
    )

    __deletable__ = ("exchange",)

    exchange: "StreamExchange"

    def __init__(self, connection: "Http2Connection", stream: Stream) -> None:
        self._connection = connection
        self._write: Callable[[bytes], None] = connection.write
        self._part = 0  # octets of an incomplete frame that the deadline has been moved for
        self.stream = stream
        self.peer = connection.peer
        self.proxies = connection.proxies
        self.deadline = NEVER
        self.reading = False

    # --- as the connection of an exchange ---------------------------------------------

    @property
    def transport(self) -> asyncio.Transport:
        """Itself."""
        return cast(asyncio.Transport, self)

    @property
    def budget(self) -> MemoryBudget:
        """The octets that may be held for requests."""
        return self._connection.budget

    def closes_after_answer(self) -> bool:
        """Never: a connection outlives its streams."""
        return False

    # --- as a transport -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send payload."""
        stream = self.stream
        octets = stream.send(data)
        if octets:
            self._write(octets)
        if stream.queued:
            self._connection.wait_for_room(self)

    def send(self, octets: bytes) -> None:
        """Send frames that the stream has made."""
        if octets:
            self._write(octets)
        if self.stream.queued:
            self._connection.wait_for_room(self)

    def head_prefix(self) -> bytes:
        """The octets in front of the next header block."""
        return self._connection.engine.head_prefix()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.stream.closed

    def get_write_buffer_size(self) -> int:
        """The octets that wait for the peer."""
        return self.stream.queued

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the connection's own transport."""
        return self._connection.transport.get_extra_info(name, default)

    def close(self) -> None:
        """Cut the answer behind the octets written.

        Clients such as curl and Node drop what they have not read when a reset comes: the error
        event that may be the last of a stream gets a moment.
        """
        stream = self.stream
        if stream.answered and not stream.queued and not stream.ended:
            stream.ended = True
            self._connection.call_later(_RESET_DELAY_SECONDS, self._reset)
        else:
            self.send(stream.cut(INTERNAL_ERROR))

    def _reset(self) -> None:
        octets = self.stream.abort(INTERNAL_ERROR)
        if octets:
            self._write(octets)

    def abort(self) -> None:
        """Cut the answer at once."""
        self.send(self.stream.abort(INTERNAL_ERROR))

    # --- the request's body ---------------------------------------------------------------

    def read_body(self) -> None:
        """The handler awaits the body: let the peer send it."""
        self.reading = True
        self._connection.credit(self)

    def take_body(self, data: bytes) -> None:
        """Take the next octets of the body."""
        body = self.exchange.request_body
        if body is None or body.complete or not isinstance(body, StreamBody):
            self._connection.credit(self)
            return
        body.feed(data)
        self._part = 0
        if self.stream.received:
            body.end()
            if not self.stream.queued:
                self._connection.set_deadline(self, NEVER)
        else:
            self.extend(len(data))
        if self.reading:
            self._connection.credit(self)

    def extend(self, octets: int) -> None:
        """Each KiB received extends the body's deadline by a second."""
        body = self.exchange.request_body
        assert body is not None
        if self.deadline != NEVER:
            earned = self.deadline + octets / BODY_OCTETS_PER_SECOND
            self.deadline = min(earned, self._connection.latest_deadline(), body.ends_at)

    def expire(self) -> None:
        """The deadline of a body, or of octets that wait for the peer, has passed."""
        exchange, stream, connection = self.exchange, self.stream, self._connection
        body = exchange.request_body
        part = connection.engine.part_of(stream.id)
        if body is not None and not body.complete and part > self._part and not stream.queued:
            before, self._part = self._part, part
            self.extend(part - before)
            if self.deadline > connection.swept:
                return
        connection.forget(self)
        if stream.queued:
            self.send(stream.abort(CANCEL))
            exchange.leave()
        elif stream.ended:  # answered; the rest of the request has not come
            self.send(stream.abort(NO_ERROR))
        elif body is not None and not body.complete:
            body.too_slow(connection.upload_time)


class StreamExchange(Exchange):
    """See the module."""

    __slots__ = ("_channel", "_stream")

    def __init__(self, channel: StreamTransport, body_limit: int) -> None:
        stream = channel.stream
        request = stream.request
        early, stream.early = stream.early, b""
        if stream.received and request.length == CHUNKED:
            request.length = len(early)
        super().__init__(channel, request, body_limit, early if stream.received else b"")
        self._channel = channel
        self._stream = stream
        if self.request_body is not None:
            self.request_body = body = StreamBody(request.length, body_limit)
            body.feed(early)
            if stream.received:
                body.end()

    def leave(self) -> None:
        """The peer has reset the stream, or is gone: cancel the handler."""
        self.closing = True
        if not self.ended and self.runner is not None:
            self.runner.cancel()

    def _ask_for_body(self, owner: str) -> None:
        pending = self.request_body
        if pending is None or pending.complete:
            return
        if self.request.expects_continue and not pending.size and not self.started:
            self._channel.send(self._stream.send_head(_CONTINUE, end=False))
        self._channel.read_body()

    def respond_with(self, status: int, fields: bytes, body: bytes) -> None:
        """As in `Exchange`."""
        block = self._block(status, fields, len(body))
        self.ended = True
        stream = self._stream
        if not body or self.request.method == b"HEAD":
            self._channel.send(stream.send_head(block, end=True))
        else:
            self._channel.send(stream.send_head(block, end=False) + stream.end(body))

    def respond_head(self, status: int, fields: bytes, length: int) -> None:
        """As in `Exchange`."""
        block = self._block(status, fields, length)
        self.ended = True
        self._channel.send(self._stream.send_head(block, end=True))

    def respond_as_received(self, response: Response, fields: bytes, octets: bytes) -> None:
        """As in `Exchange`."""
        self.respond_with(response.status, fields, octets)

    def begin_stream(self, status: int, fields: bytes, payload: bytes) -> None:
        """As in `Exchange`."""
        self.begin_raw(status, fields, UNTIL_CLOSE, payload)

    def begin_raw(self, status: int, fields: bytes, length: int, octets: bytes = b"") -> None:
        """As in `Exchange`."""
        stream = self._stream
        head = stream.send_head(self._block(status, fields, length), end=False)
        self._channel.send(head + stream.send(octets) if octets else head)

    def write(self, data: bytes) -> None:
        """As in `Exchange`."""
        if data:
            self._channel.write(data)

    def payload_writer(self) -> Callable[[bytes], None]:
        """As in `Exchange`."""
        return self._channel.write

    def write_raw(self, data: bytes) -> None:
        """As in `Exchange`."""
        self._channel.write(data)

    def end(self, payload: bytes = b"") -> None:
        """As in `Exchange`."""
        if not self.ended:
            self.ended = True
            self._channel.send(self._stream.end(payload))

    def end_raw(self, octets: bytes) -> None:
        """As in `Exchange`."""
        self.end(octets)

    def cut(self) -> None:
        """As in `Exchange`."""
        self.close()

    def passes_framing(self, response: Response) -> bool:
        """As in `Exchange`: there are no chunks in HTTP/2 (RFC 9113 §8.1)."""
        return response.length != CHUNKED

    def still_read(self) -> bool:
        """As in `Exchange`: a peer that reads no more resets its stream."""
        return True

    def _block(self, status: int, fields: bytes, length: int) -> bytes:
        self.started = True
        self.status = status
        if b"\r\ndate:" not in fields and fields[:5] != b"date:":
            fields += date.line
        block = self._channel.head_prefix() + status_field(status) + fields_block(fields)
        return block + length_field(length) if length >= 0 and status != 204 else block
