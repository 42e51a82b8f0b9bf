"""The octets before a connection's own protocol: a PROXY header, an authority's TLS challenge.

Only a server with a `Prelude` accepts here; the loop accepts for all others. Decides who called
where a proxy says so, and which connections are an authority's. Must not know requests.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from relay.net.handshake import Handshake
from relay.net.server import Server
from relay.wire import client_hello, proxy_protocol
from relay.wire.forwarded import UNIX

ACME_PROTOCOL: Final = "acme-tls/1"  # RFC 8737 §6.2

_ACCEPTED_PER_TURN: Final = 64
_RETRY_SECONDS: Final = 0.1
_WARNING_INTERVAL_SECONDS: Final = 60.0

_log = logging.getLogger("relay.net")

Connect = Callable[[Handshake, str], asyncio.BaseProtocol]


class Acceptor:
    """Accepts from a listening socket until it is closed, in place of the loop.

    `connect(handshake, peer)` makes the protocol of a connection; a `peer` of "" is the socket's.
    """

    def __init__(
        self, server: Server, sock: socket.socket, tls: ssl.SSLContext | None, connect: Connect
    ) -> None:
        assert server.prelude is not None
        self._server = server
        self._loop = server.loop
        self._prelude = server.prelude
        self._socket = sock
        self._tls = tls
        self._connect = connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more; connections that were accepted go on."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._socket)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            if self._is_closed:
                return
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor left
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_RETRY_SECONDS, self._retry)
                return
            connection.setblocking(False)
            handshake = Handshake()
            self._server.handshake_started(handshake)
            peer = str(address[0]) if isinstance(address, tuple) else UNIX
            task = self._loop.create_task(self._begin(connection, handshake, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _retry(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._socket, self._accept)

    async def _begin(
        self, connection: socket.socket, handshake: Handshake | None, peer: str
    ) -> None:
        """Read the prelude of one connection and connect it."""
        try:
            async with asyncio.timeout(self._server.bounds.handshake_time):
                caller = await self._caller(connection, peer)
                context = await self._context(connection)
        except (OSError, TimeoutError):  # it left, or is too slow
            connection.close()
            return
        except ValueError as error:
            self._warn("a connection of %s is closed: %s", peer, error)
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        assert handshake is not None
        protocol = self._connect(handshake, caller)
        if context is not self._tls:
            protocol = cast(asyncio.BaseProtocol, _Closing())
        handshake = None  # it ends with the protocol's
        seconds = None if context is None else self._server.bounds.handshake_time
        with contextlib.suppress(OSError):  # a handshake that fails
            await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=context, ssl_handshake_timeout=seconds
            )

    async def _caller(self, connection: socket.socket, peer: str) -> str:
        """The caller that a PROXY header names; "" for the peer itself.

        Raises:
            OSError: the peer left.
            ValueError: it is no trusted proxy, or sent no valid header.
        """
        proxies = self._prelude.proxies
        if proxies is None:
            return ""
        if not proxies.trusts(peer):
            raise ValueError("it is not in server.trusted_proxies, and server.proxy_protocol is on")
        header = await self._read(connection, proxy_protocol.HEADER_OCTETS)
        rest = await self._read(connection, proxy_protocol.rest_octets(header))
        return proxy_protocol.source_address(header, rest) or ""

    async def _read(self, connection: socket.socket, count: int) -> bytes:
        """Exactly `count` octets: the next ones are not the prelude's."""
        data = b""
        while len(data) < count:
            piece = await self._loop.sock_recv(connection, count - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    async def _context(self, connection: socket.socket) -> ssl.SSLContext | None:
        """The listener's context, or the challenge's that an authority calls for.

        Raises:
            OSError: the peer left.
            ValueError: it begins no TLS handshake, or an authority asks for another name.
        """
        challenges = self._prelude.challenges
        if self._tls is None or challenges is None or not challenges.is_pending:
            return self._tls
        header = await self._peek(connection, client_hello.RECORD_HEADER_OCTETS)
        record = await self._peek(connection, client_hello.record_octets(header))
        hello = client_hello.client_hello(record)
        if ACME_PROTOCOL.encode() not in hello.protocols:
            return self._tls
        context = challenges.context(hello.name)
        if context is None:
            raise ValueError(f"an authority asks for {hello.name!r}, which has no challenge")
        return context

    async def _peek(self, connection: socket.socket, count: int) -> bytes:
        """The first `count` octets, which stay in the kernel's queue for TLS."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        while True:
            readable = self._loop.create_future()
            self._loop.add_reader(connection, _settle, readable)
            try:
                await readable
            finally:
                self._loop.remove_reader(connection)
            with contextlib.suppress(BlockingIOError):
                data = connection.recv(count, socket.MSG_PEEK)
                if len(data) == count:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                    return data
                raise ConnectionResetError  # readable with less: it has sent its last octet

    def _warn(self, text: str, *values: object) -> None:
        """Log once a minute: anybody may connect."""
        if self._loop.time() - self._prelude.warned_at > _WARNING_INTERVAL_SECONDS:
            self._prelude.warned_at = self._loop.time()
            _log.warning(text, *values)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Closing:
    """The protocol of an authority: the handshake is all that it looks at (RFC 8737 §3)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
