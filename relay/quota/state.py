"""Holds the state of keys, of the limits they share and of accounts' money.

A `KeyState` is a key. Its `LimitCounters` has the buckets of its plan's limits: its own, or
those that all keys of the account share. Its `Balance` is the account's money. Must not know
what is admitted, or in which order: that is decided in `ledger`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from relay.quota.bucket import (
    Bucket,
    FixedWindow,
    Mark,
    TokenBucket,
    convert_bucket,
    new_bucket,
)
from relay.quota.plans import COUNTS_PER_MINUTE, MINUTE, Limit, Plan

if TYPE_CHECKING:
    from relay.quota.further import FurtherReservation

# scope ("key" or "account"), owner, kind, per (seconds), refill, size, used, moment (ms).
Row: TypeAlias = tuple[str, str, str, int, str, int, int, int]

# Begins the key of an upstream's own limits; ids of other keys have no space.
UPSTREAM: Final = "upstream "
BONUS: Final = "bonus:"  # begins the kind of a row with a bonus: its size, and the windows left
_NEVER: Final = 2**62


class LimitCounters:
    """The buckets of one owner, a key or an account, under its present plan.

    A bucket is identified by its kind and its period. Under another plan it goes on with that
    plan's size and keeps its use. A bucket without a limit in the plan is kept, as a later
    plan may have that limit again.
    """

    __slots__ = (
        "all_buckets",
        "bonuses",
        "buckets",
        "dirty",
        "five_hours",
        "in_flight",
        "keys",
        "lent",
        "must_check",
        "owner",
        "plan",
        "primary",
        "refundable",
        "request_buckets",
        "request_pace",
        "scope",
        "secondary",
        "short_buckets",
        "token_buckets",
        "token_pace",
        "until",
        "week",
    )

    def __init__(self, scope: str, owner: str) -> None:
        self.scope = scope
        self.owner = owner
        self.plan: Plan | None = None
        self.all_buckets: dict[tuple[str, int], Bucket] = {}  # by kind and period (seconds)
        self.bonuses: set[tuple[str, int]] = set()  # of these that have, or had, a bonus
        self.until = 0  # no window outlasts this moment (ms); 0: there is none
        self.keys: set[str] = set()  # the keys that draw from these buckets
        self.in_flight = 0
        self.must_check = False  # a request was refused, or took the last of a window
        self.dirty = False  # changed since `Ledger.changes` last returned its rows
        # The use by reservations for requests that have not come, in the units of each bucket, and
        # the round that it belongs to. A crash makes such a reservation undone.
        self.lent: dict[tuple[str, int], tuple[int, int]] = {}
        # The buckets of the plan's limits, in their order, and those of each kind.
        self.buckets: list[Bucket] = []
        self.request_buckets: tuple[Bucket, ...] = ()
        self.token_buckets: tuple[Bucket, ...] = ()
        # The request buckets that get a refunded request back, and the others: up to an hour.
        self.refundable: tuple[Bucket, ...] = ()
        self.short_buckets: tuple[Bucket, ...] = ()
        # The buckets shown in header fields: see Plan.
        self.primary: Bucket | None = None
        self.secondary: Bucket | None = None
        self.request_pace: Bucket | None = None
        self.token_pace: Bucket | None = None
        self.five_hours: Bucket | None = None
        self.week: Bucket | None = None

    def adopt(self, plan: Plan, now: int) -> None:
        """Apply a plan's limits from now on.

        Sorts the buckets by use once, so that requests look nothing up.
        """
        self.plan = plan
        buckets = self.buckets = [self._resized_bucket(limit, now) for limit in plan.limits]
        pairs = list(zip(plan.limits, buckets, strict=True))
        requests = [(limit, bucket) for limit, bucket in pairs if limit.kind == "requests"]
        self.request_buckets = tuple([bucket for _, bucket in requests])
        self.token_buckets = tuple([bucket for limit, bucket in pairs if limit.kind == "tokens"])
        self.refundable = tuple(
            [bucket for limit, bucket in requests if not limit.counts_when_refunded]
        )
        self.short_buckets = tuple(
            [bucket for limit, bucket in requests if limit.counts_when_refunded]
        )
        self.primary = _bucket_at(buckets, plan.primary)
        self.secondary = _bucket_at(buckets, plan.secondary)
        self.request_pace = _bucket_at(buckets, plan.request_pace)
        self.token_pace = _bucket_at(buckets, plan.token_pace)
        self.five_hours = _bucket_at(buckets, plan.five_hours)
        self.week = _bucket_at(buckets, plan.week)

    def _resized_bucket(self, limit: Limit, now: int) -> Bucket:
        name = (limit.kind, limit.per)
        bucket = self.all_buckets.get(name)
        if bucket is None:
            bucket = new_bucket(limit.refill, limit.size, limit.per * 1000)
        elif bucket.refill != limit.refill:
            bucket = convert_bucket(bucket, limit.refill, limit.size, now)
        else:
            bucket.resize(limit.size, now)
        if isinstance(bucket, FixedWindow):
            bucket.until = self.until
        self.all_buckets[name] = bucket
        return bucket

    def end_windows_by(self, until: int) -> None:
        """Let no window that opens from now on outlast this moment; 0: any may."""
        self.until = until
        for bucket in self.all_buckets.values():
            if isinstance(bucket, FixedWindow):
                bucket.until = until

    def idle(self, now: int) -> bool:
        """Whether deleting this state would change nothing, in memory or on disk."""
        if self.in_flight or self.dirty:
            return False
        return not any(
            bucket.used_units(now) or (isinstance(bucket, FixedWindow) and bucket.bonus)
            for bucket in self.all_buckets.values()
        )

    def rows(self) -> Iterator[Row]:
        """The state as plain values, one row per bucket. What is lent counts as not used."""
        for (kind, per), bucket in self.all_buckets.items():
            used, moment = bucket.state()
            if self.lent:
                round_, units = self.lent.get((kind, per), (-1, 0))
                if round_ == bucket.mark[0]:
                    used = max(0, used - units)
            yield (self.scope, self.owner, kind, per, bucket.refill, bucket.size, used, moment)
        for kind, per in self.bonuses:
            bucket = self.all_buckets[kind, per]
            if isinstance(bucket, FixedWindow):
                left = bucket.bonus_windows
                # The moment from which the row means nothing.
                until = _NEVER if left else bucket.end
                name = BONUS + kind
                yield (self.scope, self.owner, name, per, "window", bucket.bonus, left, until)

    def lend(self, name: tuple[str, int], round_: int, units: int) -> None:
        """Count a part of a bucket's use in a round as lent; with negative units, no longer."""
        before = self.lent.get(name)
        if before is not None and before[0] == round_:
            units += before[1]
        elif units < 0:
            return
        if units > 0:
            self.lent[name] = (round_, units)
        else:
            self.lent.pop(name, None)

    def restore_bonus(self, kind: str, per: int, amount: int, windows: int) -> None:
        """The bonus of an earlier process, as `rows` gave it."""
        bucket = self.all_buckets.get((kind, per))
        if isinstance(bucket, FixedWindow):
            bucket.restore_bonus(amount, windows)
            self.bonuses.add((kind, per))


