"""Answers to calls with an Idempotency-Key: kept for a day, given again to the same call.

A call first claims its name, so that of two at once one alone is carried out. Must not know calls.
"""

import sqlite3
from typing import Final

import msgspec

from relay.store.database import Database

_KEPT_SECONDS: Final = 86_400


class KeptAnswer(msgspec.Struct, frozen=True):
    """An answer of before. `status` 0: its call is still being carried out, or the process ended
    meanwhile."""

    digest: bytes  # of the call
    status: int
    body: bytes


async def claim(
    database: Database, name: tuple[str, str], digest: bytes, now: float
) -> KeptAnswer | None:
    """Claim a name, of an admin key and a call; None: it is this call's now. Else its answer.

    Raises:
        StoreError: SQLite failed.
    """

    def work(connection: sqlite3.Connection) -> KeptAnswer | None:
        connection.execute(
            """DELETE FROM idempotency WHERE admin_key = ? AND name = ?
               AND time < ?""",
            (*name, now - _KEPT_SECONDS),
        )
        row = connection.execute(
            "SELECT digest, status, body FROM idempotency WHERE admin_key = ? AND name = ?", name
        ).fetchone()
        if row is not None:
            return KeptAnswer(*row)
        connection.execute(
            "INSERT INTO idempotency VALUES (?, ?, ?, ?, 0, x'')", (*name, digest, now)
        )
        return None

    async with database.claims.alone("calls"):
        return await database.write(work)


async def keep(database: Database, name: tuple[str, str], status: int, body: bytes) -> None:
    """Keep the answer of a call that has claimed its name. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "UPDATE idempotency SET status = ?, body = ? WHERE admin_key = ? AND name = ?",
            (status, body, *name),
        )
    )


async def release(database: Database, name: tuple[str, str]) -> None:
    """Forget the claim of a call that changed nothing. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "DELETE FROM idempotency WHERE admin_key = ? AND name = ?", name
        )
    )


async def prune(database: Database, now: float) -> None:
    """Delete old answers. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "DELETE FROM idempotency WHERE time < ?", (now - _KEPT_SECONDS,)
        )
    )
