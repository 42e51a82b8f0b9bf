"""API keys in the database: added, listed, revoked, and read as a server needs them.

Knows the table `keys` and makes the ids. Must not know any policy: `relay.accounts` decides
what is allowed and passes plain values. Every function raises `StoreError` when SQLite fails.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relay.store.database import Database
from relay.store.users import User, new_id


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be added. The key itself is not in it."""

    user: User
    name: str
    digest: bytes
    hint: str  # a few of its characters, to recognise it by
    expires_at: float | None = None
    cache_breakpoints: bool = True


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed; times are epoch seconds."""

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


# Not frozen, since that makes 10,000 of them cost 12 ms more at each change of a key.
@dataclass(slots=True)
class LiveKey:
    """What a server needs to authenticate a key that is not revoked. It may have expired."""

    digest: bytes
    key_id: str
    user_id: str
    email: str
    plan: str
    suspended: bool
    expires_at: float | None
    credited: int = 0  # sum of the user's credits, in micro-dollars
    cache_breakpoints: bool = True  # whether its requests get cache breakpoints


_SELECT: Final = """SELECT keys.id, email, name, hint, keys.created_at, expires_at, revoked_at,
        cache_breakpoints
    FROM keys JOIN users ON users.id = keys.user_id"""
_SELECT_LIVE: Final = """SELECT digest, keys.id, keys.user_id, email, plan,
        suspended_at IS NOT NULL, expires_at, coalesce(credited, 0), cache_breakpoints
    FROM keys JOIN users ON users.id = keys.user_id
    LEFT JOIN balance ON balance.user_id = users.id WHERE revoked_at IS NULL"""


def _key(row: tuple[Any, ...]) -> Key:
    key_id, email, name, hint, created_at, expires_at, revoked_at, breakpoints = row
    return Key(key_id, email, name, hint, created_at, expires_at, revoked_at, bool(breakpoints))


async def create_key(database: Database, new: NewKey, *, max_keys: int, now: float) -> Key | None:
    """Add a key; None if the user has `max_keys` live ones already.

    One transaction counts and adds, so two processes cannot both add the last one.
    """
    user_id = new.user.id
    key = Key(
        new_id("key"), new.user.email, new.name, new.hint, now, new.expires_at, None,
        new.cache_breakpoints,
    )  # fmt: skip

    def work(connection: sqlite3.Connection) -> Key | None:
        live = connection.execute(
            """SELECT count(*) FROM keys WHERE user_id = ? AND revoked_at IS NULL
               AND (expires_at IS NULL OR expires_at > ?)""",
            (user_id, now),
        ).fetchone()[0]
        if live >= max_keys:
            return None
        connection.execute(
            """INSERT INTO keys (id, user_id, name, digest, hint, created_at, expires_at,
                   cache_breakpoints)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                key.id, user_id, new.name, new.digest, new.hint, now, new.expires_at,
                new.cache_breakpoints,
            ),
        )  # fmt: skip
        return key

    return await database.write(work)


async def list_keys(database: Database, email: str | None = None) -> list[Key]:
    """The keys of one user, or of all, oldest first."""
    rows = await database.select(
        f"{_SELECT} WHERE ?1 IS NULL OR email = ?1 ORDER BY email, keys.created_at", (email,)
    )
    return [_key(row) for row in rows]


async def list_own_keys(database: Database, user_id: str) -> list[Key]:
    """The keys of one user, oldest first; quick, however many users there are."""
    rows = await database.select(
        f"{_SELECT} WHERE keys.user_id = ? ORDER BY keys.created_at", (user_id,)
    )
    return [_key(row) for row in rows]


async def find_keys(database: Database, id_prefix: str) -> list[Key]:
    """The keys whose id starts with `id_prefix`."""
    rows = await database.select(
        f"{_SELECT} WHERE substr(keys.id, 1, length(?1)) = ?1 ORDER BY keys.id", (id_prefix,)
    )
    return [_key(row) for row in rows]


async def revoke_key(database: Database, key_id: str, now: float) -> Key | None:
    """Revoke a key for good. A second call keeps the first time. None if there is no such key."""

    def work(connection: sqlite3.Connection) -> Key | None:
        connection.execute(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, key_id)
        )
        row = connection.execute(f"{_SELECT} WHERE keys.id = ?", (key_id,)).fetchone()
        return None if row is None else _key(row)

    return await database.write(work)


async def revision(database: Database) -> int:
    """A number that grows with every change to users, keys or credits, by any process."""
    return int((await database.select("SELECT number FROM revision"))[0][0])


async def live_keys(database: Database) -> list[LiveKey]:
    """All keys that are not revoked."""
    return [
        LiveKey(
            digest=digest,
            key_id=key_id,
            user_id=user_id,
            email=email,
            plan=plan,
            suspended=bool(suspended),
            expires_at=expires_at,
            credited=credited,
            cache_breakpoints=bool(breakpoints),
        )
        for (
            digest, key_id, user_id, email, plan, suspended, expires_at, credited, breakpoints,
        ) in await database.select(_SELECT_LIVE)
    ]  # fmt: skip
