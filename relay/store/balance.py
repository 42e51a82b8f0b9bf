"""Money: what accounts paid in, what was charged, and the statement of both.

A balance is the sum of its statement, kept by triggers; entries are only ever added.
Charges are written by the journal's settlements, credits here. A running server sees a
credit as any other change (`LiveKey.credited`). Amounts are whole micro-dollars.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.database import Database

MOST: Final = 10**12  # a million dollars; more is a slip of the keyboard


class Balance(msgspec.Struct, frozen=True):
    """What an account paid in and was charged; requests that run are not in it."""

    user_id: str
    credited: int
    charged: int
    micro: int


class Entry(msgspec.Struct, frozen=True):
    """One line of a statement; `amount_micro` is below zero for a charge."""

    id: int
    user_id: str
    time: float
    kind: str
    amount_micro: int
    balance_after: int
    request_id: str | None
    note: str


async def credit(
    database: Database, user_id: str, amount_micro: int, note: str, now: float
) -> Entry:
    """Add to an account's balance; less than zero takes back what was credited by mistake.

    Raises:
        ValueError: nothing, or more than `MOST` at once.
        StoreError: SQLite failed, and nothing was credited.
    """
    if not 0 < abs(amount_micro) <= MOST:
        raise ValueError(f"a credit is up to {MOST // 10**6:,} dollars, and not nothing")

    def work(connection: sqlite3.Connection) -> Entry:
        row = connection.execute(
            """INSERT INTO statement (user_id, time, kind, amount_micro, balance_after, note)
               VALUES (?1, ?2, 'credit', ?3,
                       coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) + ?3, ?4)
               RETURNING id, user_id, time, kind, amount_micro, balance_after, request_id, note""",
            (user_id, now, amount_micro, note),
        ).fetchall()[0]
        return Entry(*row)

    return await database.write(work)


async def statement(
    database: Database, user_id: str, most: int = 100, before: int | None = None
) -> list[Entry]:
    """An account's latest entries, newest first; for the next page, `before` the last one's id."""
    return await database.read(
        lambda connection: [
            Entry(*row)
            for row in connection.execute(
                """SELECT id, user_id, time, kind, amount_micro, balance_after, request_id, note
                   FROM statement WHERE user_id = ?1 AND id < coalesce(?2, 9e18)
                   ORDER BY id DESC LIMIT ?3""",
                (user_id, before, most),
            )
        ]
    )


async def balances(database: Database) -> dict[str, Balance]:
    """Every account that has a statement, by its user's id."""
    return await database.read(
        lambda connection: {
            row[0]: Balance(*row)
            for row in connection.execute("SELECT user_id, credited, charged, micro FROM balance")
        }
    )
