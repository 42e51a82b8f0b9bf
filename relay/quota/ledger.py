"""Who may use what, decided in one step: reserve, then settle or refund.

One ledger in memory is the only judge. It never waits, so nothing comes between looking at a
limit and taking from it, however many requests there are at once. It knows neither requests
nor the database: state goes out through `changes` and comes back through `restore`.

- A reservation takes from every limit, or from none.
- What counts at the end is what the upstream says was used (`settle`). A request that was
  refused, failed or never sent costs nothing (`refund`) except in limits of up to an hour.
- Tokens are taken as estimated, at most a whole limit's, and corrected at the end; a limit can
  then be in debt. Money likewise: requests at once cannot overdraw a balance, but one that
  cost more than was held for it can, by just the difference.
- States belong to a key or, under a plan that says so, to an account. They follow a change of
  plan; one that moves the limits from key to account, or back, finds that owner's own.
- A revoked key needs nothing here: what is full again is forgotten by `sweep`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relay.quota import exceeded as refusal
from relay.quota.bucket import Bucket, Mark, new_bucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import Plan
from relay.quota.state import Balance, KeyState, LimitCounters, Reservation, Row

_MONEY: Final = "money"


@dataclass(frozen=True, slots=True)
class LimitView:
    """One limit as it stands; `reset` is when it is full again, epoch seconds."""

    name: str
    remaining: int
    reset: float


class Ledger:
    """What every key has left. `now` is the present moment, epoch seconds."""

    def __init__(self) -> None:
        self._key_states: dict[str, KeyState] = {}
        self._counters: dict[tuple[str, str], LimitCounters] = {}
        self._balances: dict[str, Balance] = {}
        self._dirty: list[LimitCounters | Balance] = []
        self._to_sweep: list[LimitCounters] = []

    # --- one request ---

    def key_state(self, account: str, key: str, plan: Plan, now: float) -> KeyState:
        """What a key has, to tell it in headers."""
        key_state = self._key_states.get(key)
        if key_state is None or key_state.plan is not plan or key_state.counters.plan is not plan:
            key_state = self._place(account, key, plan, int(now * 1000))
        return key_state

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        """Admit a request that may use so many tokens and cost so many micro-dollars.

        Raises:
            QuotaExceeded: it is not admitted, and nothing was taken.
        """
        moment = int(now * 1000)
        key_state = self._key_states.get(key)
        if key_state is None or key_state.plan is not plan or key_state.counters.plan is not plan:
            key_state = self._place(account, key, plan, moment)
        counters = key_state.counters
        balance = key_state.balance
        if (0 < plan.max_concurrency <= key_state.in_flight) or (
            balance is not None and not balance.covers(cost)
        ):
            raise self._refusal(key_state, moment, tokens, cost)
        amounts: list[tuple[Bucket, int, Mark]] = []
        for bucket in counters.request_buckets:
            if not bucket.take(1, moment):
                raise self._taken_back(key_state, moment, tokens, cost, bucket)
        for bucket in counters.token_buckets:
            amount = tokens if tokens < bucket.size else bucket.size
            if not bucket.take(amount, moment):
                raise self._taken_back(key_state, moment, tokens, cost, bucket)
            amounts.append((bucket, amount, bucket.mark))
        if balance is not None:
            balance.held += cost
        key_state.in_flight += 1
        counters.in_flight += 1
        if not counters.dirty:
            counters.dirty = True
            self._dirty.append(counters)
        refundable = counters.refundable
        marks = [bucket.mark for bucket in refundable]
        return Reservation(key_state, counters, refundable, marks, amounts, balance, cost)

    def settle(
        self,
        reservation: Reservation,
        now: float,
        tokens: int | None = None,
        cost: int | None = None,
    ) -> bool:
        """End a reservation by what was used; where that is unknown, the estimate stands.

        Returns whether this call ended it: a reservation ends once, whatever comes later.
        """
        if not reservation.open:
            return False
        if tokens is not None:
            moment = int(now * 1000)
            for bucket, amount, mark in reservation.amounts:
                if tokens < amount:
                    bucket.give_back(amount - tokens, mark, moment)
                elif tokens > amount:
                    bucket.charge(tokens - amount, mark, moment)
        self._end(reservation, reservation.cost if cost is None else cost)
        return True

    def refund(self, reservation: Reservation, now: float) -> bool:
        """End a reservation for which nothing was used; see `settle`."""
        if not reservation.open:
            return False
        moment = int(now * 1000)
        for bucket, mark in zip(reservation.refundable, reservation.marks, strict=True):
            bucket.give_back(1, mark, moment)
        for bucket, amount, mark in reservation.amounts:
            if amount:
                bucket.give_back(amount, mark, moment)
        self._end(reservation, 0)
        return True

    def admit_count(self, account: str, key: str, plan: Plan, now: float) -> None:
        """Admit a request that counts tokens: free, but not at any pace.

        Raises:
            QuotaExceeded: it is one too many.
        """
        counts = self.key_state(account, key, plan, now).counting_bucket
        moment = int(now * 1000)
        if not counts.take(1, moment):
            wait = counts.ready_at(1, moment) - moment
            raise refusal.too_much_counting(max(1, -(-wait // 1000)))

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
        counters = self.key_state(account, key, plan, now).counters
        moment = int(now * 1000)
        views = []
        for limit, bucket in zip(plan.limits, counters.buckets, strict=True):
            remaining, reset = bucket.remaining_and_reset(moment)
            views.append(LimitView(limit.name, remaining, reset / 1000))
        return views

    def _end(self, reservation: Reservation, cost: int) -> None:
        reservation.open = False
        counters = reservation.counters
        counters.in_flight -= 1
        self._mark_dirty(counters)
        reservation.key_state.in_flight -= 1
        balance = reservation.balance
        if balance is not None:
            balance.held -= reservation.cost
            if cost:
                balance.charged += cost
                self._mark_dirty(balance)

    def _mark_dirty(self, state: LimitCounters | Balance) -> None:
        if not state.dirty:
            state.dirty = True
            self._dirty.append(state)

    # --- refusing ---

    def _taken_back(
        self, key_state: KeyState, now: int, tokens: int, cost: int, stopped: Bucket
    ) -> QuotaExceeded:
        """Undo what was taken before one bucket had too little, and say so."""
        counters = key_state.counters
        for bucket in counters.request_buckets:
            if bucket is stopped:
                break
            bucket.give_back(1, bucket.mark, now)
        else:
            for bucket in counters.token_buckets:
                if bucket is stopped:
                    break
                bucket.give_back(min(tokens, bucket.size), bucket.mark, now)
        return self._refusal(key_state, now, tokens, cost)

    def _refusal(self, key_state: KeyState, now: int, tokens: int, cost: int) -> QuotaExceeded:
        """What to tell, of all that is in the way: what ends last, and money never ends."""
        plan, balance = key_state.plan, key_state.balance
        if balance is not None and not balance.covers(cost) and balance.amount < max(cost, 1):
            return refusal.unpaid(balance, cost)
        last = None
        until = now
        for limit, bucket in zip(plan.limits, key_state.counters.buckets, strict=True):
            amount = 1 if limit.kind == "requests" else min(tokens, limit.size)
            ready = bucket.ready_at(amount, now)
            if ready > until:
                last, until = limit, ready
        if last is not None:
            return refusal.limit_reached(plan, last, until, now)
        if balance is not None and not balance.covers(cost):
            return refusal.unpaid(balance, cost)
        return refusal.too_many_at_once(plan)

    # --- who there is ---

    def _place(self, account: str, key: str, plan: Plan, now: int) -> KeyState:
        """The key_state of a key, new or under a plan that is new to it."""
        counters = self._counters_of(*(("account", account) if plan.by_account else ("key", key)))
        if counters.plan is not plan:
            if counters.all_buckets:
                self._mark_dirty(counters)
            counters.adopt(plan, now)
        balance = self._balance_of(account) if plan.prepaid else None
        key_state = self._key_states.get(key)
        if key_state is None:
            key_state = self._key_states[key] = KeyState(account, key, plan, counters, balance)
        else:
            key_state.counters.keys.discard(key)
            key_state.plan, key_state.counters, key_state.balance = plan, counters, balance
        counters.keys.add(key)
        return key_state

    def _counters_of(self, scope: str, owner: str) -> LimitCounters:
        counters = self._counters.get((scope, owner))
        if counters is None:
            counters = self._counters[scope, owner] = LimitCounters(scope, owner)
        return counters

    def _balance_of(self, account: str) -> Balance:
        balance = self._balances.get(account)
        if balance is None:
            balance = self._balances[account] = Balance(account)
        return balance

    def fund(self, account: str, credited: int) -> None:
        """All that was ever paid in for an account, in micro-dollars; not what is new of it."""
        self._balance_of(account).credited = credited

    def balance(self, account: str) -> int:
        """What an account has left, requests in flight not counted."""
        balance = self._balances.get(account)
        return 0 if balance is None else balance.amount

    def sweep(self, now: float, most: int = 200) -> list[tuple[str, str]]:
        """Look at so many owners, and forget those whose limits are all whole again.

        Returns scope and owner of the forgotten, whose rows may go as well. Call it now and
        then. What has not been asked for by `changes` is kept until it is.
        """
        forgotten = []
        moment = int(now * 1000)
        if not self._to_sweep:
            self._to_sweep = list(self._counters.values())
        for _ in range(min(most, len(self._to_sweep))):
            counters = self._to_sweep.pop()
            if counters.idle(moment) and not any(
                self._key_states[key].busy(moment) for key in counters.keys
            ):
                for key in counters.keys:
                    del self._key_states[key]
                del self._counters[counters.scope, counters.owner]
                forgotten.append((counters.scope, counters.owner))
        return forgotten

    # --- what outlasts the process ---

    def changes(self) -> list[Row]:
        """The rows of all that has changed since this was last asked.

        What is in flight is in them as if it had used its estimate, but money, which is only
        charged at the end.
        """
        changed, self._dirty = self._dirty, []
        rows: list[Row] = []
        for state in changed:
            state.dirty = False
            rows.extend(state.rows())
        return rows

    def rows(self) -> list[Row]:
        """The rows of everything, for when a change could not be written."""
        states: list[LimitCounters | Balance] = [*self._counters.values(), *self._balances.values()]
        return [row for state in states for row in state.rows()]

    def restore(self, rows: Iterable[Row]) -> None:
        """Take over rows of an earlier process, before anything is reserved."""
        for scope, owner, kind, per, refill, size, used, moment in rows:
            if kind == _MONEY:
                self._balance_of(owner).charged = used
            else:
                bucket = new_bucket(refill, size, per * 1000, used, moment)
                self._counters_of(scope, owner).all_buckets[kind, per] = bucket
