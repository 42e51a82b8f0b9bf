"""How the relay does right now: rates and durations over the last minutes, not since its start.

The relay's own counters only grow. While administrators look, they are read every few seconds, and
two readings give what happened between them. Decides how long that is. Must not know pages.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from relay.api.figures import Figures
from relay.gateway.request_metrics import OTHER
from relay.net.off_loop import off_loop
from relay.telemetry.histogram import REQUEST_BOUNDS
from relay.web.parts import Operations

_STEP_SECONDS: Final = 10.0
_KEPT: Final = 31  # readings: five minutes
_WATCHED_SECONDS: Final = 600.0  # after the last look
_MICRO: Final = 10**6


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of one moment. `upstreams`: requests and errors of each."""

    at: float
    requests: int
    failed: int
    tokens: int
    cost_micro: int
    first_events: tuple[int, ...]
    upstreams: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened in the last `seconds`. Durations are microseconds; None: there was none.

    `errors`: the share of requests that failed. `upstream_errors`: the same for each upstream.
    """

    seconds: float
    requests_a_minute: float
    tokens_a_minute: float
    cost_micro: int
    errors: float | None
    p50: int | None
    p99: int | None
    upstream_errors: dict[str, float | None]


class Pulse:
    """Keeps readings while somebody looks."""

    def __init__(
        self, operations: Callable[[], Operations], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._operations = operations
        self._clock = clock
        self._readings: deque[Reading] = deque(maxlen=_KEPT)
        self._task: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    async def rates(self, figures: Figures) -> Rates:
        """The rates of the last five minutes, or since the start if nobody looked before.
        `figures` are those of this moment."""
        self._looked_at = self._clock()
        if self._task is None or self._task.done():
            self._readings.clear()
            self._task = asyncio.get_running_loop().create_task(self._keep_reading())
        now = await self._reading(figures)
        uptime = time.time() - self._operations().measured.started_at
        start = Reading(now.at - uptime, 0, 0, 0, 0, (0,) * len(now.first_events), {})
        return _between(self._readings[0] if self._readings else start, now)

    def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()

    async def _keep_reading(self) -> None:
        while self._clock() - self._looked_at < _WATCHED_SECONDS:
            figures = await self._operations().monitor.figures()
            self._readings.append(await self._reading(figures.total))
            await asyncio.sleep(_STEP_SECONDS)

    async def _reading(self, figures: Figures) -> Reading:
        errors = {one.name: sum(one.health.errors.values()) for one in self._operations().upstreams}
        return await off_loop("pulse", partial(_reading, self._clock(), figures, errors))


def _reading(at: float, figures: Figures, errors: dict[str, int]) -> Reading:
    """`errors`: of each upstream. May take milliseconds: there may be thousands of series."""
    series = [one for one in figures.series if one.endpoint != OTHER]
    return Reading(
        at,
        sum(one.durations.number for one in series),
        sum(one.by_status[0] + one.by_status[4] + one.by_status[5] for one in series),
        sum(one.input + one.output + one.cache_read + one.cache_write for one in series),
        sum(one.cost for one in series),
        tuple(map(sum, zip(*[one.first_events.counts for one in series], strict=True)))
        or (0,) * (len(REQUEST_BOUNDS) + 1),
        {
            one.name: (one.requests, errors[one.name])
            for one in figures.upstreams
            if one.name in errors
        },
    )


def _between(before: Reading, after: Reading) -> Rates:
    seconds = max(after.at - before.at, 1e-9)
    requests = after.requests - before.requests
    counts = [new - old for new, old in zip(after.first_events, before.first_events, strict=True)]
    shares = {}
    for name, (sent, errors) in after.upstreams.items():
        sent_before, errors_before = before.upstreams.get(name, (0, 0))
        shares[name] = _share(errors - errors_before, sent - sent_before)
    return Rates(
        seconds,
        requests / seconds * 60,
        (after.tokens - before.tokens) / seconds * 60,
        after.cost_micro - before.cost_micro,
        _share(after.failed - before.failed, requests),
        quantile(counts, 0.5),
        quantile(counts, 0.99),
        shares,
    )


def _share(part: int, total: int) -> float | None:
    return part / total if total > 0 else None


def quantile(counts: Sequence[int], share: float) -> int | None:
    """A quantile of a histogram, in microseconds, between the bounds of its bucket in proportion.
    None: nothing was counted."""
    rank = sum(counts) * share
    if not rank:
        return None
    lower, below = 0, 0
    for bound, count in zip(REQUEST_BOUNDS, counts, strict=False):
        if count and below + count >= rank:
            return round(lower + (bound - lower) * (rank - below) / count)
        lower, below = bound, below + count
    return REQUEST_BOUNDS[-1]
