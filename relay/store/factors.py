"""Authenticator apps and recovery codes in the database.

Knows the tables `totp` and `recovery_code`. Keeps sealed secrets and digests only. Must not know
any policy: `relay.accounts` decides which codes are right. Every function raises `StoreError`
when SQLite fails.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from relay.store.database import Database


class Totp(msgspec.Struct, frozen=True):
    """An authenticator app; times are epoch seconds."""

    user_id: str
    sealed: bytes
    confirmed_at: float | None  # None: its first code is awaited
    last_step: int


async def find_totp(database: Database, user_id: str) -> Totp | None:
    """The app of an account, confirmed or not."""
    rows = await database.select(
        "SELECT user_id, sealed, confirmed_at, last_step FROM totp WHERE user_id = ?", (user_id,)
    )
    return Totp(*rows[0]) if rows else None


async def put_totp(database: Database, user_id: str, sealed: bytes) -> bool:
    """Keep the secret of an app that awaits its first code; False if one is confirmed already."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = """INSERT INTO totp (user_id, sealed) VALUES (?, ?)
            ON CONFLICT DO UPDATE SET sealed = excluded.sealed, last_step = 0
            WHERE confirmed_at IS NULL"""
        return connection.execute(statement, (user_id, sealed)).rowcount > 0

    return await database.write(work)


async def confirm_totp(
    database: Database, totp: Totp, step: int, digests: Sequence[bytes], now: float
) -> bool:
    """Put an app into force with its first code, and replace all recovery codes; False if it is in
    force already, or has another secret by now."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = """UPDATE totp SET confirmed_at = ?, last_step = ?
            WHERE user_id = ? AND sealed = ? AND confirmed_at IS NULL"""
        values = (now, step, totp.user_id, totp.sealed)
        if not connection.execute(statement, values).rowcount:
            return False
        _replace(connection, totp.user_id, digests)
        return True

    return await database.write(work)


async def use_step(database: Database, user_id: str, step: int) -> bool:
    """Note that the code of a step was accepted; False if this or a later one was before."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "UPDATE totp SET last_step = ? WHERE user_id = ? AND last_step < ?"
        return connection.execute(statement, (step, user_id, step)).rowcount > 0

    return await database.write(work)


async def remove_totp(database: Database, user_id: str) -> bool:
    """Remove an app and its recovery codes; False if there is none."""

    def work(connection: sqlite3.Connection) -> bool:
        connection.execute("DELETE FROM recovery_code WHERE user_id = ?", (user_id,))
        statement = "DELETE FROM totp WHERE user_id = ?"
        return connection.execute(statement, (user_id,)).rowcount > 0

    return await database.write(work)


# --- recovery codes ---


def _replace(connection: sqlite3.Connection, user_id: str, digests: Sequence[bytes]) -> None:
    connection.execute("DELETE FROM recovery_code WHERE user_id = ?", (user_id,))
    connection.executemany(
        "INSERT INTO recovery_code VALUES (?, ?)", [(digest, user_id) for digest in digests]
    )


async def replace_recovery_codes(
    database: Database, user_id: str, digests: Sequence[bytes]
) -> None:
    """Give an account other recovery codes."""
    await database.write(lambda connection: _replace(connection, user_id, digests))


async def use_recovery_code(database: Database, user_id: str, digest: bytes) -> bool:
    """Use up a recovery code; False if there is none."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "DELETE FROM recovery_code WHERE digest = ? AND user_id = ?"
        return connection.execute(statement, (digest, user_id)).rowcount > 0

    return await database.write(work)


async def count_recovery_codes(database: Database, user_id: str) -> int:
    """How many recovery codes an account has left."""
    rows = await database.select("SELECT count(*) FROM recovery_code WHERE user_id = ?", (user_id,))
    number: int = rows[0][0]
    return number
