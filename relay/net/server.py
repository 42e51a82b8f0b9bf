"""A server: its handler, its bounds, and the set of its connections.

The same for every protocol: `net.listener` accepts, a connection such as `net.http1` speaks the
protocol.

Decides how the connections end: `drain` lets exchanges in flight finish. Must not know handlers'
answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange, date
from relay.net.memory_budget import MemoryBudget
from relay.wire.events import Limits

Handler = Callable[[Exchange], Awaitable[None]]
Refused = Callable[[bytes, str, RelayError], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A peer's limits, in octets and in seconds."""

    head: Limits = Limits()  # noqa: RUF009 - immutable
    body: int = 32 * 1024 * 1024  # octets of payload
    held: int = 256 * 1024 * 1024  # octets of all requests in memory
    held_per_key: int = 64 * 1024 * 1024  # of these, the most for one key
    uploads_per_key: int = 64  # bodies on their way
    head_time: float = 10.0  # for a complete head
    body_time: float = 10.0  # before a body's minimum rate counts
    upload_time: float = 300.0  # for a complete body
    idle_time: float = 75.0  # between two requests
    write_time: float = 120.0  # for a slow reader to catch up


class Connection(Protocol):
    """A caller's connection, as its server sees it."""

    transport: asyncio.Transport

    def shut(self) -> None:
        """Close if idle; otherwise close after the current exchange."""
        ...


class Server:
    """See the module."""

    def __init__(
        self,
        handler: Handler,
        deadlines: Deadlines,
        bounds: Bounds | None = None,
        refused: Refused | None = None,
    ) -> None:
        """`refused(request_id, peer, error)` is called for octets that are no request; the
        handler never sees them."""
        self.handler = handler
        self.refused = refused
        self.deadlines = deadlines
        self.bounds = bounds or Bounds()
        self.budget = MemoryBudget(
            self.bounds.held, self.bounds.held_per_key, self.bounds.uploads_per_key
        )
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.listeners: list[asyncio.Server] = []
        self.draining = False
        self._empty: asyncio.Future[None] | None = None
        deadlines.each_tick(date.renew)

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let exchanges in flight finish for `seconds`, then cut them."""
        self.draining = True
        for listener in self.listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.shut()
        if self.connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=seconds)
        self.abort()

    def abort(self) -> None:
        """Cut every connection now."""
        for listener in self.listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def connection_gone(self) -> None:
        """Called by each connection when it has closed."""
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)
