"""Sockets that accept callers' connections for a server: bound here, or inherited.

Decides the protocol of a connection: HTTP/1.1. Must not know requests.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from typing import Any, Final, cast

from relay.net.handshake import Handshake
from relay.net.http1 import ServerConnection
from relay.net.prelude import Acceptor
from relay.net.server import Server

_BACKLOG_CONNECTIONS: Final = 1024  # queued by the kernel ahead of the loop
_RETRY_SECONDS: Final = 0.1
_PRIVATE_MODE: Final = 0o600


class Listener:
    """One listening socket. While it is paused, the kernel queues new connections."""

    def __init__(self, server: Server, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        self._server = server
        self._socket = sock
        self._tls = tls
        self._accepting: asyncio.Server | Acceptor | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._is_paused = False

    @property
    def socket(self) -> socket.socket:
        """The listening socket, for another process."""
        return self._socket

    @property
    def port(self) -> int:
        """The bound port, 0 for a Unix socket."""
        if self._socket.family == socket.AF_UNIX:
            return 0
        return int(self._socket.getsockname()[1])

    async def accept(self) -> None:
        """Accept connections from now on. Raises OSError."""
        prelude = self._server.prelude
        if prelude is not None and prelude.is_needed:
            self._accepting = Acceptor(self._server, self._socket, self._tls, self._connect)
            return
        loop = self._server.loop
        is_unix = self._socket.family == socket.AF_UNIX
        create: Any = loop.create_unix_server if is_unix else loop.create_server
        options: dict[str, Any] = {"backlog": _BACKLOG_CONNECTIONS, "ssl": self._tls}
        if self._tls is not None:
            options["ssl_handshake_timeout"] = self._server.bounds.handshake_time
        # The loop closes the socket that it accepts from: it gets a duplicate, and the
        # kernel's queue stays open with the original.
        accepting: asyncio.Server = await create(
            self._connection, sock=self._socket.dup(), **options
        )
        if self._is_paused:  # meanwhile
            accepting.close()
        else:
            self._accepting = accepting

    def pause(self) -> None:
        """Leave new connections in the kernel's queue."""
        self._is_paused = True
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def resume(self) -> None:
        """Undo `pause`."""
        self._is_paused = False
        if self._accepting is None and (self._resuming is None or self._resuming.done()):
            self._resuming = self._server.loop.create_task(self._resume())

    def accept_anew(self) -> None:
        """Accept as the server's prelude asks for now; callers wait in the kernel's queue."""
        if not self._is_paused:
            self.pause()
            self.resume()

    def close(self) -> None:
        """Accept no more connections."""
        self.pause()
        if self._server.private and self._socket.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                os.remove(self._socket.getsockname())
        self._socket.close()

    def release(self) -> None:
        """Close the socket in this process alone; its queue and its name stay."""
        self.pause()
        self._socket.close()

    async def _resume(self) -> None:
        while not self._is_paused and self._accepting is None:
            try:
                await self.accept()
                continue
            except OSError:  # no descriptor left for the duplicate
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    def _connection(self) -> asyncio.BaseProtocol:
        handshake = None if self._tls is None else Handshake()
        if handshake is not None:
            self._server.handshake_started(handshake)
        return self._connect(handshake)

    def _connect(self, handshake: Handshake | None, peer: str = "") -> asyncio.BaseProtocol:
        """The protocol of a new connection; `peer` is known to have called if not ""."""
        # The loop calls a protocol's methods and never checks its base class.
        return cast(asyncio.BaseProtocol, ServerConnection(self._server, handshake, peer))


async def listen(
    server: Server,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    path: str | None = None,
    sock: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Accept connections at a TCP address, at a Unix socket, or on a listening socket.

    A Unix socket that the server keeps `private` is for its owner only. Returns the bound port,
    0 for a Unix socket.

    Raises:
        OSError: the address cannot be used.
    """
    if sock is not None:
        sockets = [sock]
    elif path is not None:
        sockets = [bind_path(path, private=server.private)]
    else:
        sockets = await _bind(server.loop, host, port)
    listeners = [Listener(server, one, tls) for one in sockets]
    server.listeners.extend(listeners)
    for listener in listeners:
        await listener.accept()
    return listeners[0].port


async def _bind(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`. Raises OSError."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
            bound.listen(_BACKLOG_CONNECTIONS)
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def bind_path(path: str, *, private: bool) -> socket.socket:
    """A Unix socket in place of one that an ended process left. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if private:  # before it has a name, so that nobody else can connect at any moment
            os.fchmod(bound.fileno(), _PRIVATE_MODE)
        bound.bind(path)
        if private:
            os.chmod(path, _PRIVATE_MODE)
        bound.listen(_BACKLOG_CONNECTIONS)
    except BaseException:
        bound.close()
        raise
    return bound
