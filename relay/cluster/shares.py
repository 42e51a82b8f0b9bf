"""The limits of one key as a node shares them, and the rows that keep the use of its leases.

Decides how a limit of a plan becomes a shared one, and which error a refusal is. Must not know when
a request is admitted.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from relay.cluster.waiting import LimitReachedError
from relay.cluster.windows import LeaseUse, NodeWindow, SharedLimit, owner_window_name
from relay.quota import exceeded
from relay.quota.bucket import Bucket, FixedWindow, Mark, TokenBucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.holdings import LEASE
from relay.quota.plans import MINUTE, Limit, Plan
from relay.quota.state import Balance, KeyState, LimitCounters, Row

if TYPE_CHECKING:
    from relay.cluster.limits import SharedLimits

_SAME_MOMENT: Final = 100  # milliseconds: a window's end, as two grants say it
_REFILL: Final = "lease "  # begins the refill of a row, before the epoch


class Parts:
    """The part of a limit that each of several nodes has."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def of(self, size: int) -> int:
        """At least 1."""
        return max(1, size // max(1, self.nodes))

    def divide(self, counters: Iterable[LimitCounters], nodes: int) -> None:
        """Another number of nodes shares the limits."""
        self.nodes = nodes
        moment = int(time.time() * 1000)
        for one in counters:
            if one.plan is None:
                continue
            for limit, bucket in zip(one.plan.limits, one.buckets, strict=True):
                if isinstance(bucket, TokenBucket):
                    bucket.resize(self.of(limit.size), moment)
            one.must_check = True


class NodeCounters(LimitCounters):
    """The buckets of one owner on a node: smooth ones are of its part, or windows."""

    __slots__ = ("_parts",)

    def __init__(self, scope: str, owner: str, parts: Parts) -> None:
        super().__init__(scope, owner)
        self._parts = parts

    def _resized_bucket(self, limit: Limit, now: int) -> Bucket:
        if limit.refill == "smooth":
            if limit.per > MINUTE:
                limit = Limit(limit.kind, limit.size, limit.per, "window")
            else:
                limit = Limit(limit.kind, self._parts.of(limit.size), limit.per, "smooth")
        return super()._resized_bucket(limit, now)


class SharedKey:
    """The limits of one key, sorted by how nodes share them. Made anew when any of them changes.

    `limits` are those in leases; for each, `mirrors` has the window that shows it and `sources` its
    plan and limit, None for the balance. `smooth` are the others, `places` the owner of each: 0 is
    the plan's, then those of `further` in their order.
    """

    __slots__ = (
        "_balance", "_credited", "_further", "_plan", "_until", "account", "balance_only",
        "counters", "key", "limits", "mirrors", "places", "smooth", "sources",
    )  # fmt: skip

    def __init__(self, key_state: KeyState, name: str, now: int) -> None:
        """`name`: of the key among nodes. `now`: epoch ms."""
        self.account = name if name != key_state.key else key_state.account
        self.key = name
        self.counters = key_state.counters
        self._plan = key_state.counters.plan
        self._further = key_state.further
        self._balance = balance = key_state.balance
        self._credited = 0 if balance is None else balance.credited
        self._until = key_state.counters.until
        limits: list[SharedLimit] = []
        self.mirrors: list[FixedWindow | None] = []
        self.sources: list[tuple[Plan, Limit]] = []
        self.smooth: list[tuple[Limit, TokenBucket]] = []
        self.places: list[int] = []
        for place, counters in enumerate((key_state.counters, *key_state.further)):
            plan = counters.plan
            assert plan is not None
            for limit, bucket in zip(plan.limits, counters.buckets, strict=True):
                if isinstance(bucket, TokenBucket):
                    self.smooth.append((limit, bucket))
                    self.places.append(place)
                    continue
                used, end = bucket.state()
                limits.append(
                    SharedLimit(
                        counters.scope,
                        limit.kind,
                        limit.per,
                        limit.size,
                        "window" if limit.refill == "smooth" else limit.refill,
                        counters.until,
                        used if now < end else 0,
                        end,
                    )
                )
                self.mirrors.append(bucket)
                self.sources.append((plan, limit))
        if balance is not None:
            limits.append(_of_balance(balance.credited, balance.charged, now))
            self.mirrors.append(None)
        self.limits = tuple(limits)
        self.balance_only = self.limits[-1:]

    def is_current(self, key_state: KeyState) -> bool:
        """Whether these are still the key's limits."""
        balance = key_state.balance
        return (
            key_state.counters is self.counters
            and self.counters.plan is self._plan
            and key_state.further is self._further
            and self.counters.until == self._until
            and balance is self._balance
            and (balance is None or balance.credited == self._credited)
        )


def _of_balance(credited: int, charged: int, now: int) -> SharedLimit:
    return SharedLimit("account", "money", 0, credited, "window", 0, charged, now + _AGE)


_AGE: Final = 2**51  # milliseconds: for ever


class LeaseRows:
    """The use of leases as rows of the journal: this process's to be written, and an earlier one's.

    A row has the scope `lease`, the window as the owner, the lease as the kind, the epoch in the
    refill, and as the moment the end of the window.
    """

    def __init__(self, limits: "SharedLimits") -> None:
        self._limits = limits
        self._touched: dict[str, NodeWindow] = {}
        self._earlier: list[LeaseUse] = []
        self._over: list[LeaseUse] = []

    def touch(self, window: NodeWindow) -> None:
        """The use of a lease has changed."""
        self._touched[window.name] = window

    def take(self) -> list[Row]:
        """The rows of all leases that changed since the last call."""
        touched, self._touched = self._touched, {}
        over, self._over = self._over, []
        rows: list[Row] = [
            (LEASE, one.window, one.lease, one.per, f"{_REFILL}{one.epoch}", one.size, 0, 1)
            for one in over
        ]
        if not touched:
            return rows
        moment, now = int(time.time() * 1000), self._limits.clock()
        for name, it in touched.items():
            leased = it.leased
            if leased.epoch:
                refill, ends = f"{_REFILL}{leased.epoch}", moment + leased.reset_in(now)
                rows.append((LEASE, name, it.lease, it.per, refill, it.size, leased.spent, ends))
        return rows

    def split(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Keep the rows of leases that an earlier process had; returns the others."""
        now = int(time.time() * 1000)
        for row in rows:
            scope, owner, kind, per, refill, size, used, moment = row
            if scope != LEASE:
                yield row
            elif moment > now:
                epoch = int(refill.removeprefix(_REFILL))
                self._earlier.append(LeaseUse(owner, size, per, kind, epoch, used))

    def report_earlier(self) -> None:
        """Report the leases of an earlier process that has ended."""
        earlier, self._earlier = self._earlier, []
        self._limits.report_earlier(earlier, self._over.append)

    def drop_earlier(self) -> None:
        """The process that has them lives on, and reports them itself."""
        self._over += self._earlier
        self._earlier = []


def smooth_amount(limit: Limit, bucket: Bucket, tokens: int) -> int:
    """The part of a smooth limit that a request takes: at most its size."""
    return 1 if limit.kind == "requests" else min(tokens, bucket.size)


def give_all_back(amounts: list[tuple[Bucket, int, Mark]], now: int) -> None:
    """Undo takes."""
    for bucket, amount, mark in amounts:
        bucket.give_back(amount, mark, now)


def show_window(bucket: FixedWindow, window: NodeWindow, now: int, moment: int) -> None:
    """Let a window stand as the node knows it; `moment` is `now` by the bucket's clock."""
    leased = window.leased
    if not leased.epoch:
        return
    reset_in = leased.reset_in(now)
    if not reset_in:
        bucket.used = bucket.end = 0
        return
    bucket.size = bucket.capacity = leased.size
    bucket.used = max(0, leased.size - leased.remaining(now))
    end = moment + reset_in
    if not -_SAME_MOMENT < bucket.end - end < _SAME_MOMENT:
        bucket.end = end


def shared_windows(counters: LimitCounters, owner: str) -> list[tuple[str, FixedWindow]]:
    """The windows of an owner that nodes share, by name. `owner`: by the name that nodes have."""
    if counters.plan is None:
        return []
    found = []
    for limit, bucket in zip(counters.plan.limits, counters.buckets, strict=True):
        if isinstance(bucket, FixedWindow):
            name = owner_window_name(counters.scope, owner, limit.kind, limit.per)
            found.append((name, bucket))
    return found


def balance_window(account: str) -> str:
    """The name of the window that is an account's balance."""
    return owner_window_name("account", account, "money", 0)


def refusal(
    limits: "SharedLimits", shared: SharedKey, balance: Balance | None,
    refused: tuple[LimitReachedError, int], moment: int,
) -> QuotaExceeded | None:  # fmt: skip
    """The error that one node alone would give; None: the key's plan has changed meanwhile.
    `refused`: the limit that has no room, and the cost of the request; `moment`: ms."""
    error, cost = refused
    place = next(n for n, one in enumerate(shared.limits) if one is error.limit)
    if shared.mirrors[place] is not None:
        plan, limit = shared.sources[place]
        return exceeded.limit_error(plan, limit, moment + error.reset_in, moment)
    if balance is None:
        return None
    state = limits.view(shared.account, shared.key, shared.limits)[place]
    left = Balance(shared.account)
    left.credited = state.remaining + balance.held
    return exceeded.balance_error(left, cost)
