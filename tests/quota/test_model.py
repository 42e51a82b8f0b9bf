"""The ledger agrees with a naive model that stores every reservation and sums anew.

The model keeps what each reservation has in each limit as an entry of its own. A smooth
bucket's entries fade in proportion; that is in floats here, so the last thousandth of a token
is nobody's.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.quota.bucket import Bucket, FixedWindow
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit, Plan
from relay.quota.state import LimitCounters, Reservation, Row

from .plans import START, plan
from .rows import balance_of

NEAR = 0.001  # of a token

SMALL = plan(
    {"requests": 4, "per": "5h"},
    {"requests": 9, "per": "7d"},
    {"requests": 5, "per": "1m"},
    {"tokens": 1000, "per": "1m"},
)
LARGE = plan(
    {"requests": 8, "per": "5h"},
    {"requests": 6, "per": "1m"},
    {"tokens": 1500, "per": "1m"},
    {"tokens": 9000, "per": "1d"},
    max_concurrency=3,
)
SHARED = plan(
    {"requests": 5, "per": "5h"},
    {"requests": 12, "per": "7d"},
    {"tokens": 700, "per": "1m"},
    enforce="account",
    billing="per-token",
)
PLANS = (SMALL, LARGE, SHARED)
ACCOUNTS = ("ann", "bob")


@dataclass
class NaiveBucket:
    """The use of each reservation in one limit, by its number."""

    limit: Limit
    entries: dict[int, float] = field(default_factory=dict)
    moment: int = 0  # filled up to here, or the end of the window
    over: bool = True  # the window was seen to have ended
    opened: int = 0
    window_of: dict[int, int] = field(default_factory=dict)

    @property
    def per(self) -> int:
        return self.limit.per * 1000

    @property
    def is_window(self) -> bool:
        return self.limit.refill == "window"

    def used(self, now: int) -> float:
        if self.is_window:
            return 0 if now >= self.moment else sum(self.entries.values())
        total = sum(self.entries.values())
        return max(0.0, total - max(0, now - self.moment) * self.limit.size / self.per)

    def look(self, now: int) -> None:
        """Let time pass as far as `now`."""
        if self.is_window:
            self.over = self.over or now >= self.moment
            return
        if now < self.moment and self.moment - now <= self.per:
            return
        if now > self.moment:
            total = sum(self.entries.values())
            left = self.used(now)
            if left == 0:
                self.entries.clear()
            for number in self.entries:
                self.entries[number] *= left / total
        self.moment = now

    def was_seen(self, moment: int, now: int) -> None:
        """A refused request may have been the first to see the clock where it is now."""
        if self.is_window and moment == now + self.per < self.moment:
            self.moment = moment
        elif not self.is_window and moment == now:
            self.look(now)

    def take(self, number: int, amount: int, now: int) -> None:
        if not self.is_window:
            self.look(now)
        elif now >= self.moment:
            self.entries.clear()
            self.moment = now + self.per
            self.opened += 1
        else:
            self.moment = min(self.moment, now + self.per)
        self.over = False
        self.entries[number] = self.entries.get(number, 0) + amount
        self.window_of[number] = self.opened

    def change(self, number: int, amount: int, taken: int, now: int) -> None:
        """Charge more than was taken, or give back some of it (a negative amount)."""
        if self.is_window:
            if self.window_of.get(number) != self.opened:
                return
            if not self.moment and amount > 0:
                self.moment = now + self.per
                self.over = False
            if now < self.moment:
                self.entries[number] = self.entries.get(number, 0) + amount
                if amount < 0 and not sum(self.entries.values()):
                    self.entries.clear()
                    self.moment = 0
            return
        self.look(now)
        if amount > 0:
            self.entries[number] = self.entries.get(number, 0) + amount
        elif number in self.entries:
            self.entries[number] *= (taken + amount) / taken if taken else 1


@dataclass
class NaiveHold:
    """One reservation, as the model remembers it."""

    number: int
    account: str
    key: str
    real: Reservation
    limits: list[NaiveBucket]
    tokens: int
    cost: int
    prepaid: bool


class LedgerAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = int(START * 1000)
        self.ledger = Ledger()
        self.plans: dict[str, Plan] = dict.fromkeys(ACCOUNTS, SMALL)
        self.keys = {account: [f"{account}1", f"{account}2"] for account in ACCOUNTS}
        self.issued = 2
        self.buckets: dict[tuple[str, str, str, int], NaiveBucket] = {}
        self.holds: list[NaiveHold] = []
        self.count = 0
        self.disk: dict[tuple[str, str, str, int], Row] = {}
        self.credited = dict.fromkeys(ACCOUNTS, 0)
        self.charged = dict.fromkeys(ACCOUNTS, 0)
        self.overshot = dict.fromkeys(ACCOUNTS, 0)
        self.outcomes: Counter[str] = Counter()
        self.stepped_back = False

    # --- the model ---

    @property
    def seconds(self) -> float:
        return (self.now + 0.5) / 1000  # floats are no exact milliseconds

    def owner(self, account: str, key: str) -> tuple[str, str]:
        return ("account", account) if self.plans[account].by_account else ("key", key)

    def model(self, account: str, key: str) -> list[NaiveBucket]:
        """The model's buckets in the order of the plan, adopted if they are new to it."""
        found = []
        for limit in self.plans[account].limits:
            name = (*self.owner(account, key), limit.kind, limit.per)
            bucket = self.buckets.setdefault(name, NaiveBucket(limit))
            if bucket.limit is not limit:
                bucket.look(self.now)
                bucket.limit = limit
            found.append(bucket)
        return found

    def held(self, account: str) -> int:
        return sum(hold.cost for hold in self.holds if hold.account == account and hold.prepaid)

    def pick(self, account: str, which: int) -> str:
        keys = self.keys[account]
        return keys[which % len(keys)]

    # --- events ---

    @rule(
        account=st.sampled_from(ACCOUNTS),
        which=st.integers(0, 1),
        times=st.sampled_from([1, 1, 1, 3, 12]),
        tokens=st.sampled_from([0, 1, 90, 400, 999, 5000]),
        cost=st.sampled_from([0, 10, 250]),
    )
    def reserve(self, account: str, which: int, times: int, tokens: int, cost: int) -> None:
        for _ in range(times):
            self.reserve_once(account, self.pick(account, which), tokens, cost)

    def reserve_once(self, account: str, key: str, tokens: int, cost: int) -> None:
        one = self.plans[account]
        limits = self.model(account, key)
        amounts = [
            1 if bucket.limit.kind == "requests" else min(tokens, bucket.limit.size)
            for bucket in limits
        ]
        over = [
            bucket.used(self.now) + amount - bucket.limit.size
            for bucket, amount in zip(limits, amounts, strict=True)
        ]
        running = sum(hold.key == key and hold.real.open for hold in self.holds)
        money = self.credited[account] - self.charged[account] - self.held(account)
        free = (not one.max_concurrency or running < one.max_concurrency) and (
            not one.prepaid or (money >= cost and money > 0)
        )
        real = self.tried(account, key, tokens, cost)
        if isinstance(real, QuotaExceeded):
            self.outcomes["refused"] += 1
            assert not free or max(over) > -NEAR, "refused, but there was enough"
            if real.limit is not None:
                assert over[one.limits.index(real.limit)] > -NEAR
            for bucket, seen in zip(limits, self.counters(account, key).buckets, strict=True):
                bucket.was_seen(seen.state()[1], self.now)
            return
        self.outcomes["granted"] += 1
        assert free, "admitted, but too many ran or too little money was there"
        assert max(over, default=0) < NEAR, "admitted above a limit"
        self.count += 1
        for bucket, amount in zip(limits, amounts, strict=True):
            bucket.take(self.count, amount, self.now)
        self.holds.append(
            NaiveHold(self.count, account, key, real, limits, tokens, cost, one.prepaid)
        )

    @precondition(lambda self: self.holds)
    @rule(which=st.integers(0, 50), tokens=st.sampled_from([None, 0, 1, 90, 400, 3000]),
          cost=st.sampled_from([None, 0, 7, 400]))  # fmt: skip
    def settle(self, which: int, tokens: int | None, cost: int | None) -> None:
        hold = self.holds.pop(which % len(self.holds))
        assert self.ledger.settle(hold.real, self.seconds, tokens, cost)
        assert not self.ledger.refund(hold.real, self.seconds)
        self.outcomes["settled"] += 1
        for bucket in hold.limits:
            if tokens is not None and bucket.limit.kind == "tokens":
                taken = self.taken_of(hold, bucket)
                self.change(bucket, hold, tokens - taken, taken)
        if hold.prepaid:
            charge = hold.cost if cost is None else cost
            self.charged[hold.account] += charge
            self.overshot[hold.account] += max(0, charge - hold.cost)

    @precondition(lambda self: self.holds)
    @rule(which=st.integers(0, 50))
    def refund(self, which: int) -> None:
        hold = self.holds.pop(which % len(self.holds))
        assert self.ledger.refund(hold.real, self.seconds)
        assert not self.ledger.settle(hold.real, self.seconds, 5, 5)
        self.outcomes["refunded"] += 1
        for bucket in hold.limits:
            if bucket.limit.kind == "tokens":
                taken = self.taken_of(hold, bucket)
                self.change(bucket, hold, -taken, taken)
            elif not bucket.limit.counts_when_refunded:
                self.change(bucket, hold, -1, 1)

    def counters(self, account: str, key: str) -> LimitCounters:
        return self.ledger.key_state(account, key, self.plans[account], self.seconds).counters

    def tried(self, account: str, key: str, tokens: int, cost: int) -> Reservation | QuotaExceeded:
        one = self.plans[account]
        try:
            return self.ledger.reserve(account, key, one, self.seconds, tokens, cost)
        except QuotaExceeded as refused:
            return refused

    @staticmethod
    def taken_of(hold: NaiveHold, bucket: NaiveBucket) -> int:
        """The amount taken then; the limit may have another size by now."""
        return next(amount for real, amount, _ in hold.real.tokens
                    if (real.per, real.refill) == (bucket.per, bucket.limit.refill))  # fmt: skip

    def change(self, bucket: NaiveBucket, hold: NaiveHold, amount: int, taken: int) -> None:
        if amount:
            bucket.change(hold.number, amount, taken, self.now)

    @rule(step=st.sampled_from([1, 20, 999, 7000, 30_000, 60_000, 3_600_000, 18_000_000, 10**9]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(step=st.sampled_from([1, 500, 30_000, 90_000, 7_200_000, 90_000_000, 10**9]))
    def the_clock_steps_back(self, step: int) -> None:
        before = {name: bucket.used(self.now) for name, bucket in self.buckets.items()}
        self.now -= step
        self.stepped_back = True
        for name, bucket in self.buckets.items():
            assert bucket.used(self.now) >= before[name] - NEAR

    @rule(account=st.sampled_from(ACCOUNTS), one=st.sampled_from(PLANS))
    def the_plan_changes(self, account: str, one: Plan) -> None:
        self.plans[account] = one
        for key in self.keys[account]:
            self.ledger.key_state(account, key, one, self.seconds)
            self.model(account, key)

    @rule(account=st.sampled_from(ACCOUNTS), which=st.integers(0, 1))
    def a_key_is_revoked_and_another_made(self, account: str, which: int) -> None:
        self.issued += 1
        self.keys[account][which] = f"{account}{self.issued}"

    @rule(account=st.sampled_from(ACCOUNTS), amount=st.sampled_from([100, 600]))
    def credit(self, account: str, amount: int) -> None:
        self.credited[account] += amount
        self.ledger.fund(account, self.credited[account])

    @rule()
    def changes_are_written(self) -> None:
        self.disk.update({row[:4]: row for row in self.ledger.changes()})

    @rule()
    def full_state_is_swept(self) -> None:
        gone = set(self.ledger.sweep(self.seconds, max_owners=1000))
        self.disk = {
            name: row
            for name, row in self.disk.items()
            if name[:2] not in gone or name[2] == "money"
        }
        self.forget(lambda owner: owner in self.ledger._counters)

    @rule()
    def restart(self) -> None:
        """Reservations end with the process: their quota stays used, their money is free."""
        self.changes_are_written()
        self.ledger = Ledger()
        self.ledger.restore(self.disk.values())
        for account in ACCOUNTS:
            self.ledger.fund(account, self.credited[account])
        self.outcomes["lost"] += len(self.holds)
        self.holds.clear()
        self.forget(lambda owner: any(name[:2] == owner for name in self.disk))
        for name, naive in list(self.buckets.items()):
            row = self.disk.get(name)
            written = NaiveBucket(naive.limit)
            if row is not None:
                used, written.moment = row[6:]
                written.entries = {0: used if naive.is_window else used / naive.per}
            # A refused request moves a bucket's clock, which is not written.
            assert written.used(self.now) >= naive.used(self.now) - NEAR, "a restart granted"
            assert self.stepped_back or written.used(self.now) <= naive.used(self.now) + NEAR
            self.buckets[name] = written
        for account in ACCOUNTS:
            for key in self.keys[account]:
                self.ledger.key_state(account, key, self.plans[account], self.seconds)
                self.model(account, key)

    def forget(self, known: Callable[[tuple[str, str]], bool]) -> None:
        for name in [name for name in self.buckets if not known(name[:2])]:
            assert self.buckets[name].used(self.now) < NEAR, "forgotten, but in use"
            del self.buckets[name]

    # --- invariants ---

    @invariant()
    def every_bucket_is_as_the_model_has_it(self) -> None:
        for name, naive in getattr(self, "buckets", {}).items():
            counters = self.ledger._counters.get(name[:2])
            real = None if counters is None else counters.all_buckets.get(name[2:])
            if real is None:
                assert naive.used(self.now) < NEAR
                continue
            self.same(naive, real)

    def same(self, naive: NaiveBucket, real: Bucket) -> None:
        if isinstance(real, FixedWindow):
            naive.over = naive.over or self.now >= naive.moment
            if naive.over and not real.end:  # a window that is over may be forgotten
                naive.entries.clear()
                naive.moment = 0
            assert real.used_units(self.now) == naive.used(self.now)
            assert real.remaining(self.now) == max(0, naive.limit.size - naive.used(self.now))
            if naive.limit.kind == "requests":
                assert all(entry in (0, 1) for number, entry in naive.entries.items() if number)
        else:
            assert math.isclose(
                real._used_at(self.now) / real.per, naive.used(self.now), abs_tol=NEAR
            )
        assert real.reset_at(self.now) - self.now <= (
            real.per if isinstance(real, FixedWindow) else 2 * real.per + real.used // real.size
        )

    @invariant()
    def what_was_granted_is_used_given_back_or_in_flight(self) -> None:
        if not hasattr(self, "outcomes"):
            return
        ended = sum(self.outcomes[name] for name in ("settled", "refunded", "lost"))
        assert self.outcomes["granted"] == ended + len(self.holds)
        in_flight = sum(counters.in_flight for counters in self.ledger._counters.values())
        assert in_flight == len(self.holds)
        for key_state in self.ledger._key_states.values():
            running = [hold for hold in self.holds if hold.key == key_state.key and hold.real.open]
            assert key_state.in_flight == len(running)

    @invariant()
    def money_is_conserved_and_never_overdrawn_by_more_than_estimates_fell_short(self) -> None:
        for account in ACCOUNTS if hasattr(self, "charged") else ():
            real = self.ledger._balances.get(account)
            balance = self.credited[account] - self.charged[account]
            assert balance_of(self.ledger, account) == (balance if real else 0)
            assert real is None or real.held == self.held(account)
            assert balance - self.held(account) >= -self.overshot[account]


TestLedgerAgainstModel = pytest.mark.thorough(LedgerAgainstModel.TestCase)
TestLedgerAgainstModel.settings = settings(stateful_step_count=50)
