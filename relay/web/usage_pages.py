"""Usage over time: charts that load by themselves, and the same as a table.

All of it comes from hourly sums, so any range is answered at once. Hours and days are UTC.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from starlette.responses import JSONResponse, Response

from relay.store import latency, usage
from relay.store.keys import list_own_keys
from relay.store.usage_series import DAY, HOUR, GroupedBy, Point, step_of, usage_series
from relay.web.overview_pages import key_names
from relay.web.pages import Pages
from relay.web.visit import Visit

RANGES: Final = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY}
METRICS: Final = ("requests", "tokens", "cost", "cache", "first", "whole")
_DEFAULT: Final = "7d"
_MAX_SECONDS: Final = 3_700 * DAY
_MAX_NAME: Final = 200
_MAX_GROUPS: Final = 8  # of a chart; the others are one
_MICRO: Final = 10**6
_PARTS: Final[tuple[latency.Part, ...]] = ("first", "whole")
_QUANTILES: Final = (("median", 0.5), ("p95", 0.95))


@dataclass(frozen=True, slots=True)
class Range:
    """The time that is shown, in [since, until), epoch seconds. `name` is empty for own dates."""

    name: str
    since: int
    until: int

    @property
    def first_day(self) -> str:
        return _day(self.since)

    @property
    def last_day(self) -> str:
        return _day(self.until - 1)


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard/usage", show)
    pages.get("/dashboard/usage/data", data)


async def show(visit: Visit) -> Response:
    """The charts, and the sums that they add up to."""
    query = visit.request.query_params
    range_, by = read_range(visit), _grouping(query.get("by", ""))
    kind = "day" if by == "none" else by
    fields = _fields(visit)
    which = _filter(visit, range_, fields)
    rows = await usage.sums(visit.database, cast("usage.Grouping", kind), which)
    return visit.render(
        "usage.html", range=range_, problem=_range_problem(visit, range_), ranges=RANGES, by=by,
        rows=rows, metrics=METRICS, fields=fields,
        keys=await list_own_keys(visit.database, visit.user.id), models=visit.settings.model,
    )  # fmt: skip


def _fields(visit: Visit) -> dict[str, str]:
    """The key and the model that a query asks for."""
    query = visit.request.query_params
    return {name: query[name][:_MAX_NAME] for name in ("key", "model") if query.get(name)}


def _filter(visit: Visit, range_: Range, fields: dict[str, str]) -> usage.Filter:
    return usage.Filter(
        range_.since, range_.until, visit.user.id, fields.get("key"), fields.get("model")
    )


async def data(visit: Visit) -> Response:
    """The points of one chart."""
    query = visit.request.query_params
    metric = query.get("metric", "")
    if metric not in METRICS:
        visit.refuse(400, "bad_request")
    range_, by = read_range(visit), _grouping(query.get("by", ""))
    if metric == "cache":
        by = "none"
    which = _filter(visit, range_, _fields(visit))
    step = step_of(range_.since, range_.until)
    times = list(range(range_.since // step * step, range_.until, step))
    part = next((one for one in _PARTS if one == metric), None)
    if part is not None:
        await latency.sum_some(visit.database)  # a quiet relay shows the request of just now
        found = await latency.histograms(visit.database, which, part, step)
        groups = _quantiles(visit, found, times)
    else:
        names = await key_names(visit) if by == "key" else str
        groups = [
            (visit.t("usage.others") if name is None else names(name), row)
            for name, row in _groups(await usage_series(visit.database, which, by), times, metric)
        ]
    rows = [{"name": name, "values": row} for name, row in groups]
    return JSONResponse({"step": step, "times": times, "groups": rows})


def _quantiles(
    visit: Visit, found: dict[int, latency.Histogram], times: list[int]
) -> list[tuple[str, list[float | None]]]:
    """The seconds of the median, and those that 95 % of the answers stayed within."""
    if not found:
        return []
    groups = []
    for word, share in _QUANTILES:
        rows = map(found.get, times)
        row = [None if one is None else round(latency.quantile(one, share), 3) for one in rows]
        groups.append((visit.t(f"latency.{word}"), row))
    return groups


def _groups(
    points: list[Point], times: list[int], metric: str
) -> list[tuple[str | None, list[float | None]]]:
    """The values of each group at each time; None: all others.

    The dearest group comes first, in the charts of all metrics, so that it has one colour in them.
    """
    measure = _MEASURES[metric]
    costs: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for point in points:
        costs[point.group] += point.cost_micro
        requests[point.group] += point.requests
    order = sorted(requests, key=lambda group: (-costs[group], -requests[group], group))
    place = {group: min(number, _MAX_GROUPS - 1) for number, group in enumerate(order)}
    number = min(len(order), _MAX_GROUPS)
    empty: float | None = None if metric == "cache" else 0
    rows: list[list[float | None]] = [[empty] * len(times) for _ in range(number)]
    at = {time: index for index, time in enumerate(times)}
    for point in points:
        index = at.get(point.time)
        value = measure(point)
        if index is not None and value is not None:
            row = rows[place[point.group]]
            row[index] = (row[index] or 0) + value
    names: list[str | None] = [*order[:number]]
    if len(order) > _MAX_GROUPS:
        names[-1] = None
    return list(zip(names, rows, strict=True))


def _cache_share(point: Point) -> float | None:
    """The percentage of the prompt that came from a cache; None: there was no prompt."""
    prompt = point.input + point.cache_read + point.cache_write
    return round(100 * point.cache_read / prompt, 2) if prompt else None


_MEASURES: Final[dict[str, Callable[[Point], float | None]]] = {
    "requests": lambda one: one.requests,
    "tokens": lambda one: one.input + one.output + one.cache_read + one.cache_write,
    "cost": lambda one: one.cost_micro / _MICRO,
    "cache": _cache_share,
}


def _grouping(text: str) -> GroupedBy:
    return cast(GroupedBy, text) if text in ("model", "key", "none") else "model"


def read_range(visit: Visit) -> Range:
    """The range that a query asks for: the name of one, or two days (UTC), the last included."""
    query = visit.request.query_params
    now = int(visit.now)
    name = query.get("range", "")
    since, until = _midnight(query.get("from", "")), _midnight(query.get("to", ""))
    if since is not None and not query.get("to"):
        until = now // DAY * DAY
    if name not in RANGES and since is not None and until is not None and since <= until:
        return Range("", max(since, until + DAY - _MAX_SECONDS), until + DAY)
    name = name if name in RANGES else _DEFAULT
    step = HOUR if name == "24h" else DAY
    end = now // step * step + step
    return Range(name, end - RANGES[name], end)


def _range_problem(visit: Visit, shown: Range) -> str:
    """Why another range is shown than the query asks for; empty: it is the same."""
    query = visit.request.query_params
    is_asked = any(query.get(name) for name in ("range", "from", "to"))
    is_other = shown.name not in ("", query.get("range"))
    if not is_asked or not is_other:
        return ""
    since, until = query.get("from", ""), query.get("to", "")
    if query.get("range"):
        return visit.t("usage.bad_range")
    for day in (since, until):
        if day and _midnight(day) is None:
            return visit.t("usage.bad_day", day=day[:20])
    return visit.t("usage.bad_order") if since else visit.t("usage.no_first")


def _midnight(text: str) -> int | None:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
