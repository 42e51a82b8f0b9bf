"""Limits that stand beside those of a plan: a key's own, and those on an account's spending.

Decides what a request takes from them, and what it gives back. A request takes from all of them or
from none. Must not know whose they are.
"""

from typing import Final

from relay.quota.bucket import Bucket, FixedWindow, Mark, calendar_period
from relay.quota.plans import Limit
from relay.quota.state import KeyState, LimitCounters

OWN: Final = "own"  # the scope of limits of single keys
SPENDING: Final = "spending"  # that of limits on accounts' spending


class FurtherReservation:
    """What one request holds in the limits of one owner: each limit, its bucket, the amount, and
    the bucket's mark when it was taken."""

    __slots__ = ("counters", "taken")

    def __init__(
        self, counters: LimitCounters, taken: list[tuple[Limit, Bucket, int, Mark]]
    ) -> None:
        self.counters = counters
        self.taken = taken

    def settle(self, now: int, tokens: int | None, cost: int | None) -> None:
        """Replace the estimate by the use. `tokens` None: all estimates stay."""
        for limit, bucket, amount, mark in self.taken:
            used = tokens if limit.kind == "tokens" else cost
            if limit.kind == "requests" or tokens is None or used is None:
                continue
            if used < amount:
                bucket.give_back(amount - used, mark, now)
            elif used > amount:
                bucket.charge(used - amount, mark, now)
        self.counters.in_flight -= 1

    def refund(self, now: int) -> None:
        """Give back all but requests in limits of up to an hour."""
        for limit, bucket, amount, mark in self.taken:
            if not limit.counts_when_refunded:
                bucket.give_back(amount, mark, now)
        self.counters.in_flight -= 1


def take_further(
    key_state: KeyState, now: int, tokens: int, cost: int
) -> list[FurtherReservation] | None:
    """Take from all limits beside the plan's; None: one has no room, and nothing was taken."""
    held: list[FurtherReservation] = []
    for counters in key_state.further:
        plan = counters.plan
        assert plan is not None
        taken: list[tuple[Limit, Bucket, int, Mark]] = []
        held.append(FurtherReservation(counters, taken))
        fits = not 0 < plan.max_concurrency <= key_state.in_flight
        for limit, bucket in zip(plan.limits, counters.buckets, strict=True):
            amount = _amount_of(limit, bucket, tokens, cost)
            fits = fits and bucket.take(amount, now)
            if not fits:
                break
            taken.append((limit, bucket, amount, bucket.mark))
        if not fits:
            for one in held:
                for _, bucket, amount, mark in one.taken:
                    bucket.give_back(amount, mark, now)
            return None
    for one in held:
        one.counters.in_flight += 1
    return held


def _amount_of(limit: Limit, bucket: Bucket, tokens: int, cost: int) -> int:
    """What a request takes from a limit: at most the limit's size."""
    if limit.kind == "requests":
        return 1
    return min(tokens if limit.kind == "tokens" else cost, bucket.size)


def begin_spent(counters: LimitCounters, spent: dict[str, int], now: int) -> bool:
    """Count what was spent before a limit on spending was set: `spent` by calendar unit, in
    micro-dollars. Returns whether anything changed."""
    changed = False
    for bucket in counters.buckets:
        if isinstance(bucket, FixedWindow) and not bucket.end and spent.get(bucket.refill):
            bucket.used = spent[bucket.refill]
            bucket.end = calendar_period(bucket.refill, now)[1]
            changed = True
    return changed
