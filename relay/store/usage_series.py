"""An account's usage over time, from the hourly sums, however many requests there were.

Must not know charts or who sees them.
"""

from typing import Final, Literal

import msgspec

from relay.store.database import Database
from relay.store.usage import Filter

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


async def usage_series(database: Database, which: Filter, by: GroupedBy) -> list[Point]:
    """Usage by step and group, in order. A step without usage is left out."""
    step = step_of(which.since, which.until)
    condition, values = which.sql("hour")
    statement = f"""SELECT hour / ? * ? AS step, {_GROUP[by]} AS part, sum(requests), sum(input),
            sum(output), sum(cache_read), sum(cache_write), sum(cost_micro)
        FROM usage_sums WHERE {condition} GROUP BY 1, 2 ORDER BY 1, 2"""  # noqa: S608
    rows = await database.select(statement, (step, step, *values))
    return [Point(*row) for row in rows]


def step_of(since: float, until: float) -> int:
    """The seconds of one point of a chart: an hour, or in a longer range a day (UTC)."""
    return HOUR if until - since <= 3 * DAY else DAY
