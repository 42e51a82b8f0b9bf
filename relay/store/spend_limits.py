"""The most that a person may spend in a day, a week or a month of the calendar (UTC).

Knows the table `spend_limit` and makes the ids. Must not know how a limit is enforced.
"""

import sqlite3
from typing import Any, Final, Literal

import msgspec
from msgspec import structs

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.users import new_id

Period = Literal["daily", "weekly", "monthly"]
_SELECT: Final = """SELECT id, user_id, period, amount_micro, created_at, updated_at
    FROM spend_limit"""


class SpendLimit(msgspec.Struct, frozen=True):
    """One limit; times are epoch seconds. `amount_micro` None: no limit."""

    id: str
    user_id: str
    period: Period
    amount_micro: int | None
    created_at: float
    updated_at: float


async def set_spend_limit(
    database: Database, user_id: str, period: Period, amount_micro: int | None, now: float
) -> SpendLimit:
    """Set a person's limit of a period; another one is overwritten. Raises StoreError."""

    def work(connection: sqlite3.Connection) -> SpendLimit:
        before = _one(connection, "user_id = ? AND period = ?", user_id, period)
        limit = SpendLimit(
            before.id if before else new_id("spl"),
            user_id,
            period,
            amount_micro,
            before.created_at if before else now,
            now,
        )
        connection.execute(
            """INSERT INTO spend_limit VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (id) DO UPDATE SET amount_micro = excluded.amount_micro,
                   updated_at = excluded.updated_at""",
            structs.astuple(limit),
        )
        states = [None if one is None else structs.asdict(one) for one in (before, limit)]
        change = Change("spend_limit.set", user_id, *states)
        record(connection, database.actor, now, change)
        return limit

    return await database.write(work)


async def delete_spend_limit(database: Database, limit_id: str, now: float) -> bool:
    """Delete a limit; False: there is none. Raises StoreError: SQLite failed."""

    def work(connection: sqlite3.Connection) -> bool:
        before = _one(connection, "id = ?", limit_id)
        if before is None:
            return False
        connection.execute("DELETE FROM spend_limit WHERE id = ?", (limit_id,))
        change = Change("spend_limit.delete", before.user_id, structs.asdict(before), None)
        record(connection, database.actor, now, change)
        return True

    return await database.write(work)


async def find_spend_limit(database: Database, limit_id: str) -> SpendLimit | None:
    """The limit with this id; None if there is none."""
    rows = await database.select(f"{_SELECT} WHERE id = ?", (limit_id,))
    return SpendLimit(*rows[0]) if rows else None


async def spend_limits(database: Database, accounts: list[str] | None = None) -> list[SpendLimit]:
    """All limits, or those of some accounts."""
    if accounts is None:
        return [SpendLimit(*row) for row in await database.select(f"{_SELECT} ORDER BY id")]
    which = "user_id IN (SELECT value FROM json_each(?))"
    values = (msgspec.json.encode(accounts).decode(),)
    rows = await database.select(f"{_SELECT} WHERE {which} ORDER BY id", values)
    return [SpendLimit(*row) for row in rows]


async def spent(database: Database, user_id: str, since: float) -> int:
    """The cost of a person's requests since the beginning of an hour, in micro-dollars."""
    [[micro]] = await database.select(
        "SELECT coalesce(sum(cost_micro), 0) FROM usage_sums WHERE user_id = ? AND hour >= ?",
        (user_id, since),
    )
    return int(micro)


async def spent_by(
    database: Database, accounts: list[str], begins: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The cost of accounts since each of some beginnings of hours, in micro-dollars."""
    sums = ", ".join("sum(iif(hour >= ?, cost_micro, 0))" for _ in begins)
    whose = "user_id IN (SELECT value FROM json_each(?)) AND hour >= ?"
    # By itself, SQLite would read all accounts' hours of the month.
    rows = await database.select(
        f"""SELECT user_id, {sums} FROM (
                SELECT user_id, hour, cost_micro FROM usage_hour INDEXED BY usage_hour_by_user
                WHERE {whose}
                UNION ALL
                SELECT user_id, hour, cost_micro FROM usage_lately WHERE {whose})
            GROUP BY user_id""",  # noqa: S608
        (*begins, *2 * (msgspec.json.encode(accounts).decode(), min(begins))),
    )
    return {row[0]: row[1:] for row in rows}


def _one(connection: sqlite3.Connection, condition: str, *values: Any) -> SpendLimit | None:
    row = connection.execute(f"{_SELECT} WHERE {condition}", values).fetchone()
    return None if row is None else SpendLimit(*row)
