"""How long requests took: histograms by hour, and quantiles from them.

Decides the bounds of the histogram, six in each power of ten, and when rows are brought into it:
apart from the journal, in short steps, since nobody needs these to the second. Only complete
answers count. Must not know charts or who sees them.
"""

import asyncio
import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

from relay.store.database import Database
from relay.store.usage import Filter

Part = Literal["first", "whole"]
Histogram = dict[int, int]  # by upper bound, in milliseconds

_STEPS: Final = (10, 15, 20, 30, 50, 70)
BOUNDS: Final = (*(step * 10**power for power in range(5) for step in _STEPS), 1_000_000)
_COLUMNS: Final[dict[Part, str]] = {"first": "ttfb_us", "whole": "duration_us"}
_ROWS: Final = 150  # from 0.3 to 4 ms, for which a batch waits; the latter of 10,000 accounts
_PAUSE_SECONDS: Final = 0.01
_DAY_SECONDS: Final = 86_400


def _bound_of(column: str, bounds: Sequence[int]) -> str:
    """SQL for the lowest bound that a duration is not above; the last one for all longer ones."""
    if len(bounds) == 1:
        return str(bounds[0])
    half = len(bounds) // 2
    lower, upper = _bound_of(column, bounds[:half]), _bound_of(column, bounds[half:])
    return f"iif({column} <= {bounds[half - 1] * 1000}, {lower}, {upper})"


_ADD: Final = [
    f"""INSERT INTO latency_hour
        SELECT user_id, CAST(time AS INTEGER) / 3600 * 3600, key_id, model, '{part}',
            {_bound_of(column, BOUNDS)}, count(*)
        FROM usage
        WHERE number > ? AND number <= ? AND outcome = 'whole' AND {column} IS NOT NULL
        GROUP BY 1, 2, 3, 4, 6
        ON CONFLICT DO UPDATE SET requests = requests + excluded.requests"""  # noqa: S608
    for part, column in _COLUMNS.items()
]
# Accounts whose first hour is too old; a look at each account, and at no other row.
_OLD: Final = """WITH RECURSIVE account (id) AS (
        SELECT min(user_id) FROM latency_hour UNION ALL
        SELECT (SELECT min(user_id) FROM latency_hour WHERE user_id > account.id)
        FROM account WHERE account.id IS NOT NULL)
    SELECT id FROM account
    WHERE (SELECT min(hour) FROM latency_hour WHERE user_id = account.id) < ?"""


async def sum_some(database: Database) -> bool:
    """Bring some requests that have ended into the histograms; whether there are more."""
    return await database.write(_sum_some)


async def sum_up(database: Database) -> None:
    """Bring all requests that have ended into the histograms."""
    while await sum_some(database):  # noqa: ASYNC110 - nobody announces them
        await asyncio.sleep(_PAUSE_SECONDS)


def _sum_some(connection: sqlite3.Connection) -> bool:
    """Take a step; returns whether there is more to do."""
    last: int
    done: int
    last, done = connection.execute(
        "SELECT (SELECT coalesce(max(number), 0) FROM usage), upto FROM latency_summed"
    ).fetchone()
    # Rows that were pruned leave a gap.
    first = connection.execute("SELECT min(number) FROM usage WHERE number > ?", (done,))
    done = max(done, (first.fetchone()[0] or 1) - 1)
    until = min(last, done + _ROWS)
    if until > done:
        for statement in _ADD:
            connection.execute(statement, (done, until))
        connection.execute("UPDATE latency_summed SET upto = ?", (until,))
    return until < last


async def prune(database: Database, retention_days: float, now: float) -> None:
    """Delete what is older than the requests that are kept."""
    before = now - retention_days * _DAY_SECONDS
    for (user_id,) in await database.select(_OLD, (before,)):
        await database.write(partial(_delete, user_id=user_id, before=before))
        await asyncio.sleep(_PAUSE_SECONDS)


def _delete(connection: sqlite3.Connection, user_id: str, before: float) -> None:
    connection.execute("DELETE FROM latency_hour WHERE user_id = ? AND hour < ?", (user_id, before))


async def histograms(
    database: Database, which: Filter, part: Part, step: int
) -> dict[int, Histogram]:
    """Histograms of the requests of `which` by the start of each step of time."""
    condition, values = which.sql("hour")
    statement = f"""SELECT hour / ? * ? AS start, at_most, sum(requests) FROM latency_hour
        WHERE {condition} AND part = ? GROUP BY 1, 2"""  # noqa: S608
    found: dict[int, Histogram] = {}
    rows = await database.select(statement, (step, step, *values, part))
    for start, at_most, requests in rows:
        found.setdefault(start, {})[at_most] = requests
    return found


def quantile(histogram: Histogram, share: float) -> float:
    """The seconds within which so large a share of the requests ended; inside a bound's range
    they are taken to be spread evenly. The histogram has at least one."""
    wanted = share * sum(histogram.values())
    below = 0
    for at_most in sorted(histogram):
        requests = histogram[at_most]
        if below + requests >= wanted:
            place = bisect_left(BOUNDS, at_most)
            lower = BOUNDS[place - 1] if place else 0
            return (lower + (at_most - lower) * (wanted - below) / requests) / 1000
        below += requests
    return max(histogram) / 1000
