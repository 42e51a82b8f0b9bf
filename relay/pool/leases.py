"""The upstreams, the leases of requests that use them, and the queue for a free place.

Decides when a queued request gets a place: one request of each caller in turn. `selection` decides
which target is due. Must not know more of a request than a `RoutingRequest` has.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeAlias

from relay import config
from relay.clock import rfc3339
from relay.errors import RATE_LIMITED, RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import Waiter
from relay.pool import clock as pool_clock
from relay.pool.no_place import queue_full_error, unavailable_error
from relay.pool.routes import Route, Target
from relay.pool.selection import (
    RoutingRequest,
    choose,
    could_serve,
    limits_of,
    may_come,
    passed_over,
    room_at,
)  # fmt: skip
from relay.pool.upstream import Tier, Upstream
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation

_ON_ITS_WAY_SECONDS: Final = 0.25  # for a place that another process may have
_ON_THEIR_WAY: Final = 1000  # such places that requests wait for at once


class Lease:
    """A request's place at an upstream; `Upstreams.release` gives it back.

    `choice` is the reason for the upstream: `only` one, `session` affinity, the session's `hash`,
    or its `turn`.
    `reservation` is held in the upstream's own limits. `sent`: the request was sent.
    """

    __slots__ = ("choice", "open", "reservation", "sent", "target")

    def __init__(self, target: Target, choice: str, reservation: Reservation | None) -> None:
        self.target = target
        self.choice = choice
        self.reservation = reservation
        self.sent = False
        self.open = True


class _QueuedRequest:
    """A request that waits for a lease, until a moment by the pool's clock."""

    __slots__ = ("lease", "request", "until")

    def __init__(self, request: RoutingRequest, until: float) -> None:
        self.request = request
        self.until = until
        self.lease: Waiter[Lease] = Waiter()


_QueueKey: TypeAlias = tuple[str, Route, bool, tuple[Upstream, ...]]


def _queue_key(request: RoutingRequest) -> _QueueKey:
    """Queue key: a caller's requests that the same upstreams can serve, so an unservable request
    blocks no other."""
    return (request.caller, request.route, request.counting, request.tried)


