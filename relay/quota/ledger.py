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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from relay.quota import exceeded
from relay.quota.bucket import Bucket, Mark, new_bucket
from relay.quota.plans import Plan
from relay.quota.state import Balance, KeyState, LimitCounters, Reservation, Row

_MONEY: Final = "money"
_MAX_SHOWN_KEYS: Final = 2000

# The use of a reservation that closes: tokens and micro-dollars, see `settle`; None: refunded.
Use: TypeAlias = tuple[int | None, int | None] | None
OnClose: TypeAlias = Callable[[Reservation, Use], None]


@dataclass(frozen=True, slots=True)
class LimitView:
    """One limit as it stands; `reset` is when it is full again, epoch seconds."""

    name: str
    remaining: int
    reset: float


class Ledger:
    """The limits and balances of all keys. `now` is the present moment, epoch seconds."""

    def __init__(self) -> None:
        self._key_states: dict[str, KeyState] = {}
        self._counters: dict[tuple[str, str], LimitCounters] = {}
        self._balances: dict[str, Balance] = {}
        self._dirty: list[LimitCounters | Balance] = []
        self._to_sweep: list[LimitCounters] = []
        # Requests in flight of another process, by key, until the key is in use here.
        self.inherited: dict[str, int] = {}
        # Called with each reservation that closes, once another process has the limits.
        self.on_close: OnClose | None = None
        # Weak: an earlier plan lives as long as the requests that began with it.
        self._successors: WeakKeyDictionary[Plan, Plan] = WeakKeyDictionary()

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
        if balance is not None:
            balance.held += cost
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
        return Reservation(key_state, counters, requests, amounts, balance, cost)

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
        self._close(reservation, 0)
        return True

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
                share = 1 - remaining / limit.size
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

    def mark_changed(self, state: LimitCounters | Balance) -> None:
        """Let `changes` return the rows of this state."""
        if not state.dirty:
            state.dirty = True
            self._dirty.append(state)

    # --- keys and accounts ---

    def _bind_key(self, account: str, key: str, plan: Plan, now: int) -> KeyState:
        """The state of a key that is new, or whose plan is."""
        plan = self._successors.get(plan, plan)
        scope, owner = ("account", account) if plan.by_account else ("key", key)
        counters = self.counters_of(scope, owner)
        if counters.plan is not plan:
            if counters.all_buckets:
                self.mark_changed(counters)
            counters.adopt(plan, now)
        balance = self.balance(account) if plan.prepaid else None
        key_state = self._key_states.get(key)
        if key_state is None:
            key_state = self._key_states[key] = KeyState(account, key, plan, counters, balance)
            key_state.in_flight = self.inherited.pop(key, 0)
        else:
            key_state.counters.keys.discard(key)
            key_state.plan, key_state.counters, key_state.balance = plan, counters, balance
        counters.keys.add(key)
        return key_state

    def supersede(self, successors: dict[Plan, Plan]) -> None:
        """Let each plan stand for another where a request names it. A key that has the earlier
        one keeps its limits until a request names the later one."""
        for earlier, plan in list(self._successors.items()):
            if plan in successors:
                self._successors[earlier] = successors[plan]
        self._successors.update(successors)

    def key_states(self) -> Iterable[KeyState]:
        """All keys in use."""
        return self._key_states.values()

    def find_key_state(self, key: str) -> KeyState | None:
        """The state of a key, if it is in use."""
        return self._key_states.get(key)

    def counters(self) -> Iterable[LimitCounters]:
        """All limits in use."""
        return self._counters.values()

    def find_counters(self, scope: str, owner: str) -> LimitCounters | None:
        """The limits of an owner, if they are in use."""
        return self._counters.get((scope, owner))

    def find_balance(self, account: str) -> Balance | None:
        """The balance of an account, if it is known."""
        return self._balances.get(account)

    def balances(self) -> Iterable[Balance]:
        """All balances that are known."""
        return self._balances.values()

    def counters_of(self, scope: str, owner: str) -> LimitCounters:
        """The limits of an owner, created where there are none."""
        counters = self._counters.get((scope, owner))
        if counters is None:
            counters = self._counters[scope, owner] = LimitCounters(scope, owner)
        return counters

    def balance(self, account: str) -> Balance:
        """The balance of an account, created where there is none."""
        balance = self._balances.get(account)
        if balance is None:
            balance = self._balances[account] = Balance(account)
        return balance

    def fund(self, account: str, credited: int) -> None:
        """Set the sum of all credits ever paid in for an account, in micro-dollars."""
        self.balance(account).credited = credited

    def sweep(self, now: float, max_owners: int = 200) -> list[tuple[str, str]]:
        """Delete the state of owners whose limits are all full again, and of their keys.

        Checks up to `max_owners` owners; call it regularly. State that `changes` has yet to
        return is kept. Returns scope and owner of each deleted state, so that its rows can be
        deleted too.
        """
        deleted = []
        moment = int(now * 1000)
        if not self._to_sweep:
            self._to_sweep = list(self._counters.values())
        for _ in range(min(max_owners, len(self._to_sweep))):
            counters = self._to_sweep.pop()
            if counters.idle(moment) and not any(
                self._key_states[key].busy(moment) for key in counters.keys
            ):
                for key in counters.keys:
                    del self._key_states[key]
                del self._counters[counters.scope, counters.owner]
                deleted.append((counters.scope, counters.owner))
        return deleted

    # --- persistence ---

    def changes(self) -> list[Row]:
        """The rows of all state that changed since the last call.

        Reservations in flight count with their estimates. Money is charged at the end only.
        """
        dirty, self._dirty = self._dirty, []
        rows: list[Row] = []
        for state in dirty:
            state.dirty = False
            rows.extend(state.rows())
        return rows

    def restore(self, rows: Iterable[Row], *, written: bool = True) -> None:
        """Load the rows of an earlier process, before anything is reserved. `written`: they are
        in the database; else `changes` returns them."""
        for scope, owner, kind, per, refill, size, used, moment in rows:
            state: LimitCounters | Balance
            if kind == _MONEY:
                state = self.balance(owner)
                state.charged = used
            else:
                state = self.counters_of(scope, owner)
                bucket = new_bucket(refill, size, per * 1000, used, moment)
                state.all_buckets[kind, per] = bucket
            if not written:
                self.mark_changed(state)


def _give_back_before(stop: Bucket, counters: LimitCounters, tokens: int, now: int) -> None:
    """Undo what `reserve` took from the buckets that come before `stop`."""
    for bucket in counters.request_buckets:
        if bucket is stop:
            return
        bucket.give_back(1, bucket.mark, now)
    for bucket in counters.token_buckets[: counters.token_buckets.index(stop)]:
        bucket.give_back(min(tokens, bucket.size), bucket.mark, now)
