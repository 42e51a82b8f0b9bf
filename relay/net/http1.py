"""The HTTP/1.1 server: listeners, connections, limits, and the end of it all.

A connection reads heads, gives each request to the handler, and takes the next one when that
has come to its end (so pipelined requests are answered in order).
What a peer may cost is bounded here: time by deadlines, memory by limits and by pausing.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec

from relay.errors import INTERNAL, REQUEST_TIMEOUT, Dialect, RelayError
from relay.net.deadlines import NEVER, Deadlines
from relay.net.exchange import Exchange, date, new_id, status_line
from relay.net.runner import CoroutineRunner
from relay.net.socket_options import write_at_once
from relay.wire.events import Limits, Request
from relay.wire.h1 import HeadReader, request_reader

Handler = Callable[[Exchange], Awaitable[None]]

BODY_RATE: Final = 1024  # octets a second that a body must come at, after its grace
_BACKLOG: Final = 64 * 1024  # octets read ahead of a request that is being answered
_AT_ONCE: Final = 16  # pipelined requests that are answered in one turn of the loop
_LINGER: Final = 2.0  # seconds in which a refused peer may finish sending, to see why
_PROBE_FIRST: Final = 0.04  # a caller that left is noticed within 100 ms
_PROBE_LONGEST: Final = 10.0

_log = logging.getLogger("relay.net")


class Bounds(msgspec.Struct, frozen=True):
    """What a peer may cost: octets, and seconds."""

    head: Limits = Limits()
    body: int = 32 * 1024 * 1024
    head_time: float = 10.0
    body_time: float = 10.0
    idle_time: float = 75.0
    write_time: float = 120.0


class ServerConnection(asyncio.Protocol):
    """One accepted connection."""

    __slots__ = (
        "_backlog",
        "_choked",
        "_half_closed",
        "_lingering",
        "_reader",
        "_server",
        "deadline",
        "exchange",
        "peer",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._reader: HeadReader[Request] = request_reader(server.bounds.head)
        self._backlog = b""
        self._choked = False  # the peer does not read: no further request is taken
        self._half_closed = False
        self._lingering = False
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The peer is here; it may stay idle for a while."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        write_at_once(self.transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else "unix"
        server = self._server
        server.connections.add(self)
        self.deadline = server.timers.now + server.bounds.idle_time
        server.timers.watch(self)
        if server.draining:  # it came as the listener was closed
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Octets of a head, of a body, or ahead of their time."""
        exchange = self.exchange
        if self._lingering:
            return
        if exchange is None and not self._choked and not self._backlog:
            self._read(data)
            if self._backlog:
                self._go_on()
        elif exchange is None or exchange.received:
            self._backlog += data
            if len(self._backlog) > _BACKLOG:
                self.transport.pause_reading()
        else:
            self._collect(exchange, data)

    def eof_received(self) -> bool:
        """The peer sends no more. Whether it still reads is asked, see `_probe`."""
        exchange = self.exchange
        if exchange is None or not exchange.received or exchange.ended:
            return False
        if not self.transport.can_write_eof():  # TLS knows no half-closed connections
            return False
        self._half_closed = True
        self._server.loop.call_later(_PROBE_FIRST, self._probe, exchange, _PROBE_FIRST)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: so is the reason to go on with its request."""
        server = self._server
        server.timers.forget(self)
        server.connections.discard(self)
        exchange = self.exchange
        if exchange is not None:
            exchange.closing = True
            if not exchange.ended and exchange.drive is not None:
                exchange.drive.cancel()
        server.connection_gone()

    def pause_writing(self) -> None:
        """The peer reads too slowly: it has `write_time` to catch up."""
        self._choked = True
        self.deadline = self._server.timers.now + self._server.bounds.write_time
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._choked = False
        if self.exchange is not None:
            if self.exchange.received:
                self.deadline = NEVER
            else:
                self.deadline = self._server.timers.now + self._server.bounds.body_time
            self.exchange.resume()
        elif not self._lingering and not self.transport.is_closing():
            self.deadline = self._server.timers.now + self._server.bounds.idle_time
            self._go_on()

    def expire(self) -> None:
        """A deadline is past: of idling, a head, a body, or a write."""
        self.deadline = NEVER
        exchange = self.exchange
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif exchange is None:
            if self._choked:
                self.transport.abort()
            elif self._reader.started:
                self._refuse(RelayError(REQUEST_TIMEOUT, "The request header came too slowly."))
            else:
                self._close()
        elif exchange.paused or exchange.ended:
            self.transport.abort()
        elif exchange.intake is not None:
            exchange.intake.too_slow()

    def closes_after_answer(self) -> bool:
        """Whether the answer under way is the connection's last."""
        exchange = self.exchange
        return (
            self._server.draining
            or (self._half_closed and not self._backlog)
            or (exchange is not None and not exchange.request.keep_alive)
        )

    def shut(self) -> None:
        """Close if idle; else the exchange under way is the last one."""
        if self.exchange is None:
            self.transport.close()

    def _read(self, data: bytes) -> None:
        try:
            parsed = self._reader.feed(data)
        except RelayError as error:
            self._refuse(error)
            return
        server = self._server
        if parsed is None:
            if self.deadline > server.timers.now + server.bounds.head_time:
                self.deadline = server.timers.now + server.bounds.head_time
            return
        request, rest = parsed
        length = request.length
        most = server.bounds.body
        if length == len(rest) <= most:  # the whole request in one piece: what most callers send
            exchange = Exchange(self, request, most, rest)
            self.deadline = NEVER
        elif 0 <= length < len(rest) and length <= most:
            exchange = Exchange(self, request, server.bounds.body, rest[:length])
            self._backlog = rest[length:]
            self.deadline = NEVER
        else:
            exchange = Exchange(self, request, server.bounds.body)
            self.deadline = server.timers.now + server.bounds.body_time
            self._collect(exchange, rest)
        self.exchange = exchange
        drive = CoroutineRunner(self._run(exchange))
        drive.step()
        exchange.drive = drive  # only now: `_next` tells by it that the answer took its time

    def _go_on(self) -> None:
        """Take what came ahead of its time; some of it, as others wait for their turn too."""
        if self.transport.is_closing():
            return
        for _ in range(_AT_ONCE):
            if not self._backlog or self.exchange is not None or self._choked:
                break
            data, self._backlog = self._backlog, b""
            self._read(data)
        else:
            if self._backlog:
                self.transport.pause_reading()
                self._server.loop.call_soon(self._go_on)
                return
        if len(self._backlog) <= _BACKLOG and not self.transport.is_reading():
            self.transport.resume_reading()
        if self._half_closed and not self.transport.is_closing():
            if self.exchange is not None:
                self._server.loop.call_later(_PROBE_FIRST, self._probe, self.exchange, _PROBE_FIRST)
            elif not self._backlog:  # what came last was no whole request
                self._close()

    def _collect(self, exchange: Exchange, data: bytes) -> None:
        intake = exchange.intake
        assert intake is not None
        if data:
            self._backlog = intake.feed(data)
        server = self._server
        if intake.complete:
            self.deadline = NEVER
        else:  # each KiB that came buys another second
            earned = self.deadline + len(data) / BODY_RATE
            self.deadline = min(earned, server.timers.now + 2 * server.bounds.body_time)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._server.handler(exchange)
            if not exchange.ended:
                raise RuntimeError("the handler left its exchange unanswered")
        except RelayError as error:
            exchange.fail(error)
        except asyncio.CancelledError:
            exchange.abort()
        except Exception:
            _log.exception("request %s failed", exchange.id.decode())
            exchange.fail(RelayError(INTERNAL, "The relay failed. Its log has the request id."))
        finally:
            self._next(exchange)

    def _next(self, exchange: Exchange) -> None:
        self.exchange = None
        transport = self.transport
        if transport.is_closing():
            self._close()
            return
        spent = self._half_closed and not self._backlog  # nothing more can come
        if exchange.closing or spent or self._server.draining:
            self._linger(exchange.received)
            return
        if not self._choked:
            self.deadline = self._server.timers.now + self._server.bounds.idle_time
        if self._backlog and exchange.drive is not None:
            self._go_on()

    def _refuse(self, error: RelayError) -> None:
        """Answer what is no request, and end the connection."""
        number = new_id()
        body = error.body(Dialect.MESSAGES, number.decode())
        self.transport.write(
            b"%b%bcontent-type: application/json\r\nrequest-id: %b\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status_line(error.kind.status), date.line, number, len(body), body)
        )
        if self._server.refused is not None:
            self._server.refused(number, self.peer, error)
        self._linger(received=False)

    def _linger(self, received: bool) -> None:
        """Close; but a peer still sending would get a reset and lose the answer (RFC 9112 §9.6)."""
        if received or self._half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self._backlog = b""
        self._lingering = True
        self.transport.write_eof()
        self.deadline = self._server.timers.now + _LINGER

    def _close(self) -> None:
        """Close once the peer has read what was written, for which it has its time."""
        self._backlog = b""
        self.deadline = self._server.timers.now + self._server.bounds.write_time
        self.transport.close()

    def _probe(self, exchange: Exchange, wait: float) -> None:
        """Find out whether a peer that sends no more still reads.

        Shutting one side and closing look the same from here; but a closed socket answers
        the first octet with a reset, and the second write finds it.
        """
        if self.exchange is not exchange or self.transport.is_closing():
            return
        if exchange.still_read():
            wait = min(wait * 2, _PROBE_LONGEST) if wait > _PROBE_FIRST else wait * 1.01
            self._server.loop.call_later(wait, self._probe, exchange, wait)
        else:
            self.transport.abort()


