"""The upstreams, the requests that use them, and the requests that wait for a place.

Keeps leases and the queue; `selection` decides which target is due. Places go to one request of
each caller in turn. Must not know of a request more than a `RoutingRequest` has.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from relay import config
from relay.clock import rfc3339
from relay.errors import NOT_FOUND, OVERLOADED, Header, RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import Waiter
from relay.pool.routes import Route, Target
from relay.pool.selection import RoutingRequest, choose, passed_over, room_at
from relay.pool.upstream import Tier, Upstream
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation

_RETRY_WITHIN_SECONDS: Final = 60.0  # a caller that has to wait for longer need not retry before
_NO_RETRY: Final[Header] = (b"x-should-retry", b"false")


class Lease:
    """A request's place at an upstream, to be given back with `Upstreams.release`.

    `choice` is why it was chosen: it is the `only` one, has the `session`, or it was its `turn`.
    """

    __slots__ = ("choice", "held", "open", "sent", "target")

    def __init__(self, target: Target, choice: str, held: Reservation | None) -> None:
        self.target = target
        self.choice = choice
        self.held = held  # of the upstream's own limits
        self.sent = False  # the request has gone out
        self.open = True


class _Waiting:
    """A request that waits for an upstream, until a moment in epoch seconds."""

    __slots__ = ("lease", "until", "wanted")

    def __init__(self, wanted: RoutingRequest, until: float) -> None:
        self.wanted = wanted
        self.until = until
        self.lease: Waiter[Lease] = Waiter()


_Line: TypeAlias = tuple[str, Route, bool, tuple[Upstream, ...]]


def _line(wanted: RoutingRequest) -> _Line:
    """The queue's key: a caller's requests that the same upstreams can serve, so a request that
    no upstream can serve blocks no other."""
    return (wanted.caller, wanted.route, wanted.counting, wanted.tried)


class Upstreams:
    """All upstreams, who uses them and who waits for them."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        settings: config.PoolSettings,
        ledger: Ledger,
        deadlines: Deadlines,
    ) -> None:
        self._all = tuple(upstreams)
        tiers: dict[int, Tier] = {}
        for upstream in self._all:
            upstream.tier = tiers.setdefault(upstream.priority, Tier())
        self._settings = settings
        self._ledger = ledger
        self._queue: dict[_Line, deque[_Waiting]] = {}
        self._waiting = 0
        self._woken = False
        self._loop = asyncio.get_running_loop()
        deadlines.each_tick(self._tick)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Upstream:
        return self._all[index]

    def __repr__(self) -> str:
        """`<Upstreams a: free, 3/8 in flight; b: 429: told to wait; 12 s to go, 0 …; 2 wait>`."""
        now = time.time()
        parts = []
        for one in self._all:
            cap = f"/{one.max_concurrency}" if one.max_concurrency else ""
            why = one.health.why("", now) or "free"
            parts.append(f"{one.name}: {why}, {one.in_flight}{cap} in flight; ")
        return f"<Upstreams {''.join(parts)}{self._waiting} wait>"

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return self._waiting

    def named(self, name: str) -> Upstream | None:
        """The upstream of that name."""
        return next((one for one in self._all if one.name == name), None)

    def passed_over(self, wanted: RoutingRequest, chosen: Target | None) -> str:
        """See the function of that name."""
        return passed_over(wanted, chosen, time.time(), self._ledger)

    # --- leases ---

    def take(self, wanted: RoutingRequest) -> Lease | None:
        """A place at the upstream that is due; None: it must be waited for."""
        now = time.time()
        if self._waiting:
            self._serve(now)  # they came first
        return self._take(wanted, now)

    async def wait(self, wanted: RoutingRequest) -> Lease:
        """A place, once there is one.

        Raises:
            RelayError: 503, there will be none in time; 404, none counts tokens.
        """
        now = time.time()
        settings = self._settings
        ready = self.ready(wanted, now)
        if ready > now + settings.wait or not settings.wait:
            raise _unavailable(wanted, ready, now)
        if self._waiting >= settings.queue:
            raise RelayError(
                OVERLOADED,
                "All upstreams are busy and too many requests wait for them. Try again.",
                headers=((b"retry-after", b"1"),),
            )
        waiting = _Waiting(wanted, now + settings.wait)
        self._queue.setdefault(_line(wanted), deque()).append(waiting)
        self._waiting += 1
        try:
            return await waiting.lease
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    def release(self, lease: Lease, *, used: bool = True, tokens: int | None = None) -> None:
        """Give a place back. `used`: the upstream has worked on it, or may have, and by its own
        limits it counts; as so many tokens, if that is known. Once only.
        """
        if not lease.open:
            return
        lease.open = False
        upstream = lease.target.upstream
        upstream.in_flight -= 1
        if lease.held is not None:
            if used:
                self._ledger.settle(lease.held, time.time(), tokens)
            else:
                self._ledger.refund(lease.held, time.time())
        if self._waiting:
            self.wake()

    def _take(self, wanted: RoutingRequest, now: float) -> Lease | None:
        target = choose(wanted, now, self._ledger)
        if target is None:
            return None
        upstream = target.upstream
        held = None
        if upstream.limits is not None and not wanted.counting:
            owner = upstream.ledger_name
            try:
                held = self._ledger.reserve(owner, owner, upstream.limits, now, wanted.tokens)
            except QuotaExceeded:
                return None
        how = "session"
        if upstream.name != wanted.bound:  # (counting tokens takes nobody's turn)
            how = "turn" if len(wanted.route.targets) > 1 else "only"
            if not wanted.counting:
                tier = upstream.tier
                if upstream.served > tier.turn:
                    tier.turn = upstream.served
                upstream.served += upstream.share
        if upstream.health.hampered:
            upstream.health.request_started()
        upstream.in_flight += 1
        upstream.requests += 1
        return Lease(target, how, held)

    # --- the queue ---

    def ready(self, wanted: RoutingRequest, now: float) -> float:
        """The moment from which on a request may find a place; `inf`: nobody knows one."""
        moments = [
            max(
                target.upstream.health.ready(target.name, now, wanted.counting),
                room_at(target.upstream, wanted, now, self._ledger),
            )
            for target in wanted.route.targets
            if target.upstream not in wanted.tried
        ]
        return min(moments, default=float("inf"))

    def wake(self) -> None:
        """Something has changed: have those who wait looked at, on the loop's next turn."""
        if self._waiting and not self._woken:
            self._woken = True
            self._loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._woken = False
        self._serve(time.time())

    def _tick(self) -> None:
        if not self._waiting:
            return
        now = time.time()
        self._serve(now)
        late = [one for line in self._queue.values() for one in line if one.until <= now]
        for waiting in late:
            self._forget(waiting)
            ready = self.ready(waiting.wanted, now)
            waiting.lease.set_exception(_unavailable(waiting.wanted, ready, now))

    def _serve(self, now: float) -> None:
        """Give places to those who wait: one to each caller in turn, as long as there are any."""
        progress = True
        while progress:
            progress = False
            for name, line in list(self._queue.items()):
                if not line:  # served meanwhile by one that was served here
                    continue
                lease = self._take(line[0].wanted, now)
                if lease is None:
                    continue
                progress = True
                waiting = line.popleft()
                self._waiting -= 1
                del self._queue[name]
                if line:
                    self._queue[name] = line  # behind all others
                waiting.lease.set_result(lease)

    def _forget(self, waiting: _Waiting) -> None:
        name = _line(waiting.wanted)
        line = self._queue.get(name)
        if line is not None and waiting in line:
            line.remove(waiting)
            self._waiting -= 1
            if not line:
                del self._queue[name]

    # --- for the operator ---

    def view(self) -> list[dict[str, object]]:
        """The state of each upstream, as `relay upstreams --json` shows it."""
        now = time.time()
        total = sum(one.answered for one in self._all) or 1
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
                "left": one.left,
            }
            for one in self._all
        ]

    def _limits(self, upstream: Upstream, now: float) -> list[dict[str, object]]:
        if upstream.limits is None:
            return []
        owner = upstream.ledger_name
        return [
            {"limit": one.name, "left": one.remaining, "reset": rfc3339(one.reset)}
            for one in self._ledger.view(owner, owner, upstream.limits, now)
        ]


def _unavailable(wanted: RoutingRequest, ready: float, now: float) -> RelayError:
    """Every upstream is out; `ready` is when the first one is back."""
    if wanted.counting and ready == float("inf"):  # Claude Code then makes an estimate of its own
        return RelayError(NOT_FOUND, "No upstream for this model counts tokens.")
    if ready <= now:
        return RelayError(
            OVERLOADED,
            "All upstreams for this model are busy. Try again in a moment.",
            headers=((b"retry-after", b"2"),),
        )
    if ready == float("inf"):
        return RelayError(OVERLOADED, "No upstream can serve this model now. Try again later.")
    seconds = max(1, int(ready - now + 0.999))
    headers: tuple[Header, ...] = ((b"retry-after", b"%d" % seconds),)
    if seconds > _RETRY_WITHIN_SECONDS:
        headers += (_NO_RETRY,)
    return RelayError(
        OVERLOADED,
        f"No upstream can serve this model before {rfc3339(ready)}.",
        headers=headers,
    )