def _bucket_at(buckets: list[Bucket], index: int | None) -> Bucket | None:
    return None if index is None else buckets[index]


class Balance:
    """An account's money in micro-dollars.

    `credited` and `charged` only ever grow. Credits come from the database and charges from
    the ledger, so neither side can overwrite the other.
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
        """Credits less charges; negative where a request cost more than was held for it."""
        return self.credited - self.charged

    def covers(self, cost: int) -> bool:
        """Whether a request of this cost can be paid beside those in flight."""
        left = self.credited - self.charged - self.held
        return left >= cost and left > 0

    def rows(self) -> Iterator[Row]:
        """The charges, as plain values."""
        yield ("account", self.account, "money", 0, "charged", 0, self.charged, 0)


class KeyState:
    """A key in use: its plan, its counters, its account's balance and its concurrency.

    `balance` is None where the plan is not prepaid; `counting_bucket` limits the requests
    that only count tokens. `further` are the limits beside the plan's: the key's own, and on the
    account's spending. `counts_money`: one of these counts money.
    """

    __slots__ = (
        "account",
        "balance",
        "counters",
        "counting_bucket",
        "counts_money",
        "further",
        "in_flight",
        "key",
        "plan",
    )

    def __init__(
        self, account: str, key: str, plan: Plan, counters: LimitCounters, balance: Balance | None
    ) -> None:
        self.account = account
        self.key = key
        self.plan = plan
        self.counters = counters
        self.balance = balance
        self.further: tuple[LimitCounters, ...] = ()
        self.counts_money = False
        self.in_flight = 0
        self.counting_bucket = TokenBucket(COUNTS_PER_MINUTE, MINUTE * 1000)

    def busy(self, now: int) -> bool:
        """Whether deleting this state would change something."""
        return self.in_flight > 0 or self.counting_bucket.used_units(now) > 0


class Reservation:
    """Quota held for one request, until it is settled or refunded.

    `requests` has the buckets that get a refunded request back, `tokens` the buckets and
    amounts of the tokens taken; each with the bucket's mark when it was taken. `cost` is in
    micro-dollars, held from `balance`. `further` is held in limits beside the plan's.
    """

    __slots__ = (
        "balance",
        "cost",
        "counters",
        "further",
        "key_state",
        "open",
        "requests",
        "tokens",
    )

    def __init__(
        self,
        key_state: KeyState,
        counters: LimitCounters,
        requests: list[tuple[Bucket, Mark]],
        tokens: list[tuple[Bucket, int, Mark]],
        balance: Balance | None,
        cost: int,
    ) -> None:
        self.key_state = key_state
        self.counters = counters
        self.requests = requests
        self.tokens = tokens
        self.balance = balance
        self.cost = cost
        self.further: Sequence[FurtherReservation] = ()
        self.open = True
