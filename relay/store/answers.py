"""How models have answered, by day: the share of failures, and the time to the first octet.

Knows the table `answer_day`, which the journal fills, and the view `answer` of single requests.
A name that usage is kept under may be an alias, so callers say which model each name stands for.
Must not know who sees it.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

import msgspec

from relay.store.database import Database

DAY: Final = 86_400
KEPT_DAYS: Final = 100
TOTAL: Final = 0  # in the place of a day: all days together
_RECENT_ROWS: Final = 1_000

# Adds the requests that have ended between two numbers to their days: a part of a trigger.
SUM: Final = """INSERT INTO answer_day
    SELECT day, model, within_ms, count(*) FROM answer
    WHERE number > NEW.after AND number <= NEW.upto AND within_ms IS NOT NULL GROUP BY 1, 2, 3
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests"""

_DAYS: Final = """
WITH named AS (
    SELECT value AS model, day, within_ms, sum(requests) AS requests
    FROM answer_day JOIN json_each(?) ON key = answer_day.model
    WHERE day >= ? GROUP BY 1, 2, 3),
spans AS (
    SELECT * FROM named UNION ALL
    SELECT model, 0, within_ms, sum(requests) FROM named GROUP BY 1, 3),
ranked AS (
    SELECT model, day, within_ms, requests,
        sum(requests) FILTER (WHERE within_ms > 0) OVER
            (PARTITION BY model, day ORDER BY within_ms) AS upto,
        sum(requests) FILTER (WHERE within_ms > 0) OVER (PARTITION BY model, day) AS answered
    FROM spans)
SELECT model, day, coalesce(max(answered), 0), sum(iif(within_ms = 0, requests, 0)),
    min(within_ms) FILTER (WHERE 2 * upto >= answered),
    min(within_ms) FILTER (WHERE 20 * upto >= 19 * answered)
FROM ranked GROUP BY 1, 2 ORDER BY 1, 2"""

_RECENT: Final = """
SELECT value, count(*) FILTER (WHERE within_ms > 0), count(*) FILTER (WHERE within_ms = 0)
FROM (SELECT time, model, within_ms FROM answer ORDER BY number DESC LIMIT ?)
    JOIN json_each(?) ON key = model
WHERE time >= ? AND within_ms IS NOT NULL GROUP BY 1"""


class Answers(msgspec.Struct, frozen=True):
    """How a model has answered on a day (UTC). Times are in milliseconds, rounded up; None: there
    was no answer."""

    model: str
    day: int  # its first second, or TOTAL
    answered: int
    failed: int
    median_ms: int | None
    p95_ms: int | None

    @property
    def availability(self) -> float | None:
        """The share of requests that were answered; None: there were none."""
        requests = self.answered + self.failed
        return self.answered / requests if requests else None


async def by_day(database: Database, names: Mapping[str, str], since: float) -> list[Answers]:
    """How each model has answered on each day since then, and in all (`TOTAL`). `names`: the
    model that each name of usage stands for. Days without requests are left out."""
    rows = await database.select(_DAYS, (_json(names), since))
    return [Answers(*row) for row in rows]


async def lately(
    database: Database, names: Mapping[str, str], since: float
) -> dict[str, tuple[int, int]]:
    """Answers and failures of each model among the latest requests."""
    rows = await database.select(_RECENT, (_RECENT_ROWS, _json(names), since))
    return {model: (answered, failed) for model, answered, failed in rows}


def forget(connection: sqlite3.Connection, now: float) -> None:
    """Delete days that nobody is shown any more."""
    connection.execute("DELETE FROM answer_day WHERE day < ?", (now - KEPT_DAYS * DAY,))


def _json(names: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(names)).decode()
