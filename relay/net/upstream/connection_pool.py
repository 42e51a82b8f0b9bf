"""Idle connections to one origin, kept for the next request.

Decides which connections are kept and for how long. Must not know requests or answers.
"""

import asyncio
import socket
import ssl
from typing import Any, Final

from relay.errors import OVERLOADED, RelayError
from relay.net.deadlines import NEVER, Deadlines
from relay.net.descriptors import is_exhausted, max_idle_connections
from relay.net.upstream import proxy as egress
from relay.net.upstream.connection import FailureKind, Origin, UpstreamConnection, UpstreamError
from relay.net.upstream.resolver import Resolver

_EXHAUSTED: Final = "The relay has no connection to spare at the moment. Try again in a moment."


class ConnectionPool:
    """The connections to one origin. Last in, first out, so that surplus connections expire."""

    def __init__(
        self, origin: Origin, deadlines: Deadlines, resolver: Resolver | None = None
    ) -> None:
        """`resolver` may be shared with other pools; None: one of its own."""
        self.origin = origin
        self.opened = 0
        self._max_idle = max_idle_connections()
        self._deadlines = deadlines
        self._idle: dict[UpstreamConnection, None] = {}
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver or Resolver()

    def __repr__(self) -> str:
        return f"<Pool {self.origin} idle={len(self._idle)} opened={self.opened}>"

    @property
    def idle(self) -> int:
        """Number of connections kept for further requests."""
        return len(self._idle)

    def take(self) -> UpstreamConnection | None:
        """An idle connection, if there is one."""
        while self._idle:
            connection, _ = self._idle.popitem()
            connection.on_idle_end = None
            if connection.lost is None:
                connection.deadline = NEVER
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            UpstreamError: CONNECT or TLS.
            RelayError: the relay has no descriptor left, which is no failure of the upstream.
        """
        # `asyncio.timeout` needs a task, and an exchange has none (net.runner).
        task = self._loop.create_task(self._open())
        try:
            return await task
        except asyncio.CancelledError:
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()  # connected in the same turn as the cancellation
            raise

    def put(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        """Take a connection back; `reusable`: its answer was read to the end."""
        if reusable and len(self._idle) < self._max_idle and connection.origin is self.origin:
            connection.idle()
            connection.on_idle_end = self._forget
            self._idle[connection] = None
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.popitem()[0].close()

    def retire(self) -> None:
        """Keep no more connections: those in use close once they come back."""
        self._max_idle = 0
        self.close()

    def _forget(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)

    async def _open(self) -> UpstreamConnection:
        origin = self.origin
        try:
            async with asyncio.timeout(origin.connect_time):
                connection = await self._through(await self._socket())
        except TimeoutError:
            reason = f"no connection within {origin.connect_time:g} s"
            raise UpstreamError(FailureKind.CONNECT, self._proxy_prefix() + reason) from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
            raise UpstreamError(FailureKind.TLS, str(reason)) from None
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and is_exhausted(error):
                raise RelayError(OVERLOADED, _EXHAUSTED) from None
            reason = getattr(error, "strerror", None) or str(error)
            raise UpstreamError(FailureKind.CONNECT, self._proxy_prefix() + reason) from None
        self.opened += 1
        return connection

    async def _socket(self) -> socket.socket:
        """A TCP connection to the origin, through its proxy if it has one."""
        origin = self.origin
        if origin.egress is None:
            return await self._resolver.connect(origin.host, origin.port, origin.connect_time)
        proxied = egress.Egress(origin.egress, self._resolver, origin.connect_time)
        return await egress.connect(proxied, origin.host, origin.port)

    async def _through(self, tunnel: socket.socket) -> UpstreamConnection:
        """A connection of this pool over a TCP connection."""
        origin = self.origin
        create: Any = self._loop.create_connection  # Any: a protocol without asyncio's base class
        try:
            connection: UpstreamConnection
            _, connection = await create(
                self._connection,
                sock=tunnel,
                ssl=origin.tls,
                server_hostname=origin.host if origin.tls else None,
            )
        except BaseException:
            tunnel.close()
            raise
        return connection

    def _proxy_prefix(self) -> str:
        """The beginning of a failure's reason: the proxy, which may be its cause."""
        proxy = self.origin.egress
        return "" if proxy is None else f"proxy {proxy}: "

    def _connection(self) -> UpstreamConnection:
        return UpstreamConnection(self.origin, self._deadlines)
