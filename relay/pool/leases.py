"""The pool: which upstream a request goes to, and who waits while none is free.

`choose` decides, a plain function over the targets of a model's route: lowest priority first,
among those the upstream that the session is with, else the one that is due by its weight and
what it has in flight. `Upstreams` keeps what that needs: leases, the queue, turns.

A request that stays where its session is counts for nobody's turn: what the weights share out
is sessions. (Measured on 200 sessions of 20 turns: the load is then within 5 % of the weights,
and up to a third off them where every request counts.)
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from relay import config
from relay.clock import rfc3339
from relay.errors import NOT_FOUND, OVERLOADED, Header, RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import Waiter
from relay.pool.affinity import Session
from relay.pool.health import Level
from relay.pool.routes import Route, Target
from relay.pool.upstream import Tier, Upstream
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation

_OWED: Final = 8.0  # turns that an upstream is owed at most, or has had too many of
_BUSY: Final = 0.25  # of a turn, for each request in flight: who is slow comes later
_SOON: Final = 60.0  # seconds; who has to wait for longer need not try before
_NO_RETRY: Final[Header] = (b"x-should-retry", b"false")
_FREE: Final = Level.FREE


class RoutingRequest(msgspec.Struct, eq=False):
    """What a request wants of the pool, and what has come of it so far.

    `caller` is a key's id: those who wait are served in turns. `body` and `model` are as they
    came; `prepaid`: what it costs depends on the model's name. `tokens` is about what it will
    use, for the upstreams' own limits. `bound` is the upstream that its session is with, `clean`
    its body without the thinking of others, `tried` are the upstreams that have failed it.
    """

    caller: str
    route: Route
    body: bytes = b""
    model: str = ""
    prepaid: bool = False
    counting: bool = False
    tokens: int = 0
    key: bytes | None = None  # of its session
    session: Session | None = None
    bound: str | None = None
    clean: bytes | None = None
    tried: tuple[Upstream, ...] = ()


class Lease(msgspec.Struct, eq=False):
    """A request's place at an upstream, to be given back with `release`. `how` it was chosen."""

    target: Target
    how: str
    held: Reservation | None  # of the upstream's own limits
    sent: bool = False  # the request has gone out
    open: bool = True


class _Waiting(msgspec.Struct, eq=False):
    """A request that waits for an upstream, until a moment."""

    ask: RoutingRequest
    until: float
    lease: Waiter[Lease]


_Line: TypeAlias = tuple[str, Route, bool, tuple[Upstream, ...]]


def _line(ask: RoutingRequest) -> _Line:
    """Where a request waits: with its caller's others that the same upstreams can serve, so that
    one for which nobody is left keeps none behind it from being served."""
    return (ask.caller, ask.route, ask.counting, ask.tried)


def choose(ask: RoutingRequest, now: float, ledger: Ledger | None = None) -> Target | None:
    """The target that is due, None if none can be used now. `now` is epoch seconds.

    Who was long absent is not owed all that it missed, and who got too much does not pay for it
    for ever: `_OWED` bounds both.
    """
    best: Target | None = None
    best_level, best_priority, best_score = Level.OUT, 0, 0.0
    bound, tried = ask.bound, ask.tried
    for target in ask.route.targets:  # by priority
        upstream = target.upstream
        priority = upstream.priority
        if best_level is _FREE and priority > best_priority and bound is None:
            break
        level = _FREE
        if upstream.health.hampered:
            level = upstream.health.level(target.name, now, ask.counting)
            if level is Level.OUT:
                continue
        if 0 < upstream.max_concurrency <= upstream.in_flight or upstream in tried:
            continue
        if upstream.limits is not None and _room_at(upstream, ask, now, ledger) > now:
            continue
        if level is _FREE and upstream.name == bound:
            return target
        share, turn = upstream.share, upstream.tier.turn
        owed = _OWED * share
        served = upstream.served
        if served < turn - owed:
            served = upstream.served = turn - owed
        elif served > turn + owed:
            served = upstream.served = turn + owed
        score = served + upstream.in_flight * share * _BUSY
        if (
            best is None
            or level < best_level
            or (level is best_level and priority == best_priority and score < best_score)
        ):
            best, best_level, best_priority, best_score = target, level, priority, score
    return best