class Server:
    """Listens, and ends in order: `drain` lets exchanges in flight finish."""

    def __init__(
        self,
        handler: Handler,
        timers: Deadlines,
        bounds: Bounds | None = None,
        refused: Callable[[bytes, str, RelayError], None] | None = None,
    ) -> None:
        """`refused(id, peer, error)` is told of what was no request and never got a handler."""
        self.handler = handler
        self.refused = refused
        self.timers = timers
        self.bounds = bounds or Bounds()
        self.loop = asyncio.get_running_loop()
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self._listeners: list[asyncio.Server] = []
        self._empty: asyncio.Future[None] | None = None
        timers.each_tick(date.renew)

    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """Accept connections at a TCP address, a Unix socket or on a socket that listens already.

        Returns the port that was bound, 0 for a Unix socket.

        Raises:
            OSError: the address cannot be used.
        """
        options: dict[str, Any] = {"backlog": 1024, "ssl": tls}
        listener: asyncio.Server
        if sock is not None:
            create: Any = self.loop.create_server
            if sock.family == socket.AF_UNIX:
                create = self.loop.create_unix_server
            listener = await create(self._connection, sock=sock, **options)
        elif path is not None:
            listener = await self.loop.create_unix_server(self._connection, path, **options)
        else:
            listener = await self.loop.create_server(self._connection, host, port, **options)
        self._listeners.append(listener)
        bound = listener.sockets[0]
        return 0 if bound.family == socket.AF_UNIX else int(bound.getsockname()[1])

    def _connection(self) -> ServerConnection:
        return ServerConnection(self)

    async def drain(self, patience: float) -> None:
        """Accept no more, let exchanges in flight finish for `patience` seconds, then cut."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.shut()
        if self.connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=patience)
        self.abort()

    def abort(self) -> None:
        """Cut every connection now."""
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def connection_gone(self) -> None:
        """Called by each connection at its end."""
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)
