"""Changes of windows that wait for the running server: resets, bonuses, new beginnings.

The limits live in the server's memory, so a change is written here and the server applies it; the
journal notes that in the transaction that has the limits' new state, so that none is applied twice
or lost. Must not know limits or policy.
"""

import sqlite3
from typing import Final, Literal

import msgspec

from relay.store.audit import Actor, Change, record
from relay.store.database import Database

_INSERT: Final = """INSERT INTO adjustment (user_id, kind, counts, per, amount, windows, made_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


class Adjustment(msgspec.Struct, frozen=True):
    """A change of an account's windows. `renew` ends all of them."""

    user_id: str
    kind: Literal["reset", "bonus", "renew"]
    counts: str = ""  # requests or tokens
    per: int = 0  # seconds
    amount: int = 0
    windows: int = 0


class PendingAdjustment(msgspec.Struct, frozen=True):
    """An adjustment that has yet to be applied, and the plan of its account."""

    id: int
    adjustment: Adjustment
    plan: str
    made_at: float = 0.0  # epoch seconds


def add(connection: sqlite3.Connection, actor: Actor, new: Adjustment, now: float) -> None:
    """Write an adjustment, with its entry in the audit log, within a transaction."""
    values = (new.user_id, new.kind, new.counts, new.per, new.amount, new.windows)
    connection.execute(_INSERT, (*values, now))
    after = {
        name: value
        for name in ("counts", "per", "amount", "windows")
        if (value := getattr(new, name))
    }
    record(connection, actor, now, Change(f"window.{new.kind}", new.user_id, None, after))


async def adjust(database: Database, new: Adjustment, now: float) -> None:
    """Ask the running server for an adjustment. Raises StoreError: SQLite failed."""
    await database.write(lambda connection: add(connection, database.actor, new, now))


async def pending(database: Database, now: float) -> list[PendingAdjustment]:
    """The adjustments that have yet to be applied, oldest first."""
    rows = await database.select(
        """SELECT adjustment.id, user_id, kind, counts, per, amount, windows,
               iif(plan_until <= ?, plan_then, plan), made_at
           FROM adjustment JOIN users ON users.id = user_id
           WHERE applied_at IS NULL ORDER BY adjustment.id""",
        (now,),
    )
    return [PendingAdjustment(row[0], Adjustment(*row[1:7]), row[7], row[8]) for row in rows]
