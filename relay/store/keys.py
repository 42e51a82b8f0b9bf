"""What is asked of the database, each question a function with a typed answer.

Knows SQL and the tables, and makes the ids. Knows no policy: who may do what, and
what a plan allows, is decided in `relay.accounts` and comes in as plain values.
`None` in place of a record says that there is none, or that a rule was in the way;
each function says which.
"""

import secrets
import sqlite3
from typing import Any

import msgspec

from relay.store.database import Database


class User(msgspec.Struct, frozen=True):
    """Somebody with an account."""

    id: str
    email: str
    plan: str
    is_admin: bool
    suspended_at: float | None
    created_at: float


class Key(msgspec.Struct, frozen=True):
    """A key as it is shown after its making: without the key."""

    id: str
    email: str
    name: str
    hint: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    cache_breakpoints: bool

    def state(self, now: float) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "live"


class LiveKey(msgspec.Struct, frozen=True):
    """What a server must know to tell a caller by their key; it may have expired since."""

    digest: bytes
    key_id: str
    user_id: str
    email: str
    plan: str
    suspended: bool
    expires_at: float | None
    credited: int = 0  # all that its user ever paid in, in micro-dollars
    cache_breakpoints: bool = True  # its requests get marks for the prompt cache


_USERS = "SELECT id, email, plan, is_admin, suspended_at, created_at FROM users"
_KEYS = """SELECT keys.id, email, name, hint, keys.created_at, expires_at, revoked_at,
        cache_breakpoints
    FROM keys JOIN users ON users.id = keys.user_id"""
_LIVE = """SELECT digest, keys.id, keys.user_id, email, plan, suspended_at IS NOT NULL,
        expires_at, coalesce(credited, 0), cache_breakpoints
    FROM keys JOIN users ON users.id = keys.user_id
    LEFT JOIN balance ON balance.user_id = users.id WHERE revoked_at IS NULL"""


def _user(row: tuple[Any, ...]) -> User:
    user_id, email, plan, is_admin, suspended_at, created_at = row
    return User(user_id, email, plan, bool(is_admin), suspended_at, created_at)


def _key(row: tuple[Any, ...]) -> Key:
    key_id, email, name, hint, created_at, expires_at, revoked_at, marked = row
    return Key(key_id, email, name, hint, created_at, expires_at, revoked_at, bool(marked))


def _one_user(connection: sqlite3.Connection, email: str) -> User | None:
    row = connection.execute(f"{_USERS} WHERE email = ?", (email,)).fetchone()
    return None if row is None else _user(row)


async def create_user(
    database: Database, *, email: str, plan: str, is_admin: bool, now: float
) -> User | None:
    """Add a user; None when the e-mail address is taken."""
    user = User(_new_id("usr"), email, plan, is_admin, None, now)

    def work(connection: sqlite3.Connection) -> User | None:
        if _one_user(connection, email) is not None:
            return None
        connection.execute(
            "INSERT INTO users (id, email, plan, is_admin, created_at) VALUES (?, ?, ?, ?, ?)",
            (user.id, user.email, user.plan, user.is_admin, user.created_at),
        )
        return user

    return await database.write(work)


async def find_user(database: Database, email: str) -> User | None:
    """The user of an e-mail address, in whatever case it is written; None when unknown."""
    return await database.read(lambda connection: _one_user(connection, email))


async def list_users(database: Database) -> list[User]:
    """Every user, in the order of their addresses."""
    return await database.read(
        lambda connection: [_user(row) for row in connection.execute(f"{_USERS} ORDER BY email")]
    )


async def set_plan(database: Database, email: str, plan: str) -> User | None:
    """Move a user to another plan; None when there is no such user."""
    return await _change_user(database, email, "plan = ?", plan)


async def suspend(database: Database, email: str, now: float) -> User | None:
    """Close an account for the time being, from the first time it was asked for on; None
    when there is no such user."""
    return await _change_user(database, email, "suspended_at = coalesce(suspended_at, ?)", now)


async def resume(database: Database, email: str) -> User | None:
    """Open a suspended account again; None when there is no such user."""
    return await _change_user(database, email, "suspended_at = ?", None)


async def _change_user(
    database: Database, email: str, change: str, value: str | float | None
) -> User | None:
    def work(connection: sqlite3.Connection) -> User | None:
        connection.execute(f"UPDATE users SET {change} WHERE email = ?", (value, email))  # noqa: S608
        return _one_user(connection, email)

    return await database.write(work)


async def create_key(
    database: Database,
    *,
    user: User,
    name: str,
    digest: bytes,
    hint: str,
    now: float,
    expires_at: float | None,
    most: int,
    cache_breakpoints: bool = True,
) -> Key | None:
    """Add a key; None when the user has `most` live ones already.

    Counting and adding are one transaction: two processes cannot both add the last one.
    """
    key = Key(_new_id("key"), user.email, name, hint, now, expires_at, None, cache_breakpoints)

    def work(connection: sqlite3.Connection) -> Key | None:
        live = connection.execute(
            """SELECT count(*) FROM keys WHERE user_id = ? AND revoked_at IS NULL
               AND (expires_at IS NULL OR expires_at > ?)""",
            (user.id, now),
        ).fetchone()[0]
        if live >= most:
            return None
        connection.execute(
            """INSERT INTO keys (id, user_id, name, digest, hint, created_at, expires_at,
                   cache_breakpoints)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            (key.id, user.id, name, digest, hint, now, expires_at, cache_breakpoints),
        )
        return key

    return await database.write(work)


async def list_keys(database: Database, email: str | None = None) -> list[Key]:
    """The keys of one user, or of all, oldest first."""
    return await database.read(
        lambda connection: [
            _key(row)
            for row in connection.execute(
                f"{_KEYS} WHERE ?1 IS NULL OR email = ?1 ORDER BY email, keys.created_at", (email,)
            )
        ]
    )


async def find_keys(database: Database, beginning: str) -> list[Key]:
    """The keys whose id begins with these characters."""
    return await database.read(
        lambda connection: [
            _key(row)
            for row in connection.execute(
                f"{_KEYS} WHERE substr(keys.id, 1, length(?1)) = ?1 ORDER BY keys.id", (beginning,)
            )
        ]
    )


async def revoke_key(database: Database, key_id: str, now: float) -> Key | None:
    """Withdraw a key for good, from the first time it was asked for on; None when there is
    no such key."""

    def work(connection: sqlite3.Connection) -> Key | None:
        connection.execute(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, key_id)
        )
        row = connection.execute(f"{_KEYS} WHERE keys.id = ?", (key_id,)).fetchone()
        return None if row is None else _key(row)

    return await database.write(work)


async def revision(database: Database) -> int:
    """A number that grows with each change to people, keys or credits, whoever makes it."""
    return await database.read(
        lambda connection: int(connection.execute("SELECT number FROM revision").fetchone()[0])
    )


async def live_keys(database: Database) -> list[LiveKey]:
    """Every key that was not revoked, with what its user may do."""
    return await database.read(
        lambda connection: [
            LiveKey(
                digest,
                key_id,
                user_id,
                email,
                plan,
                bool(suspended),
                expires_at,
                credited,
                bool(cache_breakpoints),
            )
            for (
                digest,
                key_id,
                user_id,
                email,
                plan,
                suspended,
                expires_at,
                credited,
                cache_breakpoints,
            ) in connection.execute(_LIVE)
        ]
    )


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(8)}"
