"""What was used: sums for `relay usage` and for charts, single requests, and their pruning.

Sums come from the hourly roll-up, which outlives the requests themselves, and from what is
not in it yet. So they are by whole hours, and count a request in the hour in which it was
admitted, once it has ended. Who may see what is decided elsewhere.
"""

import asyncio
import sqlite3
from typing import Final, Literal

import msgspec

from relay.store.database import Database, Work

_PRUNED_AT_ONCE: Final = 250  # rows; a few milliseconds, for the journal waits meanwhile
_PAUSE: Final = 0.02  # seconds between two such steps
_DAY: Final = 86_400


class Sums(msgspec.Struct, frozen=True):
    """What was used under one heading. `estimated` are tokens of requests that were settled
    as reserved, since nothing was reported; they are in none of the other counts."""

    id: str  # of the user or key; the model; the day, such as 2026-04-08 (UTC)
    name: str  # the user's address, the key's name; else as `id`
    requests: int
    refunded: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    estimated: int
    cost_micro: int


class Hour(msgspec.Struct, frozen=True):
    """A point on a chart."""

    time: int
    requests: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    estimated: int
    cost_micro: int


class Request(msgspec.Struct, frozen=True):
    """One request that has ended; what is None is unknown."""

    number: int  # in the order of their ends
    id: str
    time: float
    key_id: str
    user_id: str
    model: str
    dialect: str
    reserved: int
    status: int | None
    served: str | None
    upstream: str | None
    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    cost_micro: int
    ttfb_us: int | None
    duration_us: int | None
    outcome: str
    rule: str


class Filter(msgspec.Struct, frozen=True):
    """Which requests: admitted in [since, until), and of one user, key or model where named."""

    since: float = 0.0
    until: float = 1e11
    user_id: str | None = None
    key_id: str | None = None
    model: str | None = None

    def sql(self, time: str) -> tuple[str, list[object]]:
        """The condition on a column that holds the time, and its values."""
        condition = f"{time} >= ? AND {time} < ?"
        values: list[object] = [self.since, self.until]
        for column in ("user_id", "key_id", "model"):
            value = getattr(self, column)
            if value is not None:
                condition += f" AND {column} = ?"
                values.append(value)
        return condition, values


_EVERYTHING = Filter()
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in Sums.__struct_fields__[2:])
# What the rows are grouped by, and the name of a group.
_GROUPS = {
    "user": ("user_id", "coalesce((SELECT email FROM users WHERE id = heading), heading)"),
    "key": ("key_id", "coalesce((SELECT name FROM keys WHERE id = heading), heading)"),
    "model": ("model", "heading"),
    "day": ("date(hour, 'unixepoch')", "heading"),
}


async def sums(
    database: Database,
    by: Literal["user", "key", "model", "day"],
    which: Filter = _EVERYTHING,
) -> list[Sums]:
    """What was used, by user, key, model or day (UTC): days in their order, else most first."""
    heading, name = _GROUPS[by]
    condition, values = which.sql("hour")
    columns = ", ".join(Sums.__struct_fields__[2:])
    order = "heading" if by == "day" else "requests DESC, heading"
    statement = f"""WITH found AS (SELECT {heading} AS heading, {_SUMS} FROM usage_sums
            WHERE {condition} GROUP BY 1)
        SELECT heading, {name}, {columns} FROM found ORDER BY {order}"""  # noqa: S608
    return await database.read(
        lambda connection: [Sums(*row) for row in connection.execute(statement, values)]
    )


async def hours(database: Database, which: Filter = _EVERYTHING) -> list[Hour]:
    """What was used in each hour in which something was."""
    condition, values = which.sql("hour")
    statement = f"""SELECT hour, sum(requests), sum(input), sum(output), sum(cache_read),
        sum(cache_write), sum(estimated), sum(cost_micro) FROM usage_sums
        WHERE {condition} GROUP BY hour ORDER BY hour"""  # noqa: S608
    return await database.read(
        lambda connection: [Hour(*row) for row in connection.execute(statement, values)]
    )


async def requests(
    database: Database, which: Filter = _EVERYTHING, most: int = 100, before: int = 2**62
) -> list[Request]:
    """The latest requests, newest first; for the next page, `before` the last one's number."""
    condition, values = which.sql("time")
    columns = ", ".join(Request.__struct_fields__)
    statement = f"""SELECT {columns} FROM usage WHERE {condition} AND number < ?
        ORDER BY number DESC LIMIT ?"""  # noqa: S608
    values += [before, most]
    return await database.read(
        lambda connection: [Request(*row) for row in connection.execute(statement, values)]
    )


async def prune(database: Database, retention_days: float, now: float) -> int:
    """Forget requests older than so many days, and limits that have long been whole again;
    returns how many requests. Sums and statements stay, and so does the last request, for the
    next one's number must be above all that were summed up; and what ended since the oldest
    batch that is not closed, for a restart looks there for what a crash interrupted."""
    before = now - retention_days * _DAY

    def requests(connection: sqlite3.Connection) -> int:
        return connection.execute(
            """DELETE FROM usage WHERE number IN (SELECT number FROM usage
               ORDER BY number LIMIT ?) AND time < ? AND number <= (SELECT upto FROM summed)
               AND number < (SELECT max(number) FROM usage)
               AND number <= coalesce((SELECT min(after) FROM batch), ?)""",
            (_PRUNED_AT_ONCE, before, 2**62),
        ).rowcount

    def buckets(connection: sqlite3.Connection) -> int:
        # A day on top: a clock that is stepped back by less must find them as they were.
        return connection.execute(
            """DELETE FROM bucket WHERE (owner, scope, kind, per) IN (
               SELECT owner, scope, kind, per FROM bucket
               WHERE moment + iif(refill = 'window', 0, used / size) < ? LIMIT ?)""",
            (int((now - _DAY) * 1000), _PRUNED_AT_ONCE),
        ).rowcount

    async def all_of(work: Work[int]) -> int:
        done = 0
        while count := await database.write(work):
            done += count
            await asyncio.sleep(_PAUSE)
        return done

    await all_of(buckets)
    return await all_of(requests)
