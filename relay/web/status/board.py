"""How each model answers: now, and on each of the last days.

Read at most every few seconds, however many people ask. Decides which word describes a model. Says
nothing of upstreams, accounts or numbers of requests. Must not know pages.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from relay.config import exact_names
from relay.errors import RelayError
from relay.gateway.catalog import Catalog
from relay.pool.leases import Upstreams
from relay.store import answers
from relay.store.answers import DAY, TOTAL, Answers
from relay.store.database import StoreError
from relay.web.parts import Parts

State = Literal["up", "degraded", "down"]

DAYS: Final = 90
KEPT_SECONDS: Final = 10.0
_LATELY_SECONDS: Final = 900.0
_FEW_FAILURES: Final = 2  # say nothing
_DEGRADED: Final = 0.05  # of the latest requests have failed

_log = logging.getLogger("relay.web")


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model. `days` are the last 90, the oldest first; None: no requests on that day."""

    id: str
    name: str
    state: State
    total: Answers | None
    days: list[Answers | None]

    @property
    def bad_days(self) -> list[Answers]:
        """The days with failures, the latest first."""
        return [day for day in reversed(self.days) if day is not None and day.failed]


@dataclass(frozen=True, slots=True)
class Status:
    """All models at a moment. `first_day` is the first second of the oldest day."""

    read_at: float
    first_day: int
    models: list[ModelStatus]

    @property
    def state(self) -> State:
        """The word for all models together."""
        states = {model.state for model in self.models}
        if states == {"down"}:
            return "down"
        return "up" if states <= {"up"} else "degraded"

    def dates(self) -> list[str]:
        """The days' dates (UTC)."""
        return [date_of(self.first_day + number * DAY) for number in range(DAYS)]


def date_of(day: int) -> str:
    """The date of a day, such as 2026-04-08."""
    return datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d")


class Board:
    """Keeps the status for some seconds."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: Status | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[Status] | None = None

    async def status(self, now: float) -> Status:
        """The status, some seconds old at most while it can be read. Raises StoreError: it never
        could."""
        known = self._known
        if known is not None and 0 <= now - self._read_at < KEPT_SECONDS:
            return known
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read(now))
        try:
            return await asyncio.shield(self._reading)
        except StoreError as error:
            if known is None:
                raise
            _log.warning("the status is not read anew: %s", error)
            return known

    async def _read(self, now: float) -> Status:
        self._read_at = now
        models = self._parts.settings().model
        names = {name: model.id for model in models for name in exact_names(model)}
        first = int(now) // DAY * DAY - (DAYS - 1) * DAY
        database = self._parts.database
        found = {(one.model, one.day): one for one in await answers.by_day(database, names, first)}
        lately = await answers.lately(database, names, now - _LATELY_SECONDS)
        usable = _usable(self._parts.catalog(), self._parts.operations().upstreams, names.values())
        days = [first + number * DAY for number in range(DAYS)]
        self._known = Status(
            now,
            first,
            [
                ModelStatus(
                    model.id,
                    model.display_name or model.id,
                    state_of(*lately.get(model.id, (0, 0)), usable=model.id in usable),
                    found.get((model.id, TOTAL)),
                    [found.get((model.id, day)) for day in days],
                )
                for model in models
            ],
        )
        return self._known


def state_of(answered: int, failed: int, *, usable: bool) -> State:
    """The word for a model, by its latest requests, and whether an upstream may serve it now."""
    if not usable:
        return "down"
    if failed <= _FEW_FAILURES or failed < _DEGRADED * (answered + failed):
        return "up"
    return "degraded" if answered else "down"


def _usable(catalog: Catalog, upstreams: Upstreams, models: Iterable[str]) -> set[str]:
    """The models that some upstream may serve as soon as a request may wait."""
    until = upstreams.now() + upstreams.settings.wait
    found: set[str] = set()
    for model in models:
        try:
            targets = catalog.route(model).targets
        except RelayError:  # no upstream serves it
            continue
        ready = (one.upstream.health.ready_at(one.name, upstreams.now()) for one in targets)
        if min(ready, default=float("inf")) <= until:
            found.add(model)
    return found
