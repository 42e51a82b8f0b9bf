"""One HTTP/1.1 connection of a caller: heads in, exchanges out.

One whose TLS has chosen HTTP/2, or whose first octets are its preface, is left to `http2`.

A connection reads a head and passes the request to the handler. It takes the next request when
that exchange has ended, so pipelined requests are answered in order. Deadlines bound a peer's time;
limits and pausing bound its memory.

Decides when a request starts and when the connection closes. Must not know handlers' answers.
"""

import asyncio
from typing import Final, cast

from relay.errors import REQUEST_TIMEOUT, RelayError
from relay.net.deadlines import NEVER
from relay.net.exchange import Exchange, date, new_id, status_line
from relay.net.handshake import Handshake
from relay.net.http2 import Http2Connection
from relay.net.memory_budget import MemoryBudget
from relay.net.request_body import BODY_OCTETS_PER_SECOND
from relay.net.runner import CoroutineRunner
from relay.net.server import Server
from relay.net.socket_options import write_at_once
from relay.wire.events import Request
from relay.wire.forwarded import UNIX, TrustedProxies
from relay.wire.h1 import HeadReader, Http2PrefaceError, read_refused, request_reader
from relay.wire.h2.frames import PREFACE_HEAD

_CHUNKED_PER_TURN: Final = 32 * 1024  # octets of a chunked body in a turn of the loop
_READ_PER_TURN: Final = 64 * 1024  # octets of a body after which other connections come first
_BACKLOG_OCTETS: Final = 64 * 1024  # read ahead while a request is answered
_PIPELINED_PER_TURN: Final = 16  # requests started in one turn of the loop
_LINGER_SECONDS: Final = 2.0  # for a refused peer to finish sending and read the error
_FIRST_PROBE_SECONDS: Final = 0.04  # so a caller that left is noticed within 100 ms
_MAX_PROBE_SECONDS: Final = 10.0


