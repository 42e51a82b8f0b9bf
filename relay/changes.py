"""What changes in the database while the relay serves: keys, accounts, credits, windows.

Decides how each takes effect in the ledger and the index of keys. A change of windows is applied
once: the journal notes it with the limits' new state. Must not know who makes changes.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from relay.errors import RelayError
from relay.gateway.authentication import KeyIndex
from relay.gateway.key_rules import own_limits
from relay.quota import adjustments
from relay.quota.bucket import calendar_period
from relay.quota.further import SPENDING, begin_spent
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit, Plan, further_limits
from relay.store.adjustments import PendingAdjustment, pending
from relay.store.change_watch import watch
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import LiveKey, live_keys
from relay.store.spend_limits import spend_limits, spent

_log = logging.getLogger("relay")

_UNITS: Final = {"daily": "day", "weekly": "week", "monthly": "month"}
_PER: Final = {"day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400}  # seconds, at most


def apply_keys(index: KeyIndex, ledger: Ledger, keys: list[LiveKey]) -> None:
    """Put the database's keys, credits, own limits and periods into force."""
    index.replace(keys)
    own: dict[str, Plan] = {}
    untils: dict[str, int] = {}
    for key in keys:
        ledger.fund(key.user_id, key.credited)
        if key.rules is not None and (limits := own_limits(key.rules)) is not None:
            own[key.key_id] = limits
        if key.plan_until is not None:
            untils[key.user_id] = int(key.plan_until * 1000)
    ledger.end_periods(untils)
    ledger.limit_keys(own, time.time())


@dataclass(frozen=True, slots=True)
class Spending:
    """The limits on an account's spending, and what it spent before they were set: micro-dollars
    by unit of the calendar."""

    plan: Plan
    spent: dict[str, int]


async def read_spending(database: Database, now: float) -> dict[str, Spending]:
    """The limits on spending by account. Raises StoreError: SQLite failed."""
    limits: dict[str, list[tuple[str, int]]] = {}
    for one in await spend_limits(database):
        if one.amount_micro is not None:
            limits.setdefault(one.user_id, []).append((_UNITS[one.period], one.amount_micro))
    found = {}
    for account, pairs in limits.items():
        sums = {}
        for unit, _ in pairs:
            begin = calendar_period(unit, int(now * 1000))[0] // 1000
            sums[unit] = await spent(database, account, begin)
        found[account] = Spending(_spending_plan(tuple(sorted(pairs))), sums)
    return found


@lru_cache(maxsize=4096)
def _spending_plan(pairs: tuple[tuple[str, int], ...]) -> Plan:
    """The same limits give the same object."""
    limits = [Limit("money", amount, _PER[unit], unit) for unit, amount in pairs]  # type: ignore[arg-type]
    return further_limits("spending", "this account", limits)


def apply_spending(ledger: Ledger, spending: dict[str, Spending], now: float) -> None:
    """Put limits on spending into force."""
    ledger.limit_spending({account: one.plan for account, one in spending.items()}, now)
    for account, one in spending.items():
        counters = ledger.counters_of(SPENDING, account)
        if counters.plan is not one.plan:
            counters.adopt(one.plan, int(now * 1000))
        if begin_spent(counters, one.spent, int(now * 1000)):
            ledger.mark_changed(counters)


class Changes:
    """Applies changes to a running relay. `plan_of` finds a plan by its id."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        keys: KeyIndex,
        journal: Journal,
        plan_of: Callable[[str], Plan],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._keys = keys
        self._journal = journal
        self._plan_of = plan_of
        self._applied = 0  # id of the last adjustment
        self._reading = asyncio.Lock()  # what is read later is applied later

    async def watch(self, interval: float) -> None:
        """Apply every change within `interval` seconds, until cancelled."""
        await watch(self._database, interval, self._apply_keys, self._apply_others)

    async def refresh(self) -> None:
        """Put the changes of this moment into force now. Raises StoreError: SQLite failed."""
        async with self._reading:
            self._apply_keys(await live_keys(self._database))
        await self._apply_others()

    async def _apply_others(self) -> None:
        async with self._reading:
            now = time.time()
            apply_spending(self._ledger, await read_spending(self._database, now), now)
            await self._adjust_pending()

    def _apply_keys(self, keys: list[LiveKey]) -> None:
        apply_keys(self._keys, self._ledger, keys)

    async def _adjust_pending(self) -> None:
        for one in await pending(self._database, time.time()):
            if one.id > self._applied and not self._journal.is_elsewhere:
                self._applied = one.id
                self._adjust(one)
                self._journal.note_applied(one.id, time.time())

    def _adjust(self, one: PendingAdjustment) -> None:
        """In the step of the loop in which the journal notes it."""
        wanted, now, ledger = one.adjustment, time.time(), self._ledger
        keys = self._keys.of_account(wanted.user_id)
        owners = adjustments.owners_of(wanted.user_id, keys)
        if wanted.kind == "renew":
            adjustments.renew(ledger, owners, now)
        elif wanted.kind == "reset":
            adjustments.reset(ledger, owners, (wanted.counts, wanted.per), now)
        else:
            try:
                plan = self._plan_of(one.plan)
            except RelayError:
                _log.warning("a bonus is not given: plan %s is no longer offered", one.plan)
                return
            bonus = (wanted.counts, wanted.per, wanted.amount, wanted.windows)
            for owner in owners[:1] if plan.by_account else owners[1:]:
                adjustments.give_bonus(ledger, owner, plan, bonus, now)
