"""Authenticator apps and recovery codes in the database.

Knows the tables `totp` and `recovery_code`. Keeps sealed secrets and digests only. Must not know
any policy: `relay.accounts` decides which codes are right. Every function raises `StoreError`
when SQLite fails.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from relay.store.audit import Change, record
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
        change = Change("factor.app_on", totp.user_id, None, {"recovery_codes": len(digests)})
        record(connection, database.actor, now, change)
        return True

    return await database.write(work)


async def use_step(database: Database, user_id: str, step: int) -> bool:
    """Note that the code of a step was accepted; False if this or a later one was before."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "UPDATE totp SET last_step = ? WHERE user_id = ? AND last_step < ?"
        return connection.execute(statement, (step, user_id, step)).rowcount > 0

    return await database.write(work)


async def remove_totp(database: Database, user_id: str, now: float) -> bool:
    """Remove an app and its recovery codes; False if there is none."""

    def work(connection: sqlite3.Connection) -> bool:
        connection.execute("DELETE FROM recovery_code WHERE user_id = ?", (user_id,))
        statement = "DELETE FROM totp WHERE user_id = ? RETURNING confirmed_at"
        rows = connection.execute(statement, (user_id,)).fetchall()
        if rows and rows[0][0] is not None:  # it was in force
            record(connection, database.actor, now, Change("factor.app_off", user_id))
        return bool(rows)

    return await database.write(work)


# --- recovery codes ---


def _replace(connection: sqlite3.Connection, user_id: str, digests: Sequence[bytes]) -> None:
    connection.execute("DELETE FROM recovery_code WHERE user_id = ?", (user_id,))
    connection.executemany(
        "INSERT INTO recovery_code VALUES (?, ?)", [(digest, user_id) for digest in digests]
    )


async def replace_recovery_codes(
    database: Database, user_id: str, digests: Sequence[bytes], now: float
) -> None:
    """Give an account other recovery codes."""

    def work(connection: sqlite3.Connection) -> None:
        _replace(connection, user_id, digests)
        change = Change("factor.codes_renewed", user_id, None, {"recovery_codes": len(digests)})
        record(connection, database.actor, now, change)

    await database.write(work)


async def use_recovery_code(database: Database, user_id: str, digest: bytes, now: float) -> bool:
    """Use up a recovery code; False if there is none."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "DELETE FROM recovery_code WHERE digest = ? AND user_id = ?"
        if not connection.execute(statement, (digest, user_id)).rowcount:
            return False
        count = "SELECT count(*) FROM recovery_code WHERE user_id = ?"
        left = connection.execute(count, (user_id,)).fetchone()[0]
        before, after = {"recovery_codes": left + 1}, {"recovery_codes": left}
        change = Change("factor.code_used", user_id, before, after)
        record(connection, database.actor, now, change)
        return True

    if not await database.select("SELECT 1 FROM recovery_code WHERE digest = ?", (digest,)):
        return False
    async with database.claims.once("recovery code", digest.hex()):
        return await database.write(work)


async def count_recovery_codes(database: Database, user_id: str) -> int:
    """How many recovery codes an account has left."""
    rows = await database.select("SELECT count(*) FROM recovery_code WHERE user_id = ?", (user_id,))
    number: int = rows[0][0]
    return number
