"""Keys of the provisioning API: added, listed, revoked, looked up.

Only their SHA-256 is kept. They are no callers' keys, and have a table of their own. Must not know
which scopes there are.
"""

import sqlite3
from typing import Any, Final

import msgspec
from msgspec import structs

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.users import new_id

_SELECT: Final = """SELECT id, name, hint, scopes, created_at, expires_at, revoked_at
    FROM admin_key"""


class AdminKey(msgspec.Struct, frozen=True):
    """A key as it is listed; times are epoch seconds."""

    id: str
    name: str
    hint: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def is_live(self, now: float) -> bool:
        """Whether it works at a moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def _key(row: tuple[Any, ...]) -> AdminKey:
    scopes = msgspec.json.decode(row[3], type=tuple[str, ...])
    return AdminKey(row[0], row[1], row[2], scopes, *row[4:])


async def create_admin_key(database: Database, new: AdminKey, digest: bytes) -> AdminKey:
    """Add a key; its id is made here. Raises StoreError: SQLite failed."""
    made = structs.replace(new, id=new_id("adm"))

    def work(connection: sqlite3.Connection) -> AdminKey:
        connection.execute(
            """INSERT INTO admin_key (id, name, digest, hint, scopes, created_at, expires_at)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (
                made.id,
                made.name,
                digest,
                made.hint,
                msgspec.json.encode(made.scopes).decode(),
                made.created_at,
                made.expires_at,
            ),
        )
        after = structs.asdict(made)
        record(
            connection,
            database.actor,
            made.created_at,
            Change("admin_key.create", made.id, None, after),
        )
        return made

    return await database.write(work)


async def list_admin_keys(database: Database) -> list[AdminKey]:
    """All keys, oldest first."""
    return [_key(row) for row in await database.select(f"{_SELECT} ORDER BY created_at, id")]


async def find_admin_key(database: Database, digest: bytes) -> AdminKey | None:
    """The key with this digest; None if there is none."""
    rows = await database.select(f"{_SELECT} WHERE digest = ?", (digest,))
    return _key(rows[0]) if rows else None


async def revoke_admin_key(database: Database, key_id: str, now: float) -> bool:
    """Revoke a key for good; False: no live key has this id. Raises StoreError: SQLite failed."""

    def work(connection: sqlite3.Connection) -> bool:
        done = connection.execute(
            "UPDATE admin_key SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id)
        )
        if done.rowcount:
            change = Change("admin_key.revoke", key_id, {"revoked_at": None}, {"revoked_at": now})
            record(connection, database.actor, now, change)
        return bool(done.rowcount)

    return await database.write(work)