class Upstreams:
    """All upstreams, their leases and the queue. `on_queue`, if there is one, is called when
    requests wait, and when they do no more."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        settings: config.PoolSettings,
        ledger: Ledger,
        deadlines: Deadlines,
        clock: Callable[[], float] = pool_clock.now,
    ) -> None:
        """`clock` gives the present time, see `pool.clock`."""
        self._upstreams = tuple(upstreams)
        self._clock = clock
        self._tiers: dict[int, Tier] = {}
        self._join_tiers()
        self.settings = settings
        self.by_hash = False  # sessions have their upstreams by a hash, as on other machines
        self._ledger = ledger
        self._queues: dict[_QueueKey, deque[_QueuedRequest]] = {}
        self._waiting = 0
        self._wake_scheduled = False
        self.on_queue: Callable[[], None] | None = None
        self.on_replaced: list[Callable[[], None]] = []  # other upstreams, or other settings
        # Calls back what other processes hold, unused, of upstreams' own limits, by ledger name;
        # returns whether that was anything.
        self.recall: Callable[[list[str]], Awaitable[bool]] | None = None
        self._loop = asyncio.get_running_loop()
        deadlines.each_tick(self._tick)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams)

    def __len__(self) -> int:
        return len(self._upstreams)

    def __getitem__(self, index: int) -> Upstream:
        return self._upstreams[index]

    def __repr__(self) -> str:
        """`<Upstreams a: free, 3/8 in flight; b: 429: overloaded; 12 s to go, 0 …; 2 wait>`."""
        now = self._clock()
        parts = []
        for one in self._upstreams:
            cap = f"/{one.max_concurrency}" if one.max_concurrency else ""
            state = one.health.describe("", now) or "free"
            parts.append(f"{one.name}: {state}, {one.in_flight}{cap} in flight; ")
        return f"<Upstreams {''.join(parts)}{self._waiting} wait>"

    def replace(self, upstreams: Sequence[Upstream], settings: config.PoolSettings) -> None:
        """Use these upstreams from now on. One that is no longer among them finishes its requests
        in flight, then its connections close."""
        kept = set(upstreams)
        for one in self._upstreams:
            if one not in kept:
                one.pool.retire()
                successor = next((new for new in kept if new.name == one.name), None)
                if successor is not None:  # at another place
                    successor.spending = one.spending
                    successor.set_caps(successor.setup.settings.cost_cap)
        self._upstreams = tuple(upstreams)
        self.settings = settings
        self._join_tiers()
        for call in self.on_replaced:
            call()
        self.wake()

    def _join_tiers(self) -> None:
        """Let each upstream take turns with those of its priority, a new one from now on."""
        for upstream in self._upstreams:
            tier = self._tiers.setdefault(upstream.priority, Tier())
            if upstream.tier is not tier:
                upstream.tier = tier
                upstream.virtual_time = tier.virtual_time

    def restore(self, paused: Sequence[str], spent: dict[str, tuple[int, int]]) -> None:
        """The names of paused upstreams, and what each has cost this day and this month, in
        micro-dollars. A name that is no longer configured is left out."""
        for upstream in self._upstreams:
            if upstream.name in paused:
                upstream.health.pause()
            upstream.spending.begin(*spent.get(upstream.name, (0, 0)), self._clock())

    @property
    def waiting(self) -> int:
        """Number of queued requests."""
        return self._waiting

    def named(self, name: str) -> Upstream | None:
        """The upstream with this name, if there is one."""
        return next((one for one in self._upstreams if one.name == name), None)

    def now(self) -> float:
        """The present time by the pool's clock."""
        return self._clock()

    def passed_over(self, request: RoutingRequest, chosen: Target | None) -> str:
        """See `selection.passed_over`."""
        return passed_over(request, chosen, self._clock(), self._ledger)

    # --- leases ---

    def take(self, request: RoutingRequest) -> Lease | None:
        """A lease at the upstream that is due; None if the request must wait."""
        now = self._clock()
        if self._waiting:
            self._serve_queue(now)  # queued requests came first
        return self._take(request, now)

    async def wait(self, request: RoutingRequest) -> Lease:
        """A lease, as soon as there is a place.

        Raises:
            RelayError: 503, no place in time; 429, too many requests of this caller wait; 404, no
                upstream counts tokens.
        """
        now = self._clock()
        settings = self.settings
        ready = self.ready_at(request, now)
        if ready > now and self.recall is not None and await self.recall(limits_of(request)):
            if (lease := self.take(request)) is not None:
                return lease
            now = self._clock()
            ready = self.ready_at(request, now)
        patience, limit = settings.wait, settings.queue
        if not (patience and limit) and may_come(request, now, self._ledger):
            patience, limit = _ON_ITS_WAY_SECONDS, _ON_THEIR_WAY
        if ready > now + patience or not patience:
            raise unavailable_error(request, ready, now)
        displaced = self._make_room(request, limit)
        queued = _QueuedRequest(request, now + patience)
        self._queues.setdefault(_queue_key(request), deque()).append(queued)
        self._waiting += 1
        if self.on_queue is not None:
            self.on_queue()
        if displaced is not None:
            displaced.lease.set_exception(queue_full_error())
        try:
            return await queued.lease
        except asyncio.CancelledError:
            self._dequeue(queued)
            raise

    def release(
        self, lease: Lease, *, used: bool = True, tokens: int | None = None, cost: int = 0
    ) -> None:
        """Give a place back, once. `used`: the upstream has worked on the request, or may have,
        so it counts in the upstream's own limits, with `tokens` if they are known. `cost` is in
        micro-dollars.
        """
        if not lease.open:
            return
        lease.open = False
        upstream = lease.target.upstream
        upstream.in_flight -= 1
        if upstream.on_release is not None:
            upstream.on_release()
        if cost:
            upstream.spending.add(cost, self._clock())
        if lease.reservation is not None:
            if used:
                self._ledger.settle(lease.reservation, self._clock(), tokens)
            else:
                self._ledger.refund(lease.reservation, self._clock())
        if self._waiting:
            self.wake()

    def _take(self, request: RoutingRequest, now: float) -> Lease | None:
        target = choose(request, now, self._ledger)
        if target is None:
            return None
        upstream = target.upstream
        if upstream.places <= upstream.in_flight:  # one may be on its way
            return None
        reservation = None
        if upstream.limits is not None and not request.counting:
            owner = upstream.ledger_name
            try:
                reservation = self._ledger.reserve(
                    owner, owner, upstream.limits, now, request.tokens
                )
            except QuotaExceeded:
                return None
        choice = "session"
        if upstream.name != request.bound:
            choice = "hash" if request.by_hash else "turn"
            if len(request.route.targets) == 1:
                choice = "only"
            if not request.counting:  # which uses no turn
                tier = upstream.tier
                if upstream.virtual_time > tier.virtual_time:
                    tier.virtual_time = upstream.virtual_time
                upstream.virtual_time += upstream.stride
        if upstream.health.degraded and not request.counting:  # a free request proves nothing
            upstream.health.request_started()
        upstream.in_flight += 1
        upstream.requests += 1
        return Lease(target, choice, reservation)

    # --- the queue ---

    def ready_at(self, request: RoutingRequest, now: float) -> float:
        """The moment from which a request may find a place, by the pool's clock; `inf`: unknown."""
        moments = [
            max(
                target.upstream.health.ready_at(
                    target.name, now, request.counting, request.account
                ),
                room_at(target.upstream, request, now, self._ledger),
            )
            for target in request.route.targets
            if target.upstream not in request.tried
        ]
        return min(moments, default=float("inf"))

    def give_up(self) -> None:
        """End the wait of each request that no upstream will serve in time."""
        now = self._clock()
        self._refuse(lambda one: self.ready_at(one.request, now) > one.until, now)

    def wake(self) -> None:
        """Serve the queue on the loop's next turn: a place or an upstream may be free."""
        if self._waiting and not self._wake_scheduled:
            self._wake_scheduled = True
            self._loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._wake_scheduled = False
        self._serve_queue(self._clock())

    def _make_room(self, request: RoutingRequest, limit: int) -> _QueuedRequest | None:
        """Find a place in the queue; returns the request that has lost its own to this one.

        A caller has at most half of the places, and a full queue still has one for the first
        request of another. Counting is free, so it waits only while no other caller does.

        Raises:
            RelayError: 503 or 429, there is no place.
        """
        own, most = 0, 1
        displaced: deque[_QueuedRequest] | None = None
        counting = False
        for key, queue in self._queues.items():
            if key[0] == request.caller:
                own += len(queue)
            elif queue[0].request.counting:
                displaced, counting = queue, True
            elif not counting and len(queue) > most:
                displaced, most = queue, len(queue)
        if own and own >= limit // 2:
            raise RelayError(
                RATE_LIMITED,
                "All upstreams are busy, and this key has its share of the requests that wait for "
                "them. Try again in a moment.",
                headers=((b"retry-after", b"1"),),
            )
        if request.counting and self._waiting > own:
            raise queue_full_error()
        if self._waiting < limit:
            return None
        if displaced is None or (own and not counting) or request.counting:
            raise queue_full_error()
        queued = displaced[-1]
        self._dequeue(queued)
        return queued

    def _tick(self) -> None:
        if not self._waiting:
            return
        now = self._clock()
        self._serve_queue(now)
        self._refuse(lambda one: one.until <= now, now)

    def _refuse(self, due: Callable[[_QueuedRequest], bool], now: float) -> None:
        for queued in [one for queue in self._queues.values() for one in queue if due(one)]:
            self._dequeue(queued)
            ready = self.ready_at(queued.request, now)
            queued.lease.set_exception(unavailable_error(queued.request, ready, now))

    def _serve_queue(self, now: float) -> None:
        """Give places to queued requests: one to each caller in turn, while there are places."""
        progress = True
        while progress:
            progress = False
            for key, queue in list(self._queues.items()):
                if not queue:  # emptied meanwhile: a served request runs at once, and may serve
                    continue
                lease = self._take(queue[0].request, now)
                if lease is None:
                    continue
                progress = True
                queued = queue.popleft()
                self._waiting -= 1
                del self._queues[key]
                if queue:
                    self._queues[key] = queue  # behind all others
                queued.lease.set_result(lease)
        if self.on_queue is not None:
            self.on_queue()

    def _dequeue(self, queued: _QueuedRequest) -> None:
        key = _queue_key(queued.request)
        queue = self._queues.get(key)
        if queue is not None and queued in queue:
            queue.remove(queued)
            self._waiting -= 1
            if not queue:
                del self._queues[key]
            if self.on_queue is not None:
                self.on_queue()

    # --- places that are lent to this process ---

    def queued(self) -> Iterator[tuple[RoutingRequest, int]]:
        """The first request of each queue, in turn, with the length of the queue."""
        for queue in self._queues.values():
            yield queue[0].request, len(queue)

    def serve(self, callers: Sequence[str]) -> None:
        """Places have come for these callers: it is their turn."""
        queues = self._queues
        first = dict.fromkeys(callers)
        ahead = [
            (key, queue) for caller in first for key, queue in queues.items() if key[0] == caller
        ]
        self._queues = dict(ahead)
        self._queues.update(queues)
        self._serve_queue(self._clock())

    def could_serve(self, target: Target, request: RoutingRequest) -> bool:
        """See `selection.could_serve`."""
        return could_serve(target, request, self._clock(), self._ledger)

    # --- for the operator ---

    def view(self) -> list[dict[str, object]]:
        """The state of each upstream, in the shape of `relay upstreams --json`."""
        now = self._clock()
        total = sum(one.answered for one in self._upstreams) or 1
        return [
            {
                "name": one.name,
                "vendor": one.vendor.name,
                "terms": one.vendor.terms,
                "priority": one.priority,
                "weight": one.weight,
                **one.health.view(now),
                "in_flight": one.in_flight,
                "max_concurrency": one.max_concurrency,
                "requests": one.requests,
                "answered": one.answered,
                "share": round(one.answered / total, 4),
                "other_model": one.other_model,
                "limits": self._limits(one, now),
                "left": one.quota_left,
                "cost": one.spending.view(now),
            }
            for one in self._upstreams
        ]

    def _limits(self, upstream: Upstream, now: float) -> list[dict[str, object]]:
        if upstream.limits is None:
            return []
        owner = upstream.ledger_name
        return [
            {
                "limit": one.name,
                "left": one.remaining,
                "reset": rfc3339(pool_clock.shown(one.reset)),
            }
            for one in self._ledger.view(owner, owner, upstream.limits, now)
        ]
