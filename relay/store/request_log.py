"""A person's own requests, newest first, however many rows `usage` has.

`usage` has no index by account, since that would cost every request. `advance` brings the table
`usage_of` up to date in the background, while somebody looks at pages; the rows behind it are
scanned. Must not know who looks.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.database import Database
from relay.store.usage import Request

_STEP_ROWS: Final = 4_000  # about 10 ms, for which the journal waits
_COLUMNS: Final = ", ".join(f"usage.{name}" for name in Request.__struct_fields__)
_MAX_SEARCHED: Final = 20_000  # rows of an account that one page looks at


class RequestFilter(msgspec.Struct, frozen=True):
    """Which requests; None and "" mean any."""

    since: float = 0.0
    until: float = 1e11
    key_id: str = ""
    model: str = ""
    failed: bool = False  # only those that did not end well


class RequestPage(msgspec.Struct, frozen=True):
    """Requests, newest first. `before` is where the next page begins; None: there are no more."""

    rows: list[Request]
    before: int | None


async def advance(database: Database, most_rows: int = _STEP_ROWS) -> bool:
    """Index the next rows of `usage`; returns whether there are more."""

    def work(connection: sqlite3.Connection) -> bool:
        last, done = connection.execute(
            "SELECT (SELECT coalesce(max(number), 0) FROM usage), upto FROM usage_indexed"
        ).fetchone()
        until = min(last, done + most_rows)
        if until > done:
            connection.execute(
                """INSERT OR IGNORE INTO usage_of (user_id, number)
                   SELECT user_id, number FROM usage WHERE number > ? AND number <= ?
                   ORDER BY user_id, number""",
                (done, until),
            )
            connection.execute("UPDATE usage_indexed SET upto = ?", (until,))
        return bool(until < last)

    return await database.write(work)


async def behind(database: Database) -> int:
    """Number of rows that are not indexed."""
    rows = await database.select(
        "SELECT (SELECT coalesce(max(number), 0) FROM usage) - upto FROM usage_indexed"
    )
    return int(rows[0][0])


async def own_requests(
    database: Database,
    user_id: str,
    which: RequestFilter,
    limit: int = 50,
    before: int = 2**62,
) -> RequestPage:
    """A page of an account's requests with numbers below `before`."""
    condition = "usage.time >= ?3 AND usage.time < ?4"
    values: list[object] = [user_id, before, which.since, which.until, limit]
    for column, value in (("key_id", which.key_id), ("model", which.model)):
        if value:
            values.append(value)
            condition += f" AND usage.{column} = ?{len(values)}"
    if which.failed:
        condition += " AND usage.outcome <> 'whole'"
    # The account's latest rows, then those of them that match: a search for something rare ends
    # after so many rows, and goes on from there on the next page.
    own = f"""WITH own AS (
            SELECT number FROM usage WHERE user_id = ?1 AND number < ?2
                AND number > (SELECT upto FROM usage_indexed)
            UNION ALL SELECT number FROM usage_of WHERE user_id = ?1 AND number < ?2
                AND number <= (SELECT upto FROM usage_indexed)
            ORDER BY number DESC LIMIT {_MAX_SEARCHED})"""  # noqa: S608
    found = await database.select(
        f"""{own} SELECT {_COLUMNS} FROM own CROSS JOIN usage USING (number)
            WHERE {condition} ORDER BY usage.number DESC LIMIT ?5""",  # noqa: S608
        values,
    )
    rows = [Request(*row) for row in found]
    if len(rows) == limit:
        return RequestPage(rows, rows[-1].number)
    searched = await database.select(
        f"{own} SELECT min(number), count(*) FROM own",  # noqa: S608
        (user_id, before),
    )
    least, count = searched[0]
    return RequestPage(rows, int(least) if count == _MAX_SEARCHED else None)


async def newest(database: Database, seen: int) -> tuple[int, set[str]]:
    """The number of the last row, and the accounts that have rows after `seen`, which is below
    0 at first."""
    rows = await database.select("SELECT coalesce(max(number), 0) FROM usage")
    last = int(rows[0][0])
    if seen < 0 or last <= seen:
        return last, set()
    found = await database.select(
        "SELECT DISTINCT user_id FROM usage WHERE number > ? AND number <= ?", (seen, last)
    )
    return last, {user_id for (user_id,) in found}
