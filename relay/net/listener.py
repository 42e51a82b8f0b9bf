"""Sockets that accept callers' connections for a server: bound here, or inherited.

Decides the protocol of a connection: HTTP/1.1. Must not know requests.
"""

import asyncio
import socket
import ssl
from typing import Any, Final, cast

from relay.net.http1 import ServerConnection
from relay.net.server import Server

_BACKLOG_CONNECTIONS: Final = 1024  # queued by the kernel ahead of the loop


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

    Returns the bound port, 0 for a Unix socket.

    Raises:
        OSError: the address cannot be used.
    """

    def connection() -> asyncio.BaseProtocol:
        # The loop calls a protocol's methods and never checks its base class.
        return cast(asyncio.BaseProtocol, ServerConnection(server))

    loop = server.loop
    options: dict[str, Any] = {"backlog": _BACKLOG_CONNECTIONS, "ssl": tls}
    listener: asyncio.Server
    if sock is not None:
        create: Any = loop.create_server
        if sock.family == socket.AF_UNIX:
            create = loop.create_unix_server
        listener = await create(connection, sock=sock, **options)
    elif path is not None:
        listener = await loop.create_unix_server(connection, path, **options)
    else:
        listener = await loop.create_server(connection, host, port, **options)
    server.listeners.append(listener)
    bound = listener.sockets[0]
    return 0 if bound.family == socket.AF_UNIX else int(bound.getsockname()[1])
