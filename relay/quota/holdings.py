"""The state of all keys, accounts and balances, by owner: found, created, swept, kept.

Decides which limits a key draws from, and when state is no longer needed. Must not know requests
or the database: `changes` hands state out, and `restore` takes it back.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from relay.quota.bucket import new_bucket
from relay.quota.further import OWN, SPENDING
from relay.quota.plans import Plan
from relay.quota.state import BONUS, Balance, KeyState, LimitCounters, Reservation, Row

_FURTHER: Final = (OWN, SPENDING)
LEASE: Final = "lease"  # the scope of rows with the use of a node's leases: see relay.cluster

# The use of a reservation that closes: tokens and micro-dollars, see `settle`; None: refunded.
Use: TypeAlias = tuple[int | None, int | None] | None
OnClose: TypeAlias = Callable[[Reservation, Use], None]


class SharedChange(NamedTuple):
    """A change of windows that several machines share. `name` is the same on all of them.

    `kind`: "renew" concerns all windows of the owners, "reset" and "bonus" that of one limit.
    """

    name: str
    kind: str
    owners: Sequence[tuple[str, str]]  # scope and owner
    counts: str = ""
    per: int = 0  # seconds
    amount: int = 0
    windows: int = 0


class Holdings:
    """See the module. `now` is the present moment: epoch seconds, or ms where it is whole."""

    def __init__(self) -> None:
        self._key_states: dict[str, KeyState] = {}
        self._counters: dict[tuple[str, str], LimitCounters] = {}
        self._balances: dict[str, Balance] = {}
        self._dirty: list[LimitCounters | Balance] = []
        self._to_sweep: list[LimitCounters] = []
        self._own: dict[str, Plan] = {}  # limits of single keys
        self._spending: dict[str, Plan] = {}  # limits of accounts' spending
        self._untils: dict[str, int] = {}  # the end (ms) of accounts' periods
        # Requests in flight of another process, by key, until the key is in use here.
        self.inherited: dict[str, int] = {}
        # Called with each reservation that closes, once another process has the limits.
        self.on_close: OnClose | None = None
        # Calls back what was lent to workers of an account, for another node.
        self.call_back: Callable[[str], Awaitable[object]] | None = None
        # Weak: an earlier plan lives as long as the requests that began with it.
        self._successors: WeakKeyDictionary[Plan, Plan] = WeakKeyDictionary()

    def mark_changed(self, state: LimitCounters | Balance) -> None:
        """Let `changes` return the rows of this state."""
        if not state.dirty:
            state.dirty = True
            self._dirty.append(state)

    def _bind_key(self, account: str, key: str, plan: Plan, now: int) -> KeyState:
        """The state of a key that is new, or whose plan is."""
        plan = self._successors.get(plan, plan)
        scope, owner = ("account", account) if plan.by_account else ("key", key)
        counters = self.counters_of(scope, owner)
        if counters.plan is not plan:
            if counters.all_buckets:
                self.mark_changed(counters)
            counters.adopt(plan, now)
        if counters.until != self._untils.get(account, 0):
            counters.end_windows_by(self._untils.get(account, 0))
        balance = self.balance(account) if plan.prepaid else None
        key_state = self._key_states.get(key)
        if key_state is None:
            key_state = self._key_states[key] = KeyState(account, key, plan, counters, balance)
            key_state.in_flight = self.inherited.pop(key, 0)
        else:
            key_state.counters.keys.discard(key)
            key_state.plan, key_state.counters, key_state.balance = plan, counters, balance
        counters.keys.add(key)
        if self._own or self._spending:
            self._bind_further(key_state, now)
        return key_state

    def _bind_further(self, key_state: KeyState, now: int) -> None:
        """Find the limits beside the plan's."""
        own, spending = self._own.get(key_state.key), self._spending.get(key_state.account)
        found = []
        for scope, owner, plan in (
            (OWN, key_state.key, own),
            (SPENDING, key_state.account, spending),
        ):
            if plan is None:
                continue
            counters = self.counters_of(scope, owner)
            if counters.plan is not plan:
                if counters.all_buckets:
                    self.mark_changed(counters)
                counters.adopt(plan, now)
            found.append(counters)
        key_state.further = tuple(found)
        key_state.counts_money = any(
            plan is not None and plan.counts_money for plan in (own, spending)
        )

    def limit_further(self, own: dict[str, Plan], spending: dict[str, Plan], now: float) -> None:
        """Put limits beside the plans' into force: `own` by key, `spending` by account. Limits that
        go on keep their use."""
        self.limit_keys(own, now)
        self.limit_spending(spending, now)

    def limit_keys(self, own: dict[str, Plan], now: float) -> None:
        """Put the limits of single keys into force."""
        if own != self._own:
            self._own = own
            self._bind_all_further(now)

    def limit_spending(self, spending: dict[str, Plan], now: float) -> None:
        """Put the limits on accounts' spending into force."""
        if spending != self._spending:
            self._spending = spending
            self._bind_all_further(now)

    def _bind_all_further(self, now: float) -> None:
        moment = int(now * 1000)
        for key_state in self._key_states.values():
            self._bind_further(key_state, moment)
            key_state.counters.must_check = True

    def end_periods(self, untils: dict[str, int]) -> None:
        """No window of these accounts outlasts the end (ms) of their plan's period."""
        if untils == self._untils:
            return
        self._untils = untils
        for key_state in self._key_states.values():
            key_state.counters.end_windows_by(untils.get(key_state.account, 0))

    async def adjust_shared(self, change: SharedChange) -> None:
        """Carry out a change of windows on all machines that share them. None do here.

        Raises:
            RelayError: 503, it cannot be done now.
        """

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

    def balances(self) -> Iterable[Balance]:
        """All balances that are known."""
        return self._balances.values()

    def find_counters(self, scope: str, owner: str) -> LimitCounters | None:
        """The limits of an owner, if there are any."""
        return self._counters.get((scope, owner))

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
            if counters.scope in _FURTHER and self._is_further(counters):
                continue
            if counters.idle(moment) and not any(
                self._key_states[key].busy(moment) for key in counters.keys
            ):
                for key in counters.keys:
                    del self._key_states[key]
                del self._counters[counters.scope, counters.owner]
                deleted.append((counters.scope, counters.owner))
        return deleted

    def _is_further(self, counters: LimitCounters) -> bool:
        """Whether keys draw from these limits beside those of their plans."""
        if counters.scope == OWN:
            return counters.owner in self._key_states
        return counters.owner in self._spending

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

    def go_on(self, *, alive: bool) -> None:
        """All rows of the earlier process are restored; `alive`: it is handing over."""

    def restore(self, rows: Iterable[Row], *, written: bool = True) -> None:
        """Load the rows of an earlier process, before anything is reserved. `written`: they are
        in the database; else `changes` returns them."""
        bonuses: list[tuple[str, str, str, int, int, int]] = []
        for scope, owner, kind, per, refill, size, used, moment in rows:
            state: LimitCounters | Balance
            if scope == LEASE:
                continue
            if refill == "charged":
                state = self.balance(owner)
                state.charged = used
            elif kind.startswith(BONUS):
                bonuses.append((scope, owner, kind[len(BONUS) :], per, size, used))
                continue
            else:
                state = self.counters_of(scope, owner)
                bucket = new_bucket(refill, size, per * 1000, used, moment)
                state.all_buckets[kind, per] = bucket
            if not written:
                self.mark_changed(state)
        for scope, owner, kind, per, size, used in bonuses:  # once their limits are there
            self.counters_of(scope, owner).restore_bonus(kind, per, size, used)
