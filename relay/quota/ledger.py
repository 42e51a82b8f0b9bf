"""Decides which requests are admitted, in one step: reserve, then settle or refund.

The ledger keeps all state in memory and never waits, so no other request comes between the check of
a limit and the reservation. Must not know requests or the database: `changes` hands state out, and
`restore` takes it back.

- A reservation takes from every limit, or from none.
- `settle` replaces the estimate by the use that the upstream reported. A request that was
  refused, failed or never sent costs nothing (`refund`), except in limits of up to an hour.
- `hold_more` holds more of a balance, for a request that may cost more than its estimate.
- `reserve` takes the estimated tokens, at most a limit's size, and `settle` corrects them, which
  can put a limit into debt. Concurrent requests cannot overdraw a balance. A request that costs
  more than was held for it can, by the difference.
- `check` decides, before a request is read, whether any request could be admitted now. A small
  request may be read without it, unless its counters say `must_check`. A request that is refused
  unadmitted is counted by `count_refusal` in the limits of up to an hour.
- State belongs to a key or, if the plan says so, to an account, and follows a change of plan.
  A plan that moves the limits from key to account, or back, uses the state of that owner.
- A plan that changes while the relay runs is superseded by another (`supersede`). Its limits go on
  with their use, also for requests that still come with the earlier plan.
- A revoked key needs no call: `sweep` deletes state whose limits are full again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import Final

from relay.quota import exceeded
from relay.quota.bucket import Bucket, Mark
from relay.quota.further import FurtherReservation, take_further
from relay.quota.holdings import Holdings, Use
from relay.quota.plans import Plan
from relay.quota.state import Balance, KeyState, LimitCounters, Reservation

_MAX_SHOWN_KEYS: Final = 2000


@dataclass(frozen=True, slots=True)
class LimitView:
    """One limit as it stands; `reset` is when it is full again, epoch seconds."""

    name: str
    remaining: int
    reset: float


class Ledger(Holdings):
    """The limits and balances of all keys. `now` is the present moment, epoch seconds."""

    # --- one request ---

    def key_state(self, account: str, key: str, plan: Plan, now: float) -> KeyState:
        """The state of a key under a plan, created where there is none."""
        key_state = self._key_states.get(key)
        if key_state is None or key_state.plan is not plan or key_state.counters.plan is not plan:
            key_state = self._bind_key(account, key, plan, int(now * 1000))
        return key_state

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        """Admit a request estimated at so many tokens and micro-dollars.

        Raises:
            QuotaExceeded: it is not admitted, and nothing was taken.
        """
        moment = int(now * 1000)
        key_state = self._key_states.get(key)
        if key_state is None or key_state.plan is not plan or key_state.counters.plan is not plan:
            key_state = self._bind_key(account, key, plan, moment)
            # An earlier plan pays as it did when the request began: its price is known by it.
            balance = self.balance(account) if plan.prepaid else None
        else:
            balance = key_state.balance
        counters = key_state.counters
        if (0 < plan.max_concurrency <= key_state.in_flight) or (
            balance is not None and not balance.covers(cost)
        ):
            counters.must_check = True
            raise exceeded.obstacle_error(key_state, moment, tokens, cost)
        amounts: list[tuple[Bucket, int, Mark]] = []
        for bucket in counters.request_buckets:
            if not bucket.take(1, moment):
                _give_back_before(bucket, counters, tokens, moment)
                counters.must_check = True
                raise exceeded.obstacle_error(key_state, moment, tokens, cost)
        for bucket in counters.token_buckets:
            amount = tokens if tokens < bucket.size else bucket.size
            if not bucket.take(amount, moment):
                _give_back_before(bucket, counters, tokens, moment)
                counters.must_check = True
                raise exceeded.obstacle_error(key_state, moment, tokens, cost)
            amounts.append((bucket, amount, bucket.mark))
        further: list[FurtherReservation] | None = None
        if key_state.further:
            further = take_further(key_state, moment, tokens, cost)
            if further is None:
                _give_back_before(None, counters, tokens, moment)
                counters.must_check = True
                raise exceeded.obstacle_error(key_state, moment, tokens, cost)
        if balance is not None:
            balance.held += cost
        for one in further or ():
            self.mark_changed(one.counters)
        key_state.in_flight += 1
        counters.in_flight += 1
        if not counters.dirty:
            counters.dirty = True
            self._dirty.append(counters)
        requests: list[tuple[Bucket, Mark]] = []
        for bucket in counters.refundable:
            requests.append((bucket, bucket.mark))
            if bucket.used >= bucket.capacity:
                counters.must_check = True
        reservation = Reservation(key_state, counters, requests, amounts, balance, cost)
        if further is not None:
            reservation.further = further
        return reservation

    def hold_more(self, reservation: Reservation, cost: int) -> None:
        """Hold `cost` micro-dollars in all, for a request that may cost more than its estimate.

        If the balance has less left, hold all of it; then it admits no other request meanwhile.
        """
        balance = reservation.balance
        if balance is not None and cost > reservation.cost:
            left = balance.credited - balance.charged - balance.held
            more = min(cost - reservation.cost, max(0, left))
            balance.held += more
            reservation.cost += more

    def check(
        self, account: str, key: str, plan: Plan, now: float, *, counting: bool = False
    ) -> None:
        """Check that the smallest possible request could be admitted now. Takes nothing.

        `counting`: the request only counts tokens. Then only the request limits of up to an hour
        apply, which count refused requests too, and the limit on counting.

        Raises:
            QuotaExceeded: `reserve` would refuse even a request of no tokens and no cost; with
                `counting`, one of those limits has no room.
        """
        key_state = self._key_states.get(key)
        moment = int(now * 1000)
        if key_state is None or key_state.plan is not plan or key_state.counters.plan is not plan:
            key_state = self._bind_key(account, key, plan, moment)
        counters = key_state.counters
        if counting:
            for bucket in counters.short_buckets:
                if not bucket.has_room(1, moment):
                    raise exceeded.short_limit_error(key_state, moment)
            self._check_counting(key_state, moment)
            return
        balance = key_state.balance
        if (0 < plan.max_concurrency <= key_state.in_flight) or (
            balance is not None and not balance.covers(0)
        ):
            raise exceeded.obstacle_error(key_state, moment, 0, 0)
        for bucket in counters.request_buckets:
            if not bucket.has_room(1, moment):
                raise exceeded.obstacle_error(key_state, moment, 0, 0)
        for bucket in counters.token_buckets:
            if not bucket.has_room(0, moment):
                raise exceeded.obstacle_error(key_state, moment, 0, 0)
        if key_state.further:
            exceeded.check_further(key_state, moment)
        counters.must_check = False

    def count_refusal(self, key_state: KeyState, now: float) -> None:
        """Count a request that was refused before its admission, as far as the limits have room."""
        moment = int(now * 1000)
        counters = key_state.counters
        counters.must_check = True
        taken = False
        for bucket in counters.short_buckets:
            taken = bucket.take(1, moment) or taken
        if taken:
            self.mark_changed(counters)

    def settle(
        self,
        reservation: Reservation,
        now: float,
        tokens: int | None = None,
        cost: int | None = None,
    ) -> bool:
        """Close a reservation with its actual use; None keeps the estimate.

        Returns False if the reservation was closed before.
        """
        if not reservation.open:
            return False
        if self.on_close is not None:
            self.on_close(reservation, (tokens, cost))
        if tokens is not None:
            moment = int(now * 1000)
            for bucket, amount, mark in reservation.tokens:
                if tokens < amount:
                    bucket.give_back(amount - tokens, mark, moment)
                elif tokens > amount:
                    bucket.charge(tokens - amount, mark, moment)
        for further in reservation.further:
            further.settle(int(now * 1000), tokens, cost)
            self.mark_changed(further.counters)
        self._close(reservation, reservation.cost if cost is None else cost)
        return True

    def refund(self, reservation: Reservation, now: float) -> bool:
        """Close a reservation that used nothing; returns as `settle` does."""
        if not reservation.open:
            return False
        if self.on_close is not None:
            self.on_close(reservation, None)
        moment = int(now * 1000)
        for bucket, mark in reservation.requests:
            bucket.give_back(1, mark, moment)
        for bucket, amount, mark in reservation.tokens:
            if amount:
                bucket.give_back(amount, mark, moment)
        for further in reservation.further:
            further.refund(moment)
            self.mark_changed(further.counters)
        self._close(reservation, 0)
        return True

    def end_leases(self, reservation: Reservation, use: Use) -> None:
        """Settle what a request of an older process holds in leases of this one; `quota.transfer`
        closes the rest. Here there are no leases."""

    def lend(self, reservation: Reservation) -> None:
        """A reservation was made ahead for a worker; `end_loan` follows. Its amounts in leases are
        no use yet, and can be recalled. Here there are no leases."""

    def end_loan(self, reservation: Reservation) -> None:
        """A request uses it now, or nobody will."""

    def give_up(self, reservation: Reservation, now: float) -> bool:
        """Close a reservation that was made ahead, and that no request has used. It leaves its mark
        in limits of up to an hour, which its owner takes off; returns as `settle` does."""
        return self.refund(reservation, now)

    def admit_count(self, account: str, key: str, plan: Plan, now: float) -> None:
        """Admit a request that only counts tokens: free, but limited per minute.

        Raises:
            QuotaExceeded: the key counts too often.
        """
        key_state = self.key_state(account, key, plan, now)
        moment = int(now * 1000)
        self._check_counting(key_state, moment)
        key_state.counting_bucket.take(1, moment)

    def _check_counting(self, key_state: KeyState, now: int) -> None:
        bucket = key_state.counting_bucket
        if not bucket.has_room(1, now):
            wait = bucket.ready_at(1, now) - now
            raise exceeded.counting_error(max(1, -(-wait // 1000)))

    def ready_at(self, account: str, key: str, plan: Plan, now: float, tokens: int) -> float:
        """When all limits have room for one request of so many tokens, epoch seconds.

        `now` itself if they have room already. Takes nothing.
        """
        counters = self.key_state(account, key, plan, now).counters
        moment = ready = int(now * 1000)
        for bucket in counters.request_buckets:
            ready = max(ready, bucket.ready_at(1, moment))
        for bucket in counters.token_buckets:
            ready = max(ready, bucket.ready_at(min(tokens, bucket.size), moment))
        return ready / 1000 if ready > moment else now

    def view(self, account: str, key: str, plan: Plan, now: float) -> list[LimitView]:
        """Each limit of the plan, in its order. Takes nothing."""
        key_state = self.key_state(account, key, plan, now)
        moment = int(now * 1000)
        views = []
        for limit, bucket in zip(key_state.plan.limits, key_state.counters.buckets, strict=True):
            remaining, reset = bucket.remaining_and_reset(moment)
            views.append(LimitView(limit.name, remaining, reset / 1000))
        return views

    async def refresh(
        self, owners: Sequence[tuple[Plan, str]], now: float, account: str = ""
    ) -> None:
        """Let the limits of these owners, each an account or a key as its plan says, and the
        balance of the account stand as all machines know them, for a person who asks. Read them in
        the same step of the loop. Never for a request of a model. Here all is known."""

    def amount(self, balance: Balance) -> int:
        """What an account has left, in micro-dollars; what is held for requests is in it."""
        return balance.amount

    def tightest(self, now: float, count: int) -> list[tuple[KeyState, LimitView, float]]:
        """The keys with the highest used share of a limit, each with that limit and share.

        At most `_MAX_SHOWN_KEYS` keys are looked at, so that it takes a few milliseconds.
        """
        moment = int(now * 1000)
        found: list[tuple[KeyState, LimitView, float]] = []
        for key_state in islice(self._key_states.values(), _MAX_SHOWN_KEYS):
            for limit, bucket in zip(
                key_state.plan.limits, key_state.counters.buckets, strict=False
            ):
                remaining, reset = bucket.remaining_and_reset(moment)
                share = 1 - remaining / bucket.size
                if share > 0:
                    found.append((key_state, LimitView(limit.name, remaining, reset / 1000), share))
        return nlargest(count, found, key=itemgetter(2))

    def _close(self, reservation: Reservation, cost: int) -> None:
        reservation.open = False
        counters = reservation.counters
        counters.in_flight -= 1
        if not counters.dirty:
            counters.dirty = True
            self._dirty.append(counters)
        reservation.key_state.in_flight -= 1
        balance = reservation.balance
        if balance is not None:
            balance.held -= reservation.cost
            if cost:
                balance.charged += cost
                self.mark_changed(balance)


def _give_back_before(stop: Bucket | None, counters: LimitCounters, tokens: int, now: int) -> None:
    """Undo what `reserve` took from the buckets that come before `stop`; None: from all."""
    for bucket in counters.request_buckets:
        if bucket is stop:
            return
        bucket.give_back(1, bucket.mark, now)
    for bucket in counters.token_buckets:
        if bucket is stop:
            return
        bucket.give_back(min(tokens, bucket.size), bucket.mark, now)
