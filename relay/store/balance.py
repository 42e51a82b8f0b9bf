"""Money: credits to accounts, charges for requests, and the statement of both.

A balance is the sum of its statement, kept by triggers; entries are only ever added. The journal
writes charges, this module writes credits. A running server notices a credit like any other
change (`LiveKey.credited`). Amounts are whole micro-dollars.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.audit import Actor, Change, record
from relay.store.database import Database
from relay.store.events import Event, emit
from relay.store.ids import next_id

MAX_CREDIT_MICRO: Final = 10**12  # a million dollars; more is a typing error

_COLUMNS: Final = """id, user_id, time, kind, amount_micro, balance_after, request_id, note,
    reason, about"""


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
    reason: str = ""  # of a credit: redemption, refund, payment, reversal; empty: the operator
    about: str | None = None  # the code, request or payment; the same one is credited once


class NewCredit(msgspec.Struct, frozen=True):
    """A credit to be entered. See `Entry`."""

    user_id: str
    amount_micro: int
    note: str = ""
    reason: str = ""
    about: str | None = None


def add_credit(connection: sqlite3.Connection, actor: Actor, new: NewCredit, now: float) -> Entry:
    """Enter a credit within a transaction, with its entry in the audit log."""
    row = connection.execute(
        f"""INSERT INTO statement (id, user_id, time, kind, amount_micro, balance_after, note,
               reason, about)
           VALUES ({next_id("statement")}, ?1, ?2, 'credit', ?3,
                   coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) + ?3, ?4, ?5, ?6)
           RETURNING {_COLUMNS}""",  # noqa: S608
        (new.user_id, now, new.amount_micro, new.note, new.reason, new.about),
    ).fetchall()[0]
    entry = Entry(*row)
    before = {"balance_micro": entry.balance_after - new.amount_micro}
    after = {
        "balance_micro": entry.balance_after,
        "amount_micro": new.amount_micro,
        "note": new.note,
        "about": new.about,
    }
    action = f"balance.{new.reason or 'credit'}"
    record(connection, actor, now, Change(action, new.user_id, before, after))
    if new.amount_micro > 0 and new.reason in ("payment", "redemption", ""):
        email = connection.execute(
            "SELECT coalesce((SELECT email FROM users WHERE id = ?1), ?1)", (new.user_id,)
        ).fetchone()[0]
        text = f"{new.amount_micro} micro-dollars by {new.reason or 'credit'}"
        emit(connection, now, Event("payment", email, text))
    return entry


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

    new = NewCredit(user_id, amount_micro, note)
    return await database.write(lambda connection: add_credit(connection, database.actor, new, now))


async def refund(database: Database, request_id: str, note: str, now: float) -> Entry:
    """Give back what a request was charged, once.

    Raises:
        ValueError: no charge has that request, or it was given back before.
        StoreError: SQLite failed, or another node gives it back now; nothing was given back here.
    """
    given = "SELECT 1 FROM statement WHERE reason = 'refund' AND about = ?"
    if await database.select(given, (request_id,)):
        raise ValueError(f"request {request_id} was given back already")

    def work(connection: sqlite3.Connection) -> Entry:
        row = connection.execute(
            "SELECT user_id, -amount_micro FROM statement WHERE request_id = ?", (request_id,)
        ).fetchone()
        if row is None:
            raise ValueError(f"no request with the id {request_id!r} was charged")
        if _is_entered(connection, "refund", request_id):
            raise ValueError(f"request {request_id} was given back already")
        new = NewCredit(row[0], row[1], note, "refund", request_id)
        return add_credit(connection, database.actor, new, now)

    async with database.claims.once("refund", request_id):
        return await database.write(work)


def _is_entered(connection: sqlite3.Connection, reason: str, about: str) -> bool:
    query = "SELECT 1 FROM statement WHERE reason = ? AND about = ?"
    return connection.execute(query, (reason, about)).fetchone() is not None


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


async def balance_of(database: Database, user_id: str) -> int:
    """An account's balance, in micro-dollars."""
    rows = await database.select("SELECT micro FROM balance WHERE user_id = ?", (user_id,))
    return int(rows[0][0]) if rows else 0
