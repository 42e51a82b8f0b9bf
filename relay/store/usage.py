"""Usage: sums for `relay usage` and for charts, single requests, and their pruning.

Sums come from the hourly roll-up, which outlives the requests, and from the requests that are not
in it yet. So they are by whole hours, and count an ended request in the hour of its admission.
Must not know who may see them.
"""

import asyncio
import sqlite3
from typing import Final, Literal

import msgspec

from relay.store import answers
from relay.store.database import Database, Work

Grouping = Literal["user", "key", "model", "day"]

_PRUNE_BATCH_ROWS: Final = 100  # about a millisecond, for which the journal waits
_PRUNE_PAUSE_SECONDS: Final = 0.02  # between two batches
_DAY_SECONDS: Final = 86_400


class Sums(msgspec.Struct, frozen=True):
    """The usage of one user, key, model or day."""

    id: str  # of the user or key; the model; the day, such as 2026-04-08 (UTC)
    name: str  # the user's address, the key's name; else the same as `id`
    requests: int
    refunded: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    estimated: int  # tokens of requests settled as reserved; in no other count
    cost_micro: int


class Hour(msgspec.Struct, frozen=True):
    """The usage of one hour: a point on a chart."""

    time: int  # its start, in epoch seconds
    requests: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    estimated: int
    cost_micro: int


class Request(msgspec.Struct, frozen=True):
    """One request that has ended; None: unknown."""

    number: int  # in the order in which they ended
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
    """Requests admitted in [since, until); if named, of one user, key or model only."""

    since: float = 0.0
    until: float = 1e11
    user_id: str | None = None
    key_id: str | None = None
    model: str | None = None

    def sql(self, time: str) -> tuple[str, list[object]]:
        """An SQL condition, for a table whose column `time` has the time, and its values."""
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
# Per grouping: the SQL for a group's id, and for its name.
_GROUPS = {
    "user": ("user_id", "coalesce((SELECT email FROM users WHERE id = heading), heading)"),
    "key": ("key_id", "coalesce((SELECT name FROM keys WHERE id = heading), heading)"),
    "model": ("model", "heading"),
    "day": ("date(hour, 'unixepoch')", "heading"),
}


async def sums(
    database: Database,
    by: Grouping,
    which: Filter = _EVERYTHING,
) -> list[Sums]:
    """Usage by user, key or model, most requests first; or by day (UTC), in order."""
    heading, name = _GROUPS[by]
    condition, values = which.sql("hour")
    columns = ", ".join(Sums.__struct_fields__[2:])
    order = "heading" if by == "day" else "requests DESC, heading"
    statement = f"""WITH found AS (SELECT {heading} AS heading, {_SUMS} FROM usage_sums
            WHERE {condition} GROUP BY 1)
        SELECT heading, {name}, {columns} FROM found ORDER BY {order}"""  # noqa: S608
    return [Sums(*row) for row in await database.select(statement, values)]


async def hours(database: Database, which: Filter = _EVERYTHING) -> list[Hour]:
    """Usage by hour, in order; hours without requests are left out."""
    condition, values = which.sql("hour")
    statement = f"""SELECT hour, sum(requests), sum(input), sum(output), sum(cache_read),
        sum(cache_write), sum(estimated), sum(cost_micro) FROM usage_sums
        WHERE {condition} GROUP BY hour ORDER BY hour"""  # noqa: S608
    return [Hour(*row) for row in await database.select(statement, values)]


class UpstreamDay(msgspec.Struct, frozen=True):
    """The work of an upstream on a day (UTC)."""

    day: int  # its first second
    upstream: str
    requests: int
    tokens: int
    cost_micro: int


async def upstream_days(database: Database, since: float, until: float = 1e11) -> list[UpstreamDay]:
    """Usage by upstream and day, the latest days first. Counts requests that are summed up, which
    takes a second."""
    rows = await database.select(
        """SELECT day, upstream, requests, tokens, cost_micro FROM upstream_day
           WHERE day >= ? AND day < ? ORDER BY day DESC, upstream""",
        (since, until),
    )
    return [UpstreamDay(*row) for row in rows]


async def requests(
    database: Database, which: Filter = _EVERYTHING, limit: int = 100, before: int = 2**62
) -> list[Request]:
    """The latest requests, newest first; `before` is the number that ended the last page."""
    condition, values = which.sql("time")
    columns = ", ".join(Request.__struct_fields__)
    statement = f"""SELECT {columns} FROM usage WHERE {condition} AND number < ?
        ORDER BY number DESC LIMIT ?"""  # noqa: S608
    return [Request(*row) for row in await database.select(statement, [*values, before, limit])]


async def oldest(database: Database) -> float | None:
    """When the oldest request that is kept was admitted, about; None: there is none."""
    rows = await database.select("SELECT time FROM usage ORDER BY number LIMIT 1")
    return rows[0][0] if rows else None


async def prune(database: Database, retention_days: float, now: float) -> int:
    """Delete requests older than `retention_days`, limits that have long refilled, and old days of
    the status.

    Returns the number of requests deleted. Sums and statements stay, and so do requests that are
    not summed up yet, and the last one, since the next number must be above all that were.
    """
    before = now - retention_days * _DAY_SECONDS

    def delete_requests(connection: sqlite3.Connection) -> int:
        return connection.execute(
            """DELETE FROM usage WHERE number IN (SELECT number FROM usage
               ORDER BY number LIMIT ?) AND time < ? AND number <= (SELECT upto FROM summed)
               AND number < (SELECT max(number) FROM usage)""",
            (_PRUNE_BATCH_ROWS, before),
        ).rowcount

    def delete_buckets(connection: sqlite3.Connection) -> int:
        # A day later than needed: a clock stepped back by less must still find them.
        return connection.execute(
            """DELETE FROM bucket WHERE (owner, scope, kind, per) IN (
               SELECT owner, scope, kind, per FROM bucket
               WHERE moment + iif(refill = 'window', 0, used / size) < ? LIMIT ?)""",
            (int((now - _DAY_SECONDS) * 1000), _PRUNE_BATCH_ROWS),
        ).rowcount

    async def repeat(delete: Work[int]) -> int:
        deleted = 0
        while count := await database.write(delete):
            deleted += count
            await asyncio.sleep(_PRUNE_PAUSE_SECONDS)
        return deleted

    await repeat(delete_buckets)
    await database.write(lambda connection: answers.forget(connection, now))
    return await repeat(delete_requests)
