"""Who uses what: the state of a key, of the limits it is under, and of an account's money.

A `KeyState` is a key. Its `LimitCounters` has the buckets of its plan's limits: its own, or one
for all
keys of the account. Its `Balance` is the account's balance. Plain state with the few rules that
keep it consistent; what is admitted, and in which order, is decided in `ledger`.
"""

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from relay.quota.bucket import Bucket, Mark, TokenBucket, convert_bucket, new_bucket
from relay.quota.plans import COUNTS_PER_MINUTE, MINUTE, Limit, Plan

# scope ("key" or "account"), owner, kind, per (seconds), refill, size, used, moment (ms).
Row: TypeAlias = tuple[str, str, str, int, str, int, int, int]


class LimitCounters:
    """The buckets of one owner, a key or an account, under its present plan.

    A bucket is known by what it counts and over how long. Under another plan it goes on with
    that plan's size, just as used; one that the plan has no limit for is kept, for a plan that
    has it may come back.
    """

    __slots__ = (
        "all_buckets",
        "buckets",
        "dirty",
        "five_hours",
        "in_flight",
        "keys",
        "owner",
        "plan",
        "primary",
        "refundable",
        "request_buckets",
        "request_pace",
        "scope",
        "secondary",
        "token_buckets",
        "token_pace",
        "told",
        "told_lines",
        "week",
    )

    def __init__(self, scope: str, owner: str) -> None:
        self.scope = scope
        self.owner = owner
        self.plan: Plan | None = None
        self.all_buckets: dict[tuple[str, int], Bucket] = {}
        self.keys: set[str] = set()  # the keys that draw from it
        self.in_flight = 0
        self.dirty = False
        self._resolve(None, [])

    def adopt(self, plan: Plan, now: int) -> None:
        """Be under this plan from now on."""
        self._resolve(plan, [self._bucket(limit, now) for limit in plan.limits])
        self.plan = plan

    def _bucket(self, limit: Limit, now: int) -> Bucket:
        name = (limit.kind, limit.per)
        bucket = self.all_buckets.get(name)
        if bucket is None:
            bucket = new_bucket(limit.refill, limit.size, limit.per * 1000)
        elif bucket.refill != limit.refill:
            bucket = convert_bucket(bucket, limit.refill, limit.size, now)
        else:
            bucket.resize(limit.size, now)
        self.all_buckets[name] = bucket
        return bucket

    def _resolve(self, plan: Plan | None, buckets: list[Bucket]) -> None:
        """Which bucket is for what, so that nothing is looked up per request."""
        limits = plan.limits if plan is not None else ()
        pairs = list(zip(limits, buckets, strict=True))
        self.buckets = buckets
        self.request_buckets = tuple(
            [bucket for limit, bucket in pairs if limit.kind == "requests"]
        )
        self.refundable = tuple(  # of these, where a request that does not count is given back
            [
                bucket
                for limit, bucket in pairs
                if limit.kind == "requests" and not limit.counts_when_refunded
            ]
        )
        self.token_buckets = tuple([bucket for limit, bucket in pairs if limit.kind == "tokens"])

        def shown(group: str) -> Bucket | None:
            index: int | None = getattr(plan, group, None)
            return None if index is None else buckets[index]

        self.primary = shown("primary")
        self.secondary = shown("secondary")
        self.request_pace = shown("request_pace")
        self.token_pace = shown("token_pace")
        self.five_hours = shown("five_hours")
        self.told: object = None  # kept by `headers`: of what state `told_lines` tell
        self.told_lines = b""
        self.week = shown("week")

    def idle(self, now: int) -> bool:
        """Whether forgetting all of it would change nothing, here or on disk."""
        if self.in_flight or self.dirty:
            return False
        return not any(bucket.used_units(now) for bucket in self.all_buckets.values())

    def rows(self) -> Iterator[Row]:
        """The state as plain values, one row a bucket."""
        for (kind, per), bucket in self.all_buckets.items():
            yield (self.scope, self.owner, kind, per, bucket.refill, bucket.size, *bucket.state())


class Balance:
    """An account's money in whole micro-dollars.

    `credited` and `charged` only ever grow, each is told by one side alone (credits come from
    the database, charges arise here), so neither can overwrite the other.
    """

    __slots__ = ("account", "charged", "credited", "dirty", "held")

    def __init__(self, account: str) -> None:
        self.account = account
        self.credited = 0
        self.charged = 0
        self.held = 0  # by requests in flight
        self.dirty = False

    @property
    def amount(self) -> int:
        """What was paid in and not used; below zero where a request cost more than was held."""
        return self.credited - self.charged

    def covers(self, cost: int) -> bool:
        """Whether so much is there that no request in flight may need."""
        left = self.credited - self.charged - self.held
        return left >= cost and left > 0

    def rows(self) -> Iterator[Row]:
        """What was charged, as plain values."""
        yield ("account", self.account, "money", 0, "charged", 0, self.charged, 0)


class KeyState:
    """A key in use: its plan, what it draws from, and how much it is doing at once."""

    __slots__ = ("account", "balance", "counters", "counting_bucket", "in_flight", "key", "plan")

    def __init__(
        self, account: str, key: str, plan: Plan, counters: LimitCounters, balance: Balance | None
    ):
        self.account = account
        self.key = key
        self.plan = plan
        self.counters = counters
        self.balance = balance
        self.in_flight = 0
        self.counting_bucket = TokenBucket(COUNTS_PER_MINUTE, MINUTE * 1000)

    def busy(self, now: int) -> bool:
        """Whether forgetting it would change something."""
        return self.in_flight > 0 or self.counting_bucket.used_units(now) > 0


class Reservation(msgspec.Struct):
    """Quota held for one request, until it is settled or given back."""

    key_state: KeyState
    counters: LimitCounters
    refundable: tuple[Bucket, ...]  # where one that does not count is given back,
    marks: list[Mark]  # and their marks when it was taken
    amounts: list[tuple[Bucket, int, Mark]]  # tokens taken, settled or given back
    balance: Balance | None
    cost: int
    open: bool = True
