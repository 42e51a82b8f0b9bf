"""One HTTP/2 connection of a caller: streams in, exchanges out.

`wire.h2` has the protocol; each request runs as an exchange of `http2_stream`. Several run at a
time, and one that is slow does not hold up the others.

Decides when a request starts and when the connection closes. Must not know handlers' answers.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from relay.errors import RelayError
from relay.net.deadlines import NEVER
from relay.net.http2_stream import StreamExchange, StreamTransport
from relay.net.memory_budget import MemoryBudget
from relay.net.runner import CoroutineRunner
from relay.net.server import Server
from relay.net.socket_options import write_at_once
from relay.wire.forwarded import TrustedProxies
from relay.wire.h2.connection import Http2Engine
from relay.wire.h2.events import BODY, REFUSED, REQUEST, StreamEvent
from relay.wire.h2.frames import DEFAULT_WINDOW, NO_ERROR, PROTOCOL_ERROR
from relay.wire.h2.stream import Stream

_READ_WINDOW: Final = 256 * 1024  # octets of a body that its handler awaits
_MAX_UNSENT: Final = 128 * 1024  # octets to a peer that does not read, until it is not read either
_PUMPED_AT_ONCE: Final = 64 * 1024  # octets, a frame of each stream in turn
_PUMPS_PER_TURN: Final = 16
_REQUESTS_PER_TURN: Final = 16  # as of a pipeline of HTTP/1.1
_REST_SECONDS: Final = 0.25  # for a body that does not end by itself, once it is of no use
_LINGER_SECONDS: Final = 2.0  # for a peer to read the last octets and close
_DRAIN_SECONDS: Final = 1.0  # for requests on their way, if the peer answers no PING


class Http2Connection:
    """One accepted connection."""

    __slots__ = (
        "_blocked",
        "_corked",
        "_drain_until",
        "_events",
        "_head_until",
        "_is_lost",
        "_is_stranger",
        "_lingering",
        "_server",
        "_slow_until",
        "_unread",
        "channels",
        "deadline",
        "engine",
        "peer",
        "proxies",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server, peer: str, proxies: TrustedProxies | None = None) -> None:
        self.engine = Http2Engine(server.bounds.head)
        self.channels: dict[int, StreamTransport] = {}
        self.peer = peer
        self.proxies = proxies  # None: `peer` itself is the caller
        self.deadline = NEVER
        self._server = server
        self._blocked: dict[int, StreamTransport] = {}  # with octets that wait for the peer
        self._corked: list[bytes] | None = None  # octets of one turn, for a single write
        self._is_stranger = True  # no request came yet
        self._is_lost = False
        self._lingering = False
        self._events: list[StreamEvent] = []  # for the next turn
        self._unread = False  # a next turn is due
        self._head_until = NEVER
        self._slow_until = NEVER
        self._drain_until = NEVER

    # --- the loop's calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected; it may stay idle for `idle_time`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        write_at_once(self.transport)
        server = self._server
        self.deadline = server.deadlines.now + server.bounds.idle_time
        server.deadlines.watch(self)
        server.connection_made(self)
        self.transport.write(self.engine.take_output())
        if server.draining:  # accepted just before the listener closed
            self._end()
        elif server.retiring:
            self.retire()

    def data_received(self, data: bytes) -> None:
        """Take octets of frames."""
        if self._lingering or self.engine.failed:
            return
        events = self.engine.receive(data, self._server.deadlines.now)
        if self._events:  # of the turns before, which come first
            self._events += events
        else:
            self._events = events
            self._take_events()

    def _take_events(self) -> None:
        """Handle what has come, a limited number of requests a turn: others get theirs."""
        engine = self.engine
        events, self._events = self._events, []
        started = 0
        self._corked = []
        try:
            for event in events:
                if event.kind == REQUEST:
                    if started == _REQUESTS_PER_TURN:
                        self._events = events[events.index(event) :]
                        break
                    started += 1
                self._handle(event)
        finally:
            corked, self._corked = self._corked, None
        octets = engine.take_output()
        if corked:
            octets += b"".join(corked)
        if octets and not self.transport.is_closing():
            self.transport.write(octets)
        if engine.failed:
            self._linger()
            return
        if engine.table.waiting:
            self._pump()
        if (engine.more or self._events) and not self._unread:
            self._unread = True
            self.transport.pause_reading()
            self._server.loop.call_soon(self._read_on)
        elif engine.table.held and self.transport.get_write_buffer_size() > _MAX_UNSENT:
            self.transport.pause_reading()
        if engine.in_head != (self._head_until != NEVER):
            server = self._server
            limit = server.deadlines.now + server.bounds.head_time
            self._head_until = limit if engine.in_head else NEVER
            self._set_deadline()
        if engine.table.going and not self.channels and not self._events:
            self._end()

    def eof_received(self) -> bool:
        """The peer has closed: HTTP/2 has no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: cancel its requests."""
        self._is_lost = True
        server = self._server
        server.deadlines.forget(self)
        if not self.engine.failed:
            self.engine.end(NO_ERROR)
        self._leave()
        server.connection_gone(self)

    def pause_writing(self) -> None:
        """The peer reads too slowly; it has `write_time` to catch up."""
        self.engine.table.held = True
        self._slow_until = self._server.deadlines.now + self._server.bounds.write_time
        self._set_deadline()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.engine.table.held = False
        self._slow_until = NEVER
        if self._lingering:
            if self.transport.can_write_eof():  # over TLS more may be on its way
                self.deadline = self._server.deadlines.now + _LINGER_SECONDS
            return
        self._set_deadline()
        if not self._unread and not self.transport.is_closing():
            self.transport.resume_reading()
        self._pump()

    # --- the streams' calls -----------------------------------------------------------

    @property
    def budget(self) -> MemoryBudget:
        """The octets that may be held for requests."""
        return self._server.budget

    @property
    def upload_time(self) -> float:
        """The most that a body may take, in seconds."""
        return self._server.bounds.upload_time

    @property
    def swept(self) -> float:
        """The time against which deadlines are compared."""
        return self._server.deadlines.swept

    def latest_deadline(self) -> float:
        """How far ahead the deadline of a body may be."""
        return self._server.deadlines.now + 2 * self._server.bounds.body_time

    def write(self, octets: bytes) -> None:
        """Send frames; in answer to what is being received, with all others of this turn."""
        if self._corked is not None:
            self._corked.append(octets)
        elif not self._is_lost:
            self.transport.write(octets)

    def wait_for_room(self, channel: StreamTransport) -> None:
        """A stream has octets that the peer's windows, or the network, have no room for."""
        if channel.stream.id not in self._blocked:
            self._blocked[channel.stream.id] = channel
            channel.exchange.pause()
            server = self._server
            self.set_deadline(channel, server.deadlines.now + server.bounds.write_time)
            if not self.engine.table.held and channel.stream.window > 0 < self.engine.table.window:
                server.loop.call_soon(self._pump)  # it has had its share of this turn

    def credit(self, channel: StreamTransport) -> None:
        """The octets received for a stream are read: the peer may send as many."""
        window = _READ_WINDOW if channel.reading else DEFAULT_WINDOW
        self.engine.table.credit(channel.stream, window)
        self._flush()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """As the loop's."""
        self._server.loop.call_later(seconds, callback)

    def set_deadline(self, channel: StreamTransport, deadline: float) -> None:
        """Watch a stream until `deadline`; NEVER ends it."""
        channel.deadline = deadline
        if deadline == NEVER:
            self._server.deadlines.forget(channel)
        else:
            self._server.deadlines.watch(channel)

    def forget(self, channel: StreamTransport) -> None:
        """A stream waits for nothing any more."""
        self._blocked.pop(channel.stream.id, None)
        self.set_deadline(channel, NEVER)

    # --- the server's calls -----------------------------------------------------------

    def expire(self) -> None:
        """The deadline of idling, a head, a drain, or of a peer that does not read has passed."""
        swept = self._server.deadlines.swept
        if self._lingering or self.transport.is_closing() or self._slow_until <= swept:
            self.transport.abort()
        elif self._drain_until <= swept:
            self._drain_until = NEVER
            self.engine.finish_drain()
            self._flush()
            self._set_deadline()
            if not self.channels:
                self._end()
        elif self._head_until <= swept:  # whatever else goes on
            self.engine.end(PROTOCOL_ERROR)
            self._flush()
            self._linger()
        else:
            self._end()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, and has answered all that came."""
        is_busy = self.channels or self.engine.table.waiting
        transport = self.transport
        return not (is_busy or transport.get_write_buffer_size() or transport.is_closing())

    def shut(self) -> None:
        """Take no further requests but those on their way; close when all are answered."""
        if self._lingering or self.engine.failed:
            return
        if not self.channels:
            self.engine.finish_drain()
            self._end()
            return
        self.retire()

    def retire(self) -> None:
        """Take no further requests but those on their way: announce it, and then name the last."""
        ending = self._lingering or self.engine.failed or self.engine.table.going
        if ending or self._drain_until != NEVER:
            return
        self.engine.begin_drain()
        self._drain_until = self._server.deadlines.now + _DRAIN_SECONDS
        self._set_deadline()
        self._flush()

    # --- requests -----------------------------------------------------------------------

    def _handle(self, event: StreamEvent) -> None:
        stream = event.stream
        if event.kind == REQUEST:
            self._start(stream)
        elif event.kind == REFUSED:
            assert event.error is not None
            self._refuse(stream, event.error)
        else:
            channel = self.channels.get(stream.id)
            if channel is None:
                return
            if event.kind == BODY:
                channel.take_body(event.data)
            else:
                self.forget(channel)
                channel.exchange.leave()

    def _start(self, stream: Stream) -> None:
        if stream.closed:  # reset before its turn came
            self.engine.table.release(stream)
            return
        server = self._server
        if self._is_stranger:
            self._is_stranger = False
            server.strangers.pop(self, None)
        channel = StreamTransport(self, stream)
        channel.exchange = exchange = StreamExchange(channel, server.bounds.body)
        self.channels[stream.id] = channel
        self._set_deadline()
        body = exchange.request_body
        if stream.received:
            self.engine.table.credit(stream)
        elif body is not None:
            now = server.deadlines.now
            body.ends_at = now + server.bounds.upload_time
            self.set_deadline(channel, now + server.bounds.body_time)
        runner = CoroutineRunner(self._run(exchange, channel))
        exchange.runner = runner
        runner.step()

    async def _run(self, exchange: StreamExchange, channel: StreamTransport) -> None:
        try:
            await self._server.handler(exchange)
            if not exchange.ended:
                raise RuntimeError("the handler left its exchange unanswered")
        except (Exception, asyncio.CancelledError) as error:
            exchange.fail_by(error)
        finally:
            self._release(exchange, channel)

    def _release(self, exchange: StreamExchange, channel: StreamTransport) -> None:
        """A handler has ended; what it wrote may still wait for the peer."""
        if exchange.held is not None:
            exchange.held.resize(0)
        stream = channel.stream
        self.engine.table.release(stream)
        self.channels.pop(stream.id, None)
        if stream.closed:
            self.forget(channel)
            del channel.exchange  # a cycle, which would wait for the garbage collector
        elif not stream.queued:  # the rest of the request is dropped
            comes = 0 <= stream.left <= stream.receive_window  # without the peer's waiting
            seconds = self._server.bounds.body_time if comes else _REST_SECONDS
            self.set_deadline(channel, self._server.deadlines.now + seconds)
        if not self.channels and not self._is_lost:
            self._set_deadline()
            if self.engine.table.going and self._corked is None:
                self._end()

    def _refuse(self, stream: Stream, error: RelayError) -> None:
        """Answer a request whose head is over a limit."""
        channel = StreamTransport(self, stream)
        channel.exchange = exchange = StreamExchange(channel, 0)
        refused = self._server.refused(stream.request, exchange.id, self.peer, error)
        exchange.respond_with(*refused)
        self._release(exchange, channel)

    # --- octets and ends -----------------------------------------------------------------

    def _flush(self) -> None:
        if self._corked is None and not self._is_lost:
            octets = self.engine.take_output()
            if octets:
                self.transport.write(octets)

    def _pump(self) -> None:
        """Send what waits, as far as the peer's windows and the network have room."""
        engine = self.engine
        for _ in range(_PUMPS_PER_TURN):
            if engine.table.held or self._is_lost or not engine.table.waiting:
                break
            octets = engine.table.pump(_PUMPED_AT_ONCE)
            if not octets:
                break
            self.transport.write(octets)
        else:
            self._server.loop.call_soon(self._pump)
        for channel in tuple(self._blocked.values()):
            if not channel.stream.queued:
                self.forget(channel)
                body = channel.exchange.request_body
                if body is not None and not body.complete and not channel.stream.closed:
                    limit = self._server.deadlines.now + self._server.bounds.body_time
                    self.set_deadline(channel, min(limit, body.ends_at))
                channel.exchange.resume()
                if channel.stream.closed and channel.stream.released:
                    del channel.exchange
        if engine.table.going and not self.channels:
            self._end()

    def _read_on(self) -> None:
        """Read the requests that the last turn of the loop left over."""
        self._unread = False
        if self.transport.is_closing() or self._lingering:
            return
        if self._events:
            self._take_events()
        else:
            self.data_received(b"")
        if not self._unread and not self.transport.is_closing() and not self.engine.table.held:
            self.transport.resume_reading()

    def _set_deadline(self) -> None:
        server = self._server
        idle = NEVER if self.channels else server.deadlines.now + server.bounds.idle_time
        self.deadline = min(idle, self._head_until, self._slow_until, self._drain_until)

    def _end(self) -> None:
        """Close, unless octets of answers still wait for the peer."""
        if self.engine.table.waiting or self._lingering:
            return
        if not self.engine.failed:
            self.engine.end(NO_ERROR)
        self._flush()
        self._linger()
        if self._slow_until != NEVER or self.transport.get_write_buffer_size():
            self.deadline = self._server.deadlines.now + self._server.bounds.write_time

    def _linger(self) -> None:
        """Close in two steps: a peer that still sends, be it a WINDOW_UPDATE, could lose the last
        octets to a reset (RFC 9112 §9.6)."""
        self._leave()
        self.deadline = self._server.deadlines.now + _LINGER_SECONDS
        self._lingering = True
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self.transport.resume_reading()
        else:
            self.transport.close()

    def _leave(self) -> None:
        """Cancel every request."""
        self._events = []
        self._blocked.clear()
        for channel in tuple(self.channels.values()):
            self.set_deadline(channel, NEVER)
            channel.exchange.leave()
