"""Passkeys in the database.

Knows the table `passkey`. Must not know any policy: `relay.accounts` decides whose answer is right.
Every function raises `StoreError` when SQLite fails.
"""

import hashlib
import sqlite3
from typing import Any, Final

import msgspec

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.users import User


class Passkey(msgspec.Struct, frozen=True):
    """A passkey; times are epoch seconds."""

    id: bytes
    user_id: str
    public_key: bytes
    sign_count: int
    name: str
    created_at: float
    used_at: float | None = None

    @property
    def handle(self) -> str:
        """Its name in addresses; `id` may have a thousand octets."""
        return hashlib.sha256(self.id).hexdigest()[:16]


_PASSKEY: Final = ", ".join(f"passkey.{name}" for name in Passkey.__struct_fields__)


async def add_passkey(database: Database, passkey: Passkey, most: int) -> bool:
    """Keep a new passkey; False if it is known already, or the account has `most`."""
    marks = ", ".join("?" * len(Passkey.__struct_fields__))

    def work(connection: sqlite3.Connection) -> bool:
        statement = "SELECT count(*) FROM passkey WHERE user_id = ?"
        if connection.execute(statement, (passkey.user_id,)).fetchone()[0] >= most:
            return False
        statement = f"INSERT OR IGNORE INTO passkey VALUES ({marks})"  # noqa: S608
        if not connection.execute(statement, msgspec.structs.astuple(passkey)).rowcount:
            return False
        change = Change("passkey.add", passkey.user_id, None, {"name": passkey.name})
        record(connection, database.actor, passkey.created_at, change)
        return True

    return await database.write(work)


async def list_passkeys(database: Database, user_id: str) -> list[Passkey]:
    """The passkeys of an account, the oldest first."""
    rows = await database.select(
        f"SELECT {_PASSKEY} FROM passkey WHERE user_id = ? ORDER BY created_at",  # noqa: S608
        (user_id,),
    )
    return [Passkey(*row) for row in rows]


async def find_passkey(database: Database, passkey_id: bytes) -> tuple[Passkey, User] | None:
    """A passkey and its account."""
    fields = ", ".join(f"users.{name}" for name in User.__struct_fields__)
    rows = await database.select(
        f"""SELECT {_PASSKEY}, {fields} FROM passkey
            JOIN users ON users.id = passkey.user_id WHERE passkey.id = ?""",  # noqa: S608
        (passkey_id,),
    )
    if not rows:
        return None
    number = len(Passkey.__struct_fields__)
    return Passkey(*rows[0][:number]), _user(rows[0][number:])


def _user(row: tuple[Any, ...]) -> User:
    user = User(*row)
    return msgspec.structs.replace(user, is_admin=bool(user.is_admin))


async def use_passkey(database: Database, passkey: Passkey, sign_count: int, now: float) -> bool:
    """Note a use with its new count; False if there was another use meanwhile."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = """UPDATE passkey SET sign_count = ?, used_at = ?
            WHERE id = ? AND sign_count = ? AND used_at IS ?"""
        values = (sign_count, now, passkey.id, passkey.sign_count, passkey.used_at)
        return connection.execute(statement, values).rowcount > 0

    return await database.write(work)


async def rename_passkey(database: Database, passkey: Passkey, name: str, now: float) -> None:
    """Give a passkey another name."""

    def work(connection: sqlite3.Connection) -> None:
        statement = "UPDATE passkey SET name = ? WHERE id = ?"
        if connection.execute(statement, (name, passkey.id)).rowcount:
            before, after = {"name": passkey.name}, {"name": name}
            change = Change("passkey.rename", passkey.user_id, before, after)
            record(connection, database.actor, now, change)

    await database.write(work)


async def remove_passkey(database: Database, passkey: Passkey, now: float) -> None:
    """Remove a passkey."""

    def work(connection: sqlite3.Connection) -> None:
        statement = "DELETE FROM passkey WHERE id = ?"
        if connection.execute(statement, (passkey.id,)).rowcount:
            change = Change("passkey.remove", passkey.user_id, {"name": passkey.name})
            record(connection, database.actor, now, change)

    await database.write(work)
