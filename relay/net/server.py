"""A server: its handler, its bounds, and the set of its connections.

The same for every protocol: `net.listener` accepts, a connection such as `net.http1` speaks the
protocol.

Decides how the connections end: `drain` lets exchanges in flight finish. Must not know handlers'
answers.
"""

import asyncio
import heapq
import logging
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from relay.errors import ErrorShape, RelayError
from relay.net.addresses import AddressCounts, is_loopback
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange, date
from relay.net.handshake import Handshake
from relay.net.memory_budget import MemoryBudget
from relay.wire.events import Limits, Request
from relay.wire.forwarded import TrustedProxies

_log = logging.getLogger("relay.net")

_GRACE_SECONDS: Final = 0.03  # for the first request to follow its connection
_PAUSE_SECONDS: Final = 0.05  # between two looks whether there is room again
_WARNING_INTERVAL_SECONDS: Final = 60.0
_EVICTED_SHARE: Final = 64  # of the idle connections, where one more is needed

Handler = Callable[[Exchange], Awaitable[None]]
Refused = Callable[[Request, bytes, str, RelayError], tuple[int, bytes, bytes]]


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
    handshake_time: float = 10.0  # for TLS
    connections: int = 1_000_000  # open at once
    per_address: int = 0  # of these, from one address; 0: no cap
    is_exempt: Callable[[str], bool] = is_loopback  # an address without that cap


def _refusal(
    request: Request, request_id: bytes, peer: str, error: RelayError
) -> tuple[int, bytes, bytes]:
    fields = b"content-type: application/json\r\nrequest-id: %b\r\n" % request_id
    return error.kind.status, fields, error.body(ErrorShape.MESSAGES, request_id.decode())


class Connection(Protocol):
    """A caller's connection, as its server sees it."""

    transport: asyncio.Transport
    deadline: float
    peer: str

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, and has answered all that came."""
        ...

    def shut(self) -> None:
        """Close if idle; otherwise close after the current exchange."""
        ...

    def retire(self) -> None:
        """Close soon, but answer a request that is on its way."""
        ...


class Listener(Protocol):
    """A listening socket, as its server sees it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    @property
    def socket(self) -> socket.socket: ...
    def release(self) -> None: ...
    def close(self) -> None: ...
    def accept_anew(self) -> None: ...


class TlsChallenges(Protocol):
    """Answers to an authority's TLS-ALPN-01 challenges."""

    @property
    def is_pending(self) -> bool:
        """Whether an authority may call now."""
        ...

    def context(self, name: str) -> ssl.SSLContext | None:
        """For the challenge of a name; None: there is none."""
        ...


class Prelude:
    """What a server expects before HTTP, on all of its listeners: see `net.prelude`."""

    def __init__(self, proxies: TrustedProxies | None = None) -> None:
        """`proxies`: each connection begins with a PROXY header from one of them."""
        self.proxies = proxies
        self.challenges: TlsChallenges | None = None
        self.warned_at = float("-inf")  # of connections that were refused

    @property
    def is_needed(self) -> bool:
        """Whether it has anything to read."""
        return self.proxies is not None or (
            self.challenges is not None and self.challenges.is_pending
        )


