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

_STEP_ROWS: Final = 800  # about 2 ms, for which a batch of the journal waits
_COLUMNS: Final = ", ".join(f"usage.{name}" for name in Request.__struct_fields__)
_MAX_SEARCHED: Final = 1_500  # rows of an account that one page looks at
_MAX_LOOKED_AT: Final = 20_000  # rows of all accounts, for the news of one


class RequestFilter(msgspec.Struct, frozen=True):
    """Which requests; None and "" mean any."""

    since: float = 0.0
    until: float = 1e11
    key_id: str = ""
    model: str = ""
    failed: bool = False  # only those that did not end well

    def sql(self) -> tuple[str, list[object]]:
        """An SQL condition on `usage`, and its values."""
        condition = "usage.time >= ? AND usage.time < ?"
        values: list[object] = [self.since, self.until]
        for column, value in (("key_id", self.key_id), ("model", self.model)):
            if value:
                condition += f" AND usage.{column} = ?"
                values.append(value)
        if self.failed:
            condition += " AND usage.outcome <> 'whole'"
        return condition, values


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
    """A page of an account's requests with numbers below `before`.

    A search for something rare ends after so many rows, and goes on from there on the next page.
    """
    rows = await database.select("SELECT upto FROM usage_indexed")
    indexed = int(rows[0][0])
    found = await _behind_index(database, user_id, which, limit, (indexed, before))
    if len(found) < limit:
        end = min(before, indexed + 1)
        least = await _search_end(database, user_id, end)
        found += await _indexed(database, user_id, which, limit - len(found), (least, end))
        if len(found) < limit:
            return RequestPage(found, least + 1 if least else None)
    return RequestPage(found, found[-1].number)


async def _search_end(database: Database, user_id: str, before: int) -> int:
    """The number that ends a search from `before` downwards; 0: it comes to the last row."""
    rows = await database.select(
        "SELECT number FROM usage_of WHERE user_id = ? AND number < ? "
        "ORDER BY number DESC LIMIT 1 OFFSET ?",
        (user_id, before, _MAX_SEARCHED),
    )
    return int(rows[0][0]) if rows else 0


async def _behind_index(
    database: Database, user_id: str, which: RequestFilter, limit: int, between: tuple[int, int]
) -> list[Request]:
    condition, values = which.sql()
    statement = f"""SELECT {_COLUMNS} FROM usage WHERE user_id = ? AND number > ? AND number < ?
        AND {condition} ORDER BY number DESC LIMIT ?"""  # noqa: S608
    rows = await database.select(statement, [user_id, *between, *values, limit])
    return [Request(*row) for row in rows]


async def _indexed(
    database: Database, user_id: str, which: RequestFilter, limit: int, between: tuple[int, int]
) -> list[Request]:
    condition, values = which.sql()
    # In the order of the index, so that it stops at the limit.
    statement = f"""SELECT {_COLUMNS} FROM usage_of CROSS JOIN usage
        ON usage.number = usage_of.number
        WHERE usage_of.user_id = ? AND usage_of.number > ? AND usage_of.number < ?
        AND {condition} ORDER BY usage_of.number DESC LIMIT ?"""  # noqa: S608
    rows = await database.select(statement, [user_id, *between, *values, limit])
    return [Request(*row) for row in rows]


async def last_number(database: Database) -> int:
    """The number of the last row."""
    rows = await database.select("SELECT coalesce(max(number), 0) FROM usage")
    return int(rows[0][0])


async def has_after(database: Database, user_id: str, number: int) -> bool:
    """Whether an account has rows after that number; true, too, if there are too many to look."""
    last = await last_number(database)
    if not last - _MAX_LOOKED_AT <= number < last:  # also a number that SQLite cannot hold
        return number < last
    rows = await database.select(
        "SELECT EXISTS (SELECT 1 FROM usage WHERE number > ? AND user_id = ?)", (number, user_id)
    )
    return bool(rows[0][0])


async def newest(database: Database, seen: int) -> tuple[int, set[str]]:
    """The number of the last row, and the accounts that have rows after `seen`, which is below
    0 at first."""
    last = await last_number(database)
    if seen < 0 or last <= seen:
        return last, set()
    found = await database.select(
        "SELECT DISTINCT user_id FROM usage WHERE number > ? AND number <= ?", (seen, last)
    )
    return last, {user_id for (user_id,) in found}
