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
from relay.quota.bucket import Bucket, Mark, make
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
        self._holders: dict[str, KeyState] = {}
        self._meters: dict[tuple[str, str], LimitCounters] = {}
        self._purses: dict[str, Balance] = {}
        self._changed: list[LimitCounters | Balance] = []
        self._to_sweep: list[LimitCounters] = []

    # --- one request ---

    def holder(self, account: str, key: str, plan: Plan, now: float) -> KeyState:
        """What a key has, to tell it in headers."""
        holder = self._holders.get(key)
        if holder is None or holder.plan is not plan or holder.meter.plan is not plan:
            holder = self._place(account, key, plan, int(now * 1000))
        return holder

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        """Admit a request that may use so many tokens and cost so many micro-dollars.

        Raises:
            QuotaExceeded: it is not admitted, and nothing was taken.
        """
        moment = int(now * 1000)
        holder = self._holders.get(key)
        if holder is None or holder.plan is not plan or holder.meter.plan is not plan:
            holder = self._place(account, key, plan, moment)
        meter = holder.meter
        purse = holder.purse
        if (0 < plan.max_concurrency <= holder.running) or (
            purse is not None and not purse.covers(cost)
        ):
            raise self._refusal(holder, moment, tokens, cost)
        amounts: list[tuple[Bucket, int, Mark]] = []
        for bucket in meter.requests:
            if not bucket.take(1, moment):
                raise self._taken_back(holder, moment, tokens, cost, bucket)
        for bucket in meter.tokens:
            amount = tokens if tokens < bucket.size else bucket.size
            if not bucket.take(amount, moment):
                raise self._taken_back(holder, moment, tokens, cost, bucket)
            amounts.append((bucket, amount, bucket.mark))
        if purse is not None:
            purse.held += cost
        holder.running += 1
        meter.in_flight += 1
        if not meter.changed:
            meter.changed = True
            self._changed.append(meter)
        returning = meter.returning
        marks = [bucket.mark for bucket in returning]
        return Reservation(holder, meter, returning, marks, amounts, purse, cost)

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
        for bucket, mark in zip(reservation.returning, reservation.marks, strict=True):
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
        counts = self.holder(account, key, plan, now).counts
        moment = int(now * 1000)
        if not counts.take(1, moment):
            wait = counts.ready(1, moment) - moment
            raise refusal.too_much_counting(max(1, -(-wait // 1000)))

    def ready_at(self, account: str, key: str, plan: Plan, now: float, tokens: int) -> float:
        """When all limits have room for one request of so many tokens, epoch seconds.

        `now` itself if they have room already. Takes nothing.
        """
        counters = self.holder(account, key, plan, now).meter
        moment = ready = int(now * 1000)
        for bucket in counters.requests:
            ready = max(ready, bucket.ready(1, moment))
        for bucket in counters.tokens:
            ready = max(ready, bucket.ready(min(tokens, bucket.size), moment))
        return ready / 1000 if ready > moment else now

    def view(self, account: str, key: str, plan: Plan, now: float) -> list[LimitView]:
        """Each limit of the plan, in its order. Takes nothing."""
        counters = self.holder(account, key, plan, now).meter
        moment = int(now * 1000)
        views = []
        for limit, bucket in zip(plan.limits, counters.buckets, strict=True):
            remaining, reset = bucket.tell(moment)
            views.append(LimitView(limit.name, remaining, reset / 1000))
        return views

    def _end(self, reservation: Reservation, cost: int) -> None:
        reservation.open = False
        meter = reservation.meter
        meter.in_flight -= 1
        self._note(meter)
        reservation.holder.running -= 1
        purse = reservation.purse
        if purse is not None:
            purse.held -= reservation.cost
            if cost:
                purse.charged += cost
                self._note(purse)

    def _note(self, state: LimitCounters | Balance) -> None:
        if not state.changed:
            state.changed = True
            self._changed.append(state)

    # --- refusing ---

    def _taken_back(
        self, holder: KeyState, now: int, tokens: int, cost: int, stopped: Bucket
    ) -> QuotaExceeded:
        """Undo what was taken before one bucket had too little, and say so."""
        meter = holder.meter
        for bucket in meter.requests:
            if bucket is stopped:
                break
            bucket.give_back(1, bucket.mark, now)
        else:
            for bucket in meter.tokens:
                if bucket is stopped:
                    break
                bucket.give_back(min(tokens, bucket.size), bucket.mark, now)
        return self._refusal(holder, now, tokens, cost)

    def _refusal(self, holder: KeyState, now: int, tokens: int, cost: int) -> QuotaExceeded:
        """What to tell, of all that is in the way: what ends last, and money never ends."""
        plan, purse = holder.plan, holder.purse
        if purse is not None and not purse.covers(cost) and purse.balance < max(cost, 1):
            return refusal.unpaid(purse, cost)
        last = None
        until = now
        for limit, bucket in zip(plan.limits, holder.meter.buckets, strict=True):
            amount = 1 if limit.kind == "requests" else min(tokens, limit.size)
            ready = bucket.ready(amount, now)
            if ready > until:
                last, until = limit, ready
        if last is not None:
            return refusal.limit_reached(plan, last, until, now)
        if purse is not None and not purse.covers(cost):
            return refusal.unpaid(purse, cost)
        return refusal.too_many_at_once(plan)

    # --- who there is ---

    def _place(self, account: str, key: str, plan: Plan, now: int) -> KeyState:
        """The holder of a key, new or under a plan that is new to it."""
        meter = self._meter(*(("account", account) if plan.by_account else ("key", key)))
        if meter.plan is not plan:
            if meter.states:
                self._note(meter)
            meter.adopt(plan, now)
        purse = self._purse(account) if plan.prepaid else None
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = KeyState(account, key, plan, meter, purse)
        else:
            holder.meter.holders.discard(key)
            holder.plan, holder.meter, holder.purse = plan, meter, purse
        meter.holders.add(key)
        return holder

    def _meter(self, scope: str, owner: str) -> LimitCounters:
        meter = self._meters.get((scope, owner))
        if meter is None:
            meter = self._meters[scope, owner] = LimitCounters(scope, owner)
        return meter

    def _purse(self, account: str) -> Balance:
        purse = self._purses.get(account)
        if purse is None:
            purse = self._purses[account] = Balance(account)
        return purse

    def fund(self, account: str, credited: int) -> None:
        """All that was ever paid in for an account, in micro-dollars; not what is new of it."""
        self._purse(account).credited = credited

    def balance(self, account: str) -> int:
        """What an account has left, requests in flight not counted."""
        purse = self._purses.get(account)
        return 0 if purse is None else purse.balance

    def sweep(self, now: float, most: int = 200) -> list[tuple[str, str]]:
        """Look at so many owners, and forget those whose limits are all whole again.

        Returns scope and owner of the forgotten, whose rows may go as well. Call it now and
        then. What has not been asked for by `changes` is kept until it is.
        """
        forgotten = []
        moment = int(now * 1000)
        if not self._to_sweep:
            self._to_sweep = list(self._meters.values())
        for _ in range(min(most, len(self._to_sweep))):
            meter = self._to_sweep.pop()
            if meter.idle(moment) and not any(
                self._holders[key].busy(moment) for key in meter.holders
            ):
                for key in meter.holders:
                    del self._holders[key]
                del self._meters[meter.scope, meter.owner]
                forgotten.append((meter.scope, meter.owner))
        return forgotten

    # --- what outlasts the process ---

    def changes(self) -> list[Row]:
        """The rows of all that has changed since this was last asked.

        What is in flight is in them as if it had used its estimate, but money, which is only
        charged at the end.
        """
        changed, self._changed = self._changed, []
        rows: list[Row] = []
        for state in changed:
            state.changed = False
            rows.extend(state.rows())
        return rows

    def rows(self) -> list[Row]:
        """The rows of everything, for when a change could not be written."""
        states: list[LimitCounters | Balance] = [*self._meters.values(), *self._purses.values()]
        return [row for state in states for row in state.rows()]

    def restore(self, rows: Iterable[Row]) -> None:
        """Take over rows of an earlier process, before anything is reserved."""
        for scope, owner, kind, per, refill, size, used, moment in rows:
            if kind == _MONEY:
                self._purse(owner).charged = used
            else:
                bucket = make(refill, size, per * 1000, used, moment)
                self._meter(scope, owner).states[kind, per] = bucket