class Server:
    """See the module."""

    def __init__(
        self,
        handler: Handler,
        deadlines: Deadlines,
        bounds: Bounds | None = None,
        refused: Refused | None = None,
        *,
        private: bool = False,
    ) -> None:
        """`refused(request, request_id, peer, error)` gives status, field lines and body for octets
        that are no request, of which `request` has what could be read; the handler never sees
        them. `private`: its Unix sockets are for their owner only."""
        self.handler = handler
        self.refused: Refused = refused or _refusal
        self.deadlines = deadlines
        self.bounds = bounds or Bounds()
        self.budget = MemoryBudget(
            self.bounds.held, self.bounds.held_per_key, self.bounds.uploads_per_key
        )
        self.loop = asyncio.get_running_loop()
        self.private = private
        self.connections: set[Connection] = set()
        # Connections on which no request came yet, and since when; oldest first.
        self.strangers: dict[Connection, float] = {}
        self.addresses = AddressCounts(self.bounds.per_address, self.bounds.is_exempt)
        self.listeners: list[Listener] = []
        self.draining = False
        self.retiring = False  # each connection closes after its next answer
        self.proxies: TrustedProxies | None = None  # whose X-Forwarded-For names the caller
        self.prelude: Prelude | None = None
        self._handshakes: weakref.WeakSet[Handshake] = weakref.WeakSet()
        self._is_accepting = True
        self._warned_at = float("-inf")
        self._address_warned_at = float("-inf")
        self._empty: asyncio.Future[None] | None = None
        deadlines.each_tick(date.renew)

    @property
    def handshakes(self) -> int:
        """Number of TLS handshakes that are going on."""
        return len(self._handshakes)

    @property
    def accepts(self) -> bool:
        """Whether new connections are accepted; otherwise they wait in the kernel's queue."""
        return self._is_accepting and not self.retiring

    def bound(self, bounds: Bounds) -> None:
        """Use these bounds from now on, in open connections too."""
        self.bounds = bounds
        self.budget.bound(bounds.held, bounds.held_per_key, bounds.uploads_per_key)
        self.addresses.bound(bounds.per_address, bounds.is_exempt)

    def connection_made(self, connection: Connection) -> None:
        """Called by each connection when it is open.

        At the limit of `bounds` it takes the place of one that brings nothing, see `_make_room`.
        Where there is none, further ones wait in the kernel's queue.
        """
        if not self.addresses.enter(connection, connection.peer):
            self._refuse_address(connection)
        self.connections.add(connection)
        self.strangers[connection] = self.loop.time()
        used = len(self.connections) + len(self._handshakes)
        if used > self.bounds.connections and not self._make_room():
            self._pause()

    def handshake_started(self, handshake: Handshake) -> None:
        """Called at the start of each TLS handshake."""
        self._handshakes.add(handshake)
        if len(self._handshakes) > self.bounds.connections // 2:
            self.loop.call_soon(self._pause)  # not while the loop accepts

    def _make_room(self) -> bool:
        """Close a connection that brings nothing; False if there is none.

        First the oldest on which no request came. A request mostly comes with its connection, so
        a moment is enough; while such connections come in a flood, those between two requests
        stay. Otherwise the one that has idled longest between two requests.
        """
        stranger = next(iter(self.strangers), None)
        if stranger is not None:
            if self.loop.time() - self.strangers[stranger] >= _GRACE_SECONDS:
                del self.strangers[stranger]
                stranger.transport.abort()
                return True
            if len(self.strangers) > self.bounds.connections // 2:
                return False
        idle = [one for one in self.connections if one.is_idle and one not in self.strangers]
        # Several at once: looking at all of them takes its time.
        closed = heapq.nsmallest(1 + len(idle) // _EVICTED_SHARE, idle, key=_deadline)
        for one in closed:
            one.transport.abort()
        return bool(closed)

    def _refuse_address(self, connection: Connection) -> None:
        connection.transport.abort()
        if self.loop.time() - self._address_warned_at > _WARNING_INTERVAL_SECONDS:
            self._address_warned_at = self.loop.time()
            _log.warning(
                "%s has %d connections open, as many as server.limits.connections_per_address "
                "allows: further ones are cut",
                connection.peer,
                self.bounds.per_address,
            )

    def _pause(self) -> None:
        if not self._is_accepting or self.draining or self.retiring:
            return
        self._is_accepting = False
        if self.loop.time() - self._warned_at > _WARNING_INTERVAL_SECONDS:
            self._warned_at = self.loop.time()
            used = len(self.connections) + len(self._handshakes)
            _log.warning(
                "%d connections are open, as many as server.limits.connections or the limit of "
                "descriptors allows: new ones wait; raise it, LimitNOFILE or `ulimit -n`",
                used,
            )
        for listener in self.listeners:
            listener.pause()
        self.loop.call_later(_PAUSE_SECONDS, self._accept_again)

    def _accept_again(self) -> None:
        """Accept the connections that wait, as soon as there is room."""
        if self.draining or self.retiring:
            return
        used = len(self.connections) + len(self._handshakes)
        is_shaking = len(self._handshakes) > self.bounds.connections // 2
        if is_shaking or (used >= self.bounds.connections and not self._make_room()):
            self.loop.call_later(_PAUSE_SECONDS, self._accept_again)
            return
        self._is_accepting = True
        for listener in self.listeners:
            listener.resume()

    def accept_anew(self) -> None:
        """Have the listeners look whether the prelude has something to read."""
        if self._is_accepting and not self.retiring:
            for listener in self.listeners:
                listener.accept_anew()

    def retire(self, idle_time: float) -> None:
        """Leave new connections to another process. Those that are open get one more answer, and
        `idle_time` seconds for its request: closing them now could cross one on its way."""
        self.retiring = True
        self.bounds = replace(self.bounds, idle_time=min(idle_time, self.bounds.idle_time))
        for connection in tuple(self.connections):
            connection.retire()

    def release_listeners(self) -> None:
        """Close the listening sockets here alone: another process accepts from them."""
        for listener in self.listeners:
            listener.release()
        self.listeners.clear()

    async def emptied(self, seconds: float) -> None:
        """Wait until no connection is open, for so many seconds at most."""
        if self.connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=seconds)

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let exchanges in flight finish for `seconds`, then cut them."""
        self.draining = self.retiring = True
        for listener in self.listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.shut()
        await self.emptied(seconds)
        self.abort()

    def abort(self) -> None:
        """Cut every connection now."""
        for listener in self.listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def connection_gone(self, connection: Connection) -> None:
        """Called by each connection when it has closed."""
        self.connections.discard(connection)
        self.addresses.leave(connection)
        self.strangers.pop(connection, None)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)


def _deadline(connection: Connection) -> float:
    return connection.deadline
