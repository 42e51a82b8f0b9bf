"""An account's usage over time, from the hourly sums, however many requests there were.

Must not know charts or who sees them.
"""

from typing import Final, Literal

import msgspec

from relay.store.database import Database

GroupedBy = Literal["model", "key", "none"]
HOUR: Final = 3600
DAY: Final = 86_400

_GROUP: Final[dict[GroupedBy, str]] = {"model": "model", "key": "key_id", "none": "''"}


class Point(msgspec.Struct, frozen=True):
    """The usage of one step of time, of one group. `time` is its start, in epoch seconds."""

    time: int
    group: str
    requests: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cost_micro: int


async def usage_series(
    database: Database, user_id: str, since: float, until: float, by: GroupedBy
) -> list[Point]:
    """Usage in [since, until) by step and group, in order. A step without usage is left out."""
    step = step_of(since, until)
    statement = f"""SELECT hour / ?4 * ?4 AS step, {_GROUP[by]} AS part, sum(requests), sum(input),
            sum(output), sum(cache_read), sum(cache_write), sum(cost_micro)
        FROM usage_sums WHERE user_id = ?1 AND hour >= ?2 AND hour < ?3
        GROUP BY 1, 2 ORDER BY 1, 2"""  # noqa: S608
    rows = await database.select(statement, (user_id, since, until, step))
    return [Point(*row) for row in rows]


def step_of(since: float, until: float) -> int:
    """The seconds of one point of a chart: an hour, or in a longer range a day (UTC)."""
    return HOUR if until - since <= 3 * DAY else DAY
