"""Users in the database: added, found, listed and changed.

Knows the table `users` and makes the ids. Must not know any policy: `relay.accounts` decides
what is allowed and passes plain values. Every function raises `StoreError` when SQLite fails.
"""

import secrets
import sqlite3
from typing import Any, Final

import msgspec

from relay.store.database import Database

_SELECT: Final = "SELECT id, email, plan, is_admin, suspended_at, created_at FROM users"


class User(msgspec.Struct, frozen=True):
    """An account; times are epoch seconds."""

    id: str
    email: str
    plan: str
    is_admin: bool
    suspended_at: float | None
    created_at: float


def new_id(prefix: str) -> str:
    """A random id such as `usr_0123456789abcdef`."""
    return f"{prefix}_{secrets.token_hex(8)}"


def _user(row: tuple[Any, ...]) -> User:
    user_id, email, plan, is_admin, suspended_at, created_at = row
    return User(user_id, email, plan, bool(is_admin), suspended_at, created_at)


def _select_user(connection: sqlite3.Connection, email: str) -> User | None:
    row = connection.execute(f"{_SELECT} WHERE email = ?", (email,)).fetchone()
    return None if row is None else _user(row)


async def create_user(
    database: Database, *, email: str, plan: str, is_admin: bool, now: float
) -> User | None:
    """Add a user; None if the e-mail address is taken."""
    user = User(new_id("usr"), email, plan, is_admin, None, now)

    def work(connection: sqlite3.Connection) -> User | None:
        if _select_user(connection, email) is not None:
            return None
        connection.execute(
            "INSERT INTO users (id, email, plan, is_admin, created_at) VALUES (?, ?, ?, ?, ?)",
            (user.id, user.email, user.plan, user.is_admin, user.created_at),
        )
        return user

    return await database.write(work)


async def find_user(database: Database, email: str) -> User | None:
    """The user with this e-mail address, in any case; None if there is none."""
    rows = await database.select(f"{_SELECT} WHERE email = ?", (email,))
    return _user(rows[0]) if rows else None


async def list_users(database: Database) -> list[User]:
    """All users, ordered by address."""
    return [_user(row) for row in await database.select(f"{_SELECT} ORDER BY email")]


async def set_plan(database: Database, email: str, plan: str) -> User | None:
    """Move a user to another plan; None if there is no such user."""
    return await _update(database, email, "plan = ?", plan)


async def suspend(database: Database, email: str, now: float) -> User | None:
    """Suspend an account. A second call keeps the first time. None if there is no such user."""
    return await _update(database, email, "suspended_at = coalesce(suspended_at, ?)", now)


async def resume(database: Database, email: str) -> User | None:
    """End a suspension; None if there is no such user."""
    return await _update(database, email, "suspended_at = ?", None)


async def _update(
    database: Database, email: str, assignment: str, value: str | float | None
) -> User | None:
    def work(connection: sqlite3.Connection) -> User | None:
        connection.execute(f"UPDATE users SET {assignment} WHERE email = ?", (value, email))  # noqa: S608
        return _select_user(connection, email)

    return await database.write(work)