class ServerConnection:
    """One accepted connection."""

    __slots__ = (
        "_backlog",
        "_half_closed",
        "_handshake",
        "_is_stranger",
        "_lingering",
        "_peer_is_slow",
        "_reader",
        "_server",
        "_unread",
        "deadline",
        "exchange",
        "peer",
        "proxies",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server, handshake: Handshake | None = None, peer: str = "") -> None:
        """`handshake`: TLS's, which ends before `connection_made`. `peer`: the caller, if a proxy
        has named it."""
        self._server = server
        self._handshake = handshake
        self._is_stranger = True  # no request came yet
        self._reader: HeadReader[Request] = request_reader(server.bounds.head)
        self._backlog = b""
        self._unread = b""  # octets of a chunked body for the next turn of the loop
        self._peer_is_slow = False  # the peer reads too slowly: no further request starts
        self._half_closed = False
        self._lingering = False
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.peer = peer
        self.proxies: TrustedProxies | None = None  # None: `peer` itself is the caller

    @property
    def budget(self) -> MemoryBudget:
        """The octets that may be held for requests."""
        return self._server.budget

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected; it may stay idle for `idle_time`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        write_at_once(self.transport)
        server = self._server
        if not self.peer:
            address = transport.get_extra_info("peername")
            self.peer = str(address[0]) if isinstance(address, tuple) else UNIX
        if server.proxies is not None and server.proxies.trusts(self.peer):
            self.proxies = server.proxies
        self._handshake = None
        self.deadline = server.deadlines.now + server.bounds.idle_time
        server.deadlines.watch(self)
        server.connection_made(self)
        if server.draining:  # accepted just before the listener closed
            transport.close()
        elif _speaks_http2(self.transport):
            self._speak_http2()

    def data_received(self, data: bytes) -> None:
        """Take octets of a head, of a body, or of a pipelined request."""
        exchange = self.exchange
        if self._lingering:
            return
        if exchange is None and not self._peer_is_slow and not self._backlog:
            self._read(data)
            if self._backlog:
                self._take_backlog()
        elif exchange is None or exchange.received:
            self._backlog += data
            if len(self._backlog) > _BACKLOG_OCTETS:
                self.transport.pause_reading()
        else:
            self._collect(exchange, data)

    def eof_received(self) -> bool:
        """The peer sends no more; `_probe` finds out whether it still reads."""
        exchange = self.exchange
        if exchange is None or not exchange.received or exchange.ended:
            return False
        if not self.transport.can_write_eof():  # TLS has no half-closed connections
            return False
        self._half_closed = True
        self._server.loop.call_later(
            _FIRST_PROBE_SECONDS, self._probe, exchange, _FIRST_PROBE_SECONDS
        )
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: cancel its request."""
        server = self._server
        server.deadlines.forget(self)
        exchange = self.exchange
        if exchange is not None:
            exchange.closing = True
            if not exchange.ended and exchange.runner is not None:
                exchange.runner.cancel()
        server.connection_gone(self)

    def pause_writing(self) -> None:
        """The peer reads too slowly; it has `write_time` to catch up."""
        self._peer_is_slow = True
        self.deadline = self._server.deadlines.now + self._server.bounds.write_time
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._peer_is_slow = False
        if self.exchange is not None:
            body = self.exchange.request_body
            if body is None or body.complete:
                self.deadline = NEVER
            else:
                self.deadline = self._server.deadlines.now + self._server.bounds.body_time
                self.deadline = min(self.deadline, body.ends_at)
            self.exchange.resume()
        elif not self._lingering and not self.transport.is_closing():
            self.deadline = self._server.deadlines.now + self._server.bounds.idle_time
            self._take_backlog()

    def expire(self) -> None:
        """The deadline of idling, a head, a body, or a write has passed."""
        self.deadline = NEVER
        exchange = self.exchange
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif exchange is None:
            if self._peer_is_slow:
                self.transport.abort()
            elif held := self._reader.held:
                error = RelayError(REQUEST_TIMEOUT, "The request header came too slowly.")
                self._refuse(error, held)
            else:
                self._close()
        elif exchange.paused or exchange.ended:
            self.transport.abort()
        elif exchange.request_body is not None:
            exchange.request_body.too_slow(self._server.bounds.upload_time)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, and has answered all that came."""
        transport = self.transport
        is_busy = self.exchange is not None or self._backlog or transport.get_write_buffer_size()
        return not is_busy and not transport.is_closing()

    def closes_after_answer(self) -> bool:
        """Whether the connection closes after the current answer."""
        exchange = self.exchange
        return (
            self._server.retiring
            or (self._half_closed and not self._backlog)
            or (exchange is not None and not exchange.request.keep_alive)
        )

    def retire(self) -> None:
        """Close after the next answer, or once no request has come for `idle_time`."""
        if self.is_idle:
            latest = self._server.deadlines.now + self._server.bounds.idle_time
            self.deadline = min(self.deadline, latest)

    def shut(self) -> None:
        """Close if idle; otherwise close after the current exchange."""
        if self.exchange is None:
            self.transport.close()

    def _read(self, data: bytes) -> None:
        before = self._reader.held
        try:
            parsed = self._reader.feed(data)
        except Http2PrefaceError as preface:
            if self._is_stranger and self.transport.get_extra_info("sslcontext") is None:
                self._speak_http2(PREFACE_HEAD + preface.rest)
            else:
                self._refuse(preface, before + data)
            return
        except RelayError as error:
            self._refuse(error, before + data)
            return
        server = self._server
        if parsed is None:
            if self.deadline > server.deadlines.now + server.bounds.head_time:
                self.deadline = server.deadlines.now + server.bounds.head_time
            return
        request, rest = parsed
        if self._is_stranger:
            self._is_stranger = False
            server.strangers.pop(self, None)
        length = request.length
        body_limit = server.bounds.body
        if length == len(rest) <= body_limit:  # one complete request, the usual case
            exchange = Exchange(self, request, body_limit, rest)
            self.deadline = NEVER
        elif 0 <= length < len(rest) and length <= body_limit:
            exchange = Exchange(self, request, body_limit, rest[:length])
            self._backlog = rest[length:]
            self.deadline = NEVER
        else:
            exchange = Exchange(self, request, body_limit)
            now = server.deadlines.now
            self.deadline = now + server.bounds.body_time
            if exchange.request_body is not None:
                exchange.request_body.ends_at = now + server.bounds.upload_time
            self._collect(exchange, rest)
        self.exchange = exchange
        runner = CoroutineRunner(self._run(exchange))
        runner.step()
        exchange.runner = runner  # set last: None shows `_next` that the first step answered

    def _speak_http2(self, data: bytes = b"") -> None:
        """Leave the connection to HTTP/2; `data` are the octets that came."""
        server = self._server
        server.deadlines.forget(self)
        server.connections.discard(self)
        server.strangers.pop(self, None)
        connection = Http2Connection(server, self.peer, self.proxies)
        self.transport.set_protocol(cast(asyncio.BaseProtocol, connection))
        connection.connection_made(self.transport)
        if data:
            connection.data_received(data)

    def _take_backlog(self) -> None:
        """Start pipelined requests; a limited number a turn, so other connections get theirs."""
        if self.transport.is_closing():
            return
        for _ in range(_PIPELINED_PER_TURN):
            if not self._backlog or self.exchange is not None or self._peer_is_slow:
                break
            data, self._backlog = self._backlog, b""
            self._read(data)
        else:
            if self._backlog:
                self.transport.pause_reading()
                self._server.loop.call_soon(self._take_backlog)
                return
        if len(self._backlog) <= _BACKLOG_OCTETS and not self.transport.is_reading():
            self.transport.resume_reading()
        if self._half_closed and not self.transport.is_closing():
            if self.exchange is not None:
                self._server.loop.call_later(
                    _FIRST_PROBE_SECONDS, self._probe, self.exchange, _FIRST_PROBE_SECONDS
                )
            elif not self._backlog:  # an incomplete request came last
                self._close()

    def _collect(self, exchange: Exchange, data: bytes) -> None:
        body = exchange.request_body
        assert body is not None
        if self._unread:  # it comes behind the octets that have yet to be read
            self._unread += data
            return
        unread = b""
        if exchange.request.length < 0 and len(data) > _CHUNKED_PER_TURN:
            data, unread = data[:_CHUNKED_PER_TURN], data[_CHUNKED_PER_TURN:]
        if data:
            self._backlog = body.feed(data)
        server = self._server
        if body.complete:
            self.deadline = NEVER
            self._backlog += unread
        else:  # each KiB received extends the deadline by a second
            earned = self.deadline + len(data) / BODY_OCTETS_PER_SECOND
            latest = min(server.deadlines.now + 2 * server.bounds.body_time, body.ends_at)
            self.deadline = min(earned, latest)
            if unread or len(data) >= _READ_PER_TURN:  # others get their turn
                self._unread = unread
                self.transport.pause_reading()
                server.loop.call_soon(self._collect_unread, exchange)

    def _collect_unread(self, exchange: Exchange) -> None:
        """Read on in the octets of a chunked body that the last turn of the loop left over."""
        data, self._unread = self._unread, b""
        if self.exchange is exchange and not self._lingering:
            self._collect(exchange, data)
        closing, reading = self.transport.is_closing(), self.transport.is_reading()
        if not self._unread and not closing and not reading:
            self.transport.resume_reading()

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._server.handler(exchange)
            if not exchange.ended:
                raise RuntimeError("the handler left its exchange unanswered")
        except (Exception, asyncio.CancelledError) as error:
            exchange.fail_by(error)
        finally:
            self._next(exchange)

    def _next(self, exchange: Exchange) -> None:
        self.exchange = None
        if exchange.held is not None:
            exchange.held.resize(0)
        transport = self.transport
        if transport.is_closing():
            self._close()
            return
        exhausted = self._half_closed and not self._backlog  # no further request can come
        if exchange.closing or exhausted or self._server.draining:
            self._linger(exchange.received)
            return
        if not self._peer_is_slow:
            self.deadline = self._server.deadlines.now + self._server.bounds.idle_time
        if self._backlog and exchange.runner is not None:
            self._take_backlog()

    def _refuse(self, error: RelayError, octets: bytes) -> None:
        """Answer octets that are no request, and close the connection."""
        status, fields, body = self._server.refused(
            read_refused(octets), new_id(), self.peer, error
        )
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status_line(status), date.line, fields, len(body), body)
        )
        self._linger(received=False)

    def _linger(self, received: bool) -> None:
        """Close in two steps, or a peer that still sends loses the answer (RFC 9112 §9.6)."""
        if received or self._half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self._backlog = b""
        self._lingering = True
        self.transport.write_eof()
        self.deadline = self._server.deadlines.now + _LINGER_SECONDS

    def _close(self) -> None:
        """Close once the peer has read the octets written, for which it has `write_time`."""
        self._backlog = b""
        self.deadline = self._server.deadlines.now + self._server.bounds.write_time
        self.transport.close()

    def _probe(self, exchange: Exchange, wait: float) -> None:
        """Find out whether a peer that sends no more still reads.

        A half-closed and a closed connection look the same here. But a closed socket answers the
        first octet with a reset, which the second write reports.
        """
        if self.exchange is not exchange or self.transport.is_closing():
            return
        if exchange.still_read():
            wait = min(wait * 2, _MAX_PROBE_SECONDS) if wait > _FIRST_PROBE_SECONDS else wait * 1.01
            self._server.loop.call_later(wait, self._probe, exchange, wait)
        else:
            self.transport.abort()


def _speaks_http2(transport: asyncio.Transport) -> bool:
    """Whether TLS has chosen HTTP/2 (ALPN, RFC 7301)."""
    tls = transport.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"