def passed_over(
    ask: RoutingRequest, chosen: Target | None, now: float, ledger: Ledger | None = None
) -> str:
    """Which upstreams could not be chosen in place of this one, and why: for the log. Those
    that have failed the request are told of elsewhere."""
    reasons = []
    for target in ask.route.targets:
        upstream = target.upstream
        if chosen is not None and upstream.priority > chosen.upstream.priority:
            break
        if target is chosen or upstream in ask.tried:
            continue
        if upstream.health.hampered and (why := upstream.health.why(target.name, now)):
            reasons.append(f"{upstream.name}: {why}")
        elif 0 < upstream.max_concurrency <= upstream.in_flight:
            reasons.append(f"{upstream.name}: has {upstream.in_flight} in flight")
        elif upstream.limits is not None and ((room := _room_at(upstream, ask, now, ledger)) > now):
            reasons.append(f"{upstream.name}: its own limits are used up until {rfc3339(room)}")
    return "; ".join(reasons)


def _room_at(upstream: Upstream, ask: RoutingRequest, now: float, ledger: Ledger | None) -> float:
    """From when on an upstream's own limits have room for a request."""
    if upstream.limits is None or ledger is None or ask.counting:
        return now
    owner = _owner(upstream)
    return ledger.ready_at(owner, owner, upstream.limits, now, ask.tokens)


def _owner(upstream: Upstream) -> str:
    """Who an upstream is in the ledger, beside the keys, whose ids have no space."""
    return f"upstream {upstream.name}"


class Upstreams:
    """All upstreams, who uses them and who waits for them."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        settings: config.PoolSettings,
        ledger: Ledger,
        timers: Deadlines,
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
        timers.each_tick(self._tick)

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

    def passed_over(self, ask: RoutingRequest, chosen: Target | None) -> str:
        """See the function of that name."""
        return passed_over(ask, chosen, time.time(), self._ledger)

    # --- leases ---

    def take(self, ask: RoutingRequest) -> Lease | None:
        """A place at the upstream that is due; None: it must be waited for."""
        now = time.time()
        if self._waiting:
            self._serve(now)  # they came first
        return self._take(ask, now)

    async def wait(self, ask: RoutingRequest) -> Lease:
        """A place, once there is one.

        Raises:
            RelayError: 503, there will be none in time; 404, none counts tokens.
        """
        now = time.time()
        settings = self._settings
        ready = self.ready(ask, now)
        if ready > now + settings.wait or not settings.wait:
            raise _unavailable(ask, ready, now)
        if self._waiting >= settings.queue:
            raise RelayError(
                OVERLOADED,
                "All upstreams are busy and too many requests wait for them. Try again.",
                headers=((b"retry-after", b"1"),),
            )
        waiting = _Waiting(ask, now + settings.wait, Waiter())
        self._queue.setdefault(_line(ask), deque()).append(waiting)
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

    def _take(self, ask: RoutingRequest, now: float) -> Lease | None:
        target = choose(ask, now, self._ledger)
        if target is None:
            return None
        upstream = target.upstream
        held = None
        if upstream.limits is not None and not ask.counting:
            owner = _owner(upstream)
            try:
                held = self._ledger.reserve(owner, owner, upstream.limits, now, ask.tokens)
            except QuotaExceeded:
                return None
        how = "session"
        if upstream.name != ask.bound:  # (counting tokens takes nobody's turn)
            how = "turn" if len(ask.route.targets) > 1 else "only"
            if not ask.counting:
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

    def ready(self, ask: RoutingRequest, now: float) -> float:
        """The moment from which on a request may find a place; `inf`: nobody knows one."""
        moments = [
            max(
                target.upstream.health.ready(target.name, now, ask.counting),
                _room_at(target.upstream, ask, now, self._ledger),
            )
            for target in ask.route.targets
            if target.upstream not in ask.tried
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
            ready = self.ready(waiting.ask, now)
            waiting.lease.set_exception(_unavailable(waiting.ask, ready, now))

    def _serve(self, now: float) -> None:
        """Give places to those who wait: one to each caller in turn, as long as there are any."""
        progress = True
        while progress:
            progress = False
            for name, line in list(self._queue.items()):
                if not line:  # served meanwhile by one that was served here
                    continue
                lease = self._take(line[0].ask, now)
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
        name = _line(waiting.ask)
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
        owner = _owner(upstream)
        return [
            {"limit": limit.name, "left": limit.remaining, "reset": rfc3339(limit.reset)}
            for limit in self._ledger.view(owner, owner, upstream.limits, now)
        ]


def _unavailable(ask: RoutingRequest, ready: float, now: float) -> RelayError:
    """Every upstream is out; `ready` is when the first one is back."""
    if ask.counting and ready == float("inf"):  # Claude Code then makes an estimate of its own
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
    if seconds > _SOON:
        headers += (_NO_RETRY,)
    return RelayError(
        OVERLOADED,
        f"No upstream can serve this model before {rfc3339(ready)}.",
        headers=headers,
    )
