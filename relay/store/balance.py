"""Money: credits to accounts, charges for requests, and the statement of both.

A balance is the sum of its statement, kept by triggers; entries are only ever added. The journal
writes charges, this module writes credits. A running server notices a credit like any other
change (`LiveKey.credited`). Amounts are whole micro-dollars.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.database import Database

MAX_CREDIT_MICRO: Final = 10**12  # a million dollars; more is a typing error

_COLUMNS: Final = "id, user_id, time, kind, amount_micro, balance_after, request_id, note"


class Entry(msgspec.Struct, frozen=True):
    """One line of a statement; `time` is epoch seconds."""

    id: int
    user_id: str
    time: float
    kind: str
    amount_micro: int  # below zero for a charge
    balance_after: int
    request_id: str | None
    note: str


async def credit(
    database: Database, user_id: str, amount_micro: int, note: str, now: float
) -> Entry:
    """Add to an account's balance; a negative amount corrects a mistake.

    Raises:
        ValueError: the amount is zero, or more than `MAX_CREDIT_MICRO`.
        StoreError: SQLite failed, and nothing was credited.
    """
    if not 0 < abs(amount_micro) <= MAX_CREDIT_MICRO:
        dollars = MAX_CREDIT_MICRO // 10**6
        raise ValueError(f"a credit is up to {dollars:,} dollars, and not nothing")

    def work(connection: sqlite3.Connection) -> Entry:
        row = connection.execute(
            f"""INSERT INTO statement (user_id, time, kind, amount_micro, balance_after, note)
               VALUES (?1, ?2, 'credit', ?3,
                       coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) + ?3, ?4)
               RETURNING {_COLUMNS}""",  # noqa: S608
            (user_id, now, amount_micro, note),
        ).fetchall()[0]
        return Entry(*row)

    return await database.write(work)


async def statement(
    database: Database, user_id: str, limit: int = 100, before: int | None = None
) -> list[Entry]:
    """An account's latest entries, newest first; `before` is the id that ended the last page."""
    rows = await database.select(
        f"""SELECT {_COLUMNS} FROM statement WHERE user_id = ?1 AND id < coalesce(?2, 9e18)
            ORDER BY id DESC LIMIT ?3""",  # noqa: S608
        (user_id, before, limit),
    )
    return [Entry(*row) for row in rows]
