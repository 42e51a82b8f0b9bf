"""Changes in the database while the relay serves: keys, accounts, credits, windows.

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
from relay.quota.holdings import SharedChange
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit, Plan, Refill, further_limits
from relay.store.adjustments import PendingAdjustment, pending
from relay.store.change_watch import watch
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.keys import LiveKey, changed_since, live_keys, revision
from relay.store.spend_limits import spend_limits, spent_by

_log = logging.getLogger("relay")

_UNITS: Final[dict[str, Refill]] = {"daily": "day", "weekly": "week", "monthly": "month"}
_MAX_SINGLE: Final = 500  # accounts that are read by themselves
# The longest length of each unit, in seconds.
_PER: Final[dict[Refill, int]] = {"day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400}


def apply_keys(
    index: KeyIndex, ledger: Ledger, keys: list[LiveKey], accounts: list[str] | None = None
) -> None:
    """Put the database's keys, credits, own limits and periods into force: all of them, or those
    of some accounts."""
    if accounts is None:
        index.replace(keys)
    else:
        index.update(accounts, keys)
    for key in keys:
        ledger.fund(key.user_id, key.credited)
    own: dict[str, Plan] = {}
    untils: dict[str, int] = {}
    for key in index.all():
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


async def read_spending(
    database: Database, now: float, accounts: list[str] | None = None
) -> dict[str, Spending]:
    """The limits on spending by account: all of them, or those of some accounts.

    Raises:
        StoreError: SQLite failed.
    """
    limits: dict[str, list[tuple[Refill, int]]] = {}
    for one in await spend_limits(database, accounts):
        if one.amount_micro is not None:
            limits.setdefault(one.user_id, []).append((_UNITS[one.period], one.amount_micro))
    if not limits:
        return {}
    begins = tuple(calendar_period(unit, int(now * 1000))[0] // 1000 for unit in _PER)
    spent = await spent_by(database, list(limits), begins)
    nothing = (0,) * len(begins)
    return {
        account: Spending(
            _spending_plan(tuple(sorted(pairs))),
            dict(zip(_PER, spent.get(account, nothing), strict=True)),
        )
        for account, pairs in limits.items()
    }


@lru_cache(maxsize=4096)
def _spending_plan(pairs: tuple[tuple[Refill, int], ...]) -> Plan:
    """The same limits give the same object."""
    limits = [Limit("money", amount, _PER[unit], unit) for unit, amount in pairs]
    return further_limits("spending", "this account", limits)


def apply_spending(
    ledger: Ledger,
    spending: dict[str, Spending],
    now: float,
    others: dict[str, Plan] | None = None,
) -> None:
    """Put limits on spending into force; those of `others` go on as they are."""
    plans = {account: one.plan for account, one in spending.items()}
    ledger.limit_spending({**(others or {}), **plans}, now)
    for account, one in spending.items():
        counters = ledger.counters_of(SPENDING, account)
        if counters.plan is not one.plan:
            counters.adopt(one.plan, int(now * 1000))
        if begin_spent(counters, one.spent, int(now * 1000)):
            ledger.mark_changed(counters)


@dataclass(frozen=True, slots=True)
class InForce:
    """What was read of the accounts at the start: the revision, and the limits on spending."""

    revision: int
    spending: dict[str, Plan]


class Changes:
    """Applies changes to a running relay. `plan_of` finds a plan by its id.

    Accounts that have not changed since `start` are not read again: a hundred thousand keys would
    hold the loop for a third of a second.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        keys: KeyIndex,
        journal: Journal,
        plan_of: Callable[[str], Plan],
        start: InForce | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._keys = keys
        self._journal = journal
        self._plan_of = plan_of
        self._applied = 0  # id of the last adjustment
        # The revision that is in force; None: none was read.
        self._seen = None if start is None else start.revision
        # The limits on spending, by account.
        self._spending: dict[str, Plan] = {} if start is None else dict(start.spending)
        self._reading = asyncio.Lock()  # what is read later is applied later

    async def watch(self, interval: float) -> None:
        """Apply every change within `interval` seconds, until cancelled."""
        await watch(self._database, interval, self.refresh)

    async def refresh(self) -> None:
        """Put the changes of this moment into force now. Raises StoreError: SQLite failed."""
        async with self._reading:
            # Read first, so that a later change is among those of the next time.
            number = await revision(self._database)
            if number != self._seen:
                await self._apply_changes()
                self._seen = number
            await self._adjust_pending()

    async def _apply_changes(self) -> None:
        """Read the accounts that have changed; all of them at first, or if they are many."""
        accounts: list[str] | None = None
        if self._seen is not None:
            accounts = await changed_since(self._database, self._seen)
            if len(accounts) > _MAX_SINGLE:
                accounts = None
        keys = await live_keys(self._database, accounts)
        now = time.time()
        spending = await read_spending(self._database, now, accounts)
        apply_keys(self._keys, self._ledger, keys, accounts)
        for account in list(self._spending) if accounts is None else accounts:
            self._spending.pop(account, None)
        apply_spending(self._ledger, spending, now, self._spending)
        self._spending |= {account: one.plan for account, one in spending.items()}

    async def _adjust_pending(self) -> None:
        for one in await pending(self._database, time.time()):
            if one.id > self._applied and not self._journal.is_elsewhere:
                await self._adjust_shared(one)
                if self._journal.is_elsewhere:
                    return
                self._applied = one.id
                self._adjust(one)
                self._journal.note_applied(one.id, time.time())

    async def _adjust_shared(self, one: PendingAdjustment) -> None:
        """Carry it out on all machines that share the ledger. Raises StoreError: not now."""
        wanted = one.adjustment
        owners = adjustments.owners_of(wanted.user_id, self._keys.of_account(wanted.user_id))
        if wanted.kind == "bonus":
            try:
                plan = self._plan_of(one.plan)
            except RelayError:  # which `_adjust` logs
                return
            owners = owners[:1] if plan.by_account else owners[1:]
        name = f"{one.made_at}/{wanted.user_id}/{wanted.kind}"
        change = SharedChange(
            name, wanted.kind, owners, wanted.counts, wanted.per, wanted.amount, wanted.windows
        )
        try:
            await self._ledger.adjust_shared(change)
        except RelayError as error:
            raise StoreError(error.message) from None

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
