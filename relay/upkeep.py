"""The work that keeps an install in order, beside the requests: deletion, backups, alerts.

Decides how often old rows are deleted. Must not know listeners or requests.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from relay.accounts.sessions import prune_sessions
from relay.alerts.monitor import Monitor
from relay.alerts.sources import Sources
from relay.alerts.threshold_mails import ThresholdMails
from relay.config import Settings
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.quota.bucket import calendar_period
from relay.quota.ledger import Ledger
from relay.store import events, idempotency, latency, thresholds
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.periods import end_due
from relay.store.refusals import prune_refusals
from relay.store.responses import ResponseStore
from relay.store.scheduled_backup import Backups
from relay.store.space import give_back
from relay.store.usage import prune, upstream_days

_log = logging.getLogger("relay")

_PRUNE_INTERVAL_SECONDS: Final = 3600.0
_PERIOD_INTERVAL_SECONDS: Final = 10.0
_SWEEP_INTERVAL_SECONDS: Final = 5.0
_LATENCY_INTERVAL_SECONDS = 60.0
_COSTS_INTERVAL_SECONDS: Final = 5.0


async def sweep(ledger: Ledger, bindings: Bindings) -> None:
    """Forget limits that are full again and expired bindings, until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)
        ledger.sweep(time.time())
        bindings.sweep(time.monotonic())


async def upstream_costs(database: Database, now: float) -> dict[str, tuple[int, int]]:
    """What each upstream has cost this day and this month, in UTC. Everything is summed up."""
    day, month = (calendar_period(unit, int(now * 1000))[0] // 1000 for unit in ("day", "month"))
    spent: dict[str, tuple[int, int]] = {}
    for one in await upstream_days(database, month):
        before = spent.get(one.upstream, (0, 0))
        today = one.cost_micro if one.day == day else 0
        spent[one.upstream] = (before[0] + today, before[1] + one.cost_micro)
    return spent


async def share_costs(database: Database, upstreams: Upstreams) -> None:
    """Let the caps of upstreams hold over all machines, until cancelled: their requests are in the
    database a second or two after they have ended."""
    while True:
        await asyncio.sleep(_COSTS_INTERVAL_SECONDS)
        capped = [one for one in upstreams if one.spending.is_capped]
        if not capped:
            continue
        read_at = upstreams.now()
        try:
            costs = await upstream_costs(database, read_at)
        except StoreError as error:
            _log.warning("costs of other relays are not counted for now: %s", error)
            continue
        for one in capped:
            one.spending.reach(*costs.get(one.name, (0, 0)), read_at, upstreams.now())


class Upkeep:
    """Its parts, and the coroutines that run them until cancelled."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        journal: Journal,
        upstreams: Upstreams,
        responses: ResponseStore | None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._responses = responses
        self.backups = Backups(settings.database.path, settings.backup)
        self.sources = Sources(settings, upstreams, journal, self.backups)
        self.alerts = Monitor(settings, self.sources, database)
        self.mails = ThresholdMails(settings, database)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """One coroutine for each kind of work."""
        return [
            self._prune(), self._end_periods(), self.backups.run(), self.alerts.run(),
            self.mails.run(), self._sum_latency(),
        ]  # fmt: skip

    async def _end_periods(self) -> None:
        """Write the plan that follows a period. Requests are served by it from its moment on."""
        while True:
            try:
                await end_due(self._database, time.time())
            except StoreError as error:
                _log.warning("ended periods are not written for now: %s", error)
            await asyncio.sleep(_PERIOD_INTERVAL_SECONDS)

    async def _sum_latency(self) -> None:
        """Bring requests that have ended into the histograms of their durations."""
        while True:
            try:
                await latency.sum_up(self._database)
            except StoreError as error:
                _log.warning("durations are not summed up for now: %s", error)
            await asyncio.sleep(_LATENCY_INTERVAL_SECONDS)

    async def _prune(self) -> None:
        """Delete rows and stored responses that are past their retention, and shrink the file."""
        while True:
            try:
                now = time.time()
                await prune(self._database, self._settings.database.retention_days, now)
                await latency.prune(self._database, self._settings.database.retention_days, now)
                await prune_sessions(self._database, self._settings.web, now)
                if self._responses is not None:
                    await self._responses.prune(time.time())
                await idempotency.prune(self._database, time.time())
                await events.prune(self._database, time.time())
                await thresholds.prune(self._database, time.time())
                await prune_refusals(self._database, time.time())
                await give_back(self._database)
            except StoreError as error:
                _log.warning("old rows are not deleted for now: %s", error)
            await asyncio.sleep(_PRUNE_INTERVAL_SECONDS)
