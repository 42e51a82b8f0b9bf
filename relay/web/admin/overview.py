"""The first page of administrators: what needs attention now, and how much goes through."""

import time
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from relay.alerts.rules import Condition
from relay.alerts.sources import Sources
from relay.net.off_loop import off_loop
from relay.store import usage
from relay.store.people import low_balances
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_LOW_MICRO: Final = 1_000_000  # a balance below a dollar
_LOW_SHOWN: Final = 5
_DISK_SECONDS: Final = 30.0  # disks and certificates are read again after so long
_HOURS: Final = 24
_HOUR: Final = 3600
_DAY: Final = 86_400
_CHART_WIDTH: Final = 720
_CHART_HEIGHT: Final = 96
_BAR: Final = 26  # and a gap, of 30
_STEP: Final = 30

# The states that are read from disks, with the reader and when, by the monotonic clock.
ReadStates = tuple[Sources, float, list[Condition]]


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin", show, Access.ADMIN)
    pages.get("/admin/parts/now", now_part, Access.ADMIN)


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour of the chart: where it is drawn, and what it says."""

    x: int
    y: float
    height: float
    time: int
    requests: int


async def show(visit: Visit) -> Response:
    """All of it."""
    return visit.render("admin/overview.html", **await _values(visit))


async def now_part(visit: Visit) -> Response:
    """What changes by itself."""
    return visit.render("admin/parts/now.html", **await _values(visit))


async def _values(visit: Visit) -> dict[str, Any]:
    operations = visit.parts.operations()
    figures = await operations.monitor.figures()
    total = figures.total
    today = visit.now // _DAY * _DAY
    sums = await usage.sums(visit.database, "day", usage.Filter(since=today))
    return {
        "problems": await _problems(visit),
        "low": await _low(visit),
        "processes": 0 if figures.others is None else total.processes,
        "silent": 0 if figures.others is None else len(figures.others.silent),
        "in_flight": total.relayed,
        "waiting": total.waiting,
        "rates": await visit.site.pulse.rates(total),
        "upstreams": await operations.monitor.rows(total),
        "today": sums[0] if sums else None,
        "bars": await _bars(visit),
        "chart": (_CHART_WIDTH, _CHART_HEIGHT, _BAR),
    }


async def _problems(visit: Visit) -> list[Condition]:
    """Every state that is a fault now, those of alerts."""
    sources = visit.parts.operations().sources
    kept = visit.site.read_states
    if kept is None or kept[0] is not sources or kept[1] < time.monotonic() - _DISK_SECONDS:
        states = await off_loop("states", sources.read_blocking)
        kept = visit.site.read_states = (sources, time.monotonic(), states)
    return [one for one in (*sources.read(), *kept[2]) if one.bad]


async def _low(visit: Visit) -> list[tuple[str, str, int]]:
    """The accounts on prepaid plans that have little left."""
    plans = [plan.id for plan in visit.settings.plan if plan.billing == "per-token"]
    found = await low_balances(visit.database, plans, _LOW_MICRO) if plans else []
    return found[:_LOW_SHOWN]


async def _bars(visit: Visit) -> list[Bar]:
    """The requests of each of the last 24 hours."""
    last = int(visit.now) // _HOUR * _HOUR
    first = last - (_HOURS - 1) * _HOUR
    hours = await usage.hours(visit.database, usage.Filter(since=first))
    counts = {one.time: one.requests for one in hours}
    most = max([*counts.values(), 1])
    bars = []
    for place in range(_HOURS):
        at = first + place * _HOUR
        count = counts.get(at, 0)
        height = round(max(count / most * (_CHART_HEIGHT - 4), 2 if count else 0.6), 1)
        bars.append(Bar(place * _STEP + 2, _CHART_HEIGHT - height, height, at, count))
    return bars
