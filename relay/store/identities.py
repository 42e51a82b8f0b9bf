"""Accounts at other providers that open accounts here.

Knows the table `identity`. Must not know any policy: `relay.accounts` decides who is linked. Every
function raises `StoreError` when SQLite fails.
"""

import hashlib
import sqlite3
from typing import Final

import msgspec

from relay.store.audit import Actor, Change, record
from relay.store.database import Database
from relay.store.users import User, add_user, new_id


class Identity(msgspec.Struct, frozen=True):
    """A person at a provider; times are epoch seconds."""

    issuer: str
    subject: str
    user_id: str
    email: str
    linked_at: float
    used_at: float | None = None

    @property
    def handle(self) -> str:
        """Its name in addresses."""
        return hashlib.sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()[:16]


_IDENTITY: Final = ", ".join(f"identity.{name}" for name in Identity.__struct_fields__)
_MARKS: Final = ", ".join("?" * len(Identity.__struct_fields__))
_ADD: Final = f"INSERT OR IGNORE INTO identity VALUES ({_MARKS})"  # noqa: S608


async def find_identity(
    database: Database, issuer: str, subject: str
) -> tuple[Identity, User] | None:
    """A person at a provider, and the account that they are linked to."""
    fields = ", ".join(f"users.{name}" for name in User.__struct_fields__)
    rows = await database.select(
        f"""SELECT {_IDENTITY}, {fields} FROM identity JOIN users ON users.id = user_id
            WHERE issuer = ? AND subject = ?""",  # noqa: S608
        (issuer, subject),
    )
    if not rows:
        return None
    number = len(Identity.__struct_fields__)
    user = User(*rows[0][number:])
    return Identity(*rows[0][:number]), msgspec.structs.replace(user, is_admin=bool(user.is_admin))


async def list_identities(database: Database, user_id: str) -> list[Identity]:
    """Those that are linked to an account, the oldest first."""
    rows = await database.select(
        f"SELECT {_IDENTITY} FROM identity WHERE user_id = ? ORDER BY linked_at",  # noqa: S608
        (user_id,),
    )
    return [Identity(*row) for row in rows]


def _view(identity: Identity) -> dict[str, str]:
    return {"issuer": identity.issuer, "email": identity.email}


def _record_link(connection: sqlite3.Connection, actor: Actor, identity: Identity) -> None:
    change = Change("identity.link", identity.user_id, None, _view(identity))
    record(connection, actor, identity.linked_at, change)


async def link_identity(database: Database, identity: Identity) -> bool:
    """Link somebody to an account; False if they are linked to one already."""

    def work(connection: sqlite3.Connection) -> bool:
        if not connection.execute(_ADD, msgspec.structs.astuple(identity)).rowcount:
            return False
        _record_link(connection, database.actor, identity)
        return True

    return await database.write(work)


async def see_identity(database: Database, identity: Identity, now: float) -> None:
    """Note a log-in."""
    statement = "UPDATE identity SET used_at = ? WHERE issuer = ? AND subject = ?"
    values = (now, identity.issuer, identity.subject)
    await database.write(lambda connection: connection.execute(statement, values))


async def unlink_identity(database: Database, identity: Identity, now: float) -> None:
    """Link somebody to no account any more."""

    def work(connection: sqlite3.Connection) -> None:
        statement = "DELETE FROM identity WHERE issuer = ? AND subject = ?"
        if connection.execute(statement, (identity.issuer, identity.subject)).rowcount:
            change = Change("identity.unlink", identity.user_id, _view(identity))
            record(connection, database.actor, now, change)

    await database.write(work)


async def open_account(database: Database, user: User, identity: Identity) -> User | None:
    """Open an account without a password, and link somebody to it, in one step.

    None if the address is taken, or they are linked already. `user` has the account's values; its
    id is given here.
    """
    opened = msgspec.structs.replace(user, id=new_id("usr"))
    linked = msgspec.structs.replace(identity, user_id=opened.id)

    def work(connection: sqlite3.Connection) -> User | None:
        taken = "SELECT 1 FROM identity WHERE issuer = ? AND subject = ?"
        if connection.execute(taken, (linked.issuer, linked.subject)).fetchone():
            return None
        actor = Actor(opened.id, database.actor.address)
        if add_user(connection, actor, opened) is None:
            return None
        connection.execute(_ADD, msgspec.structs.astuple(linked))
        _record_link(connection, actor, linked)
        return opened

    async with database.claims.alone("accounts"):
        return await database.write(work)
