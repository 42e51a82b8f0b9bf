"""Log-ins, passwords and one-time links in the database.

Knows the tables `session` and `link`, and the password's column of `users`. Keeps digests of
tokens, never tokens. Must not know any policy: `relay.accounts` decides how long they last. Every
function raises `StoreError` when SQLite fails.
"""

import sqlite3
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import msgspec

from relay.store.audit import Actor, Change, record
from relay.store.codes import Code, CodeError, check_turn, turn_of, use_invitation
from relay.store.database import Database
from relay.store.users import (
    USER_COLUMNS,
    User,
    add_user,
    new_id,
    select_user_by_id,
    user_of,
)


class Session(msgspec.Struct, frozen=True):
    """A browser that is logged in; times are epoch seconds."""

    digest: bytes
    user_id: str
    created_at: float
    seen_at: float
    address: str
    agent: str

    @property
    def id(self) -> str:
        """Its name in lists. Says nothing about its token."""
        return self.digest.hex()[:16]


class Link(msgspec.Struct, frozen=True):
    """A one-time link; what it is about depends on its purpose."""

    digest: bytes
    purpose: str  # admin, confirm or reset
    expires_at: float
    user_id: str | None = None
    email: str | None = None
    password_hash: str | None = None


_SESSION: Final = "session.digest, user_id, session.created_at, seen_at, address, agent"
_LINK: Final = ", ".join(Link.__struct_fields__)


# --- sessions ---


async def add_session(database: Database, session: Session, most: int) -> None:
    """Keep a new session; of an account's oldest ones, only the `most` latest stay."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO session (digest, user_id, created_at, seen_at, address, agent) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(session),
        )
        connection.execute(
            """DELETE FROM session WHERE digest IN (SELECT digest FROM session WHERE user_id = ?
               ORDER BY created_at DESC, digest LIMIT -1 OFFSET ?)""",
            (session.user_id, most),
        )

    await database.write(work)


async def find_session(database: Database, digest: bytes) -> tuple[Session, User] | None:
    """A session and its account, however old it is."""
    rows = await database.select(
        f"SELECT {_SESSION}, {USER_COLUMNS} FROM session JOIN users ON users.id = user_id "  # noqa: S608
        "WHERE digest = ?",
        (digest,),
    )
    return None if not rows else (Session(*rows[0][:6]), user_of(rows[0][6:]))


async def list_sessions(database: Database, user_id: str, since: float) -> list[Session]:
    """An account's sessions that were used since a moment, the latest first."""
    rows = await database.select(
        f"SELECT {_SESSION} FROM session WHERE user_id = ? AND seen_at >= ? "  # noqa: S608
        "ORDER BY seen_at DESC",
        (user_id, since),
    )
    return [Session(*row) for row in rows]


async def see_session(database: Database, digest: bytes, now: float) -> None:
    """Note that a session is in use."""
    await database.write(
        lambda connection: connection.execute(
            "UPDATE session SET seen_at = max(seen_at, ?) WHERE digest = ?", (now, digest)
        )
    )


async def end_session(database: Database, user_id: str, session_id: str) -> bool:
    """End one session of an account, by its `id`; False if there is none."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = (
            "DELETE FROM session WHERE user_id = ? AND substr(lower(hex(digest)), 1, 16) = ?"
        )
        return connection.execute(statement, (user_id, session_id)).rowcount > 0

    return await database.write(work)


async def end_sessions(database: Database, user_id: str, kept: bytes = b"") -> int:
    """End all sessions of an account but the one with the digest `kept`; their number."""

    def work(connection: sqlite3.Connection) -> int:
        statement = "DELETE FROM session WHERE user_id = ? AND digest <> ?"
        return connection.execute(statement, (user_id, kept)).rowcount

    return await database.write(work)


async def prune_sessions(database: Database, seen: float, created: float, now: float) -> None:
    """Delete sessions that have ended by their age, and links that have expired."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM session WHERE seen_at < ? OR created_at < ?", (seen, created)
        )
        connection.execute("DELETE FROM link WHERE expires_at < ?", (now,))

    await database.write(work)


# --- passwords ---


async def find_password(database: Database, email: str) -> tuple[User, str | None] | None:
    """An account and the hash of its password, if it has one."""
    rows = await database.select(
        f"SELECT {USER_COLUMNS}, password_hash FROM users WHERE email = ?",  # noqa: S608
        (email,),
    )
    return None if not rows else (user_of(rows[0][:-1]), rows[0][-1])


async def set_password(database: Database, user_id: str, password_hash: str, now: float) -> bool:
    """Give an account another password and end all its sessions; False if it is gone."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "UPDATE users SET password_hash = ? WHERE id = ?"
        changed = connection.execute(statement, (password_hash, user_id)).rowcount > 0
        connection.execute("DELETE FROM session WHERE user_id = ?", (user_id,))
        connection.execute("DELETE FROM link WHERE user_id = ? AND purpose = 'reset'", (user_id,))
        if changed:
            record(connection, database.actor, now, Change("user.password", user_id))
        return changed

    return await database.write(work)


# --- accounts ---


async def sign_up(
    database: Database,
    user: User,
    password_hash: str,
    used: Link | Code | None,
    *,
    first: bool = False,
) -> User | None:
    """Open an account with a password, and use up a link or an invitation, in one step.

    None if the address is taken, the link or the invitation has gone, or, with `first`, there is an
    account already. `user` has the account's values; its id is given here. The audit log names the
    new account as the one that made it.
    """
    opened = msgspec.structs.replace(user, id=new_id("usr"))
    actor = Actor(opened.id, database.actor.address)

    def work(connection: sqlite3.Connection) -> User | None:
        if first and connection.execute("SELECT 1 FROM users LIMIT 1").fetchone():
            return None
        if add_user(connection, actor, opened, password_hash) is None:
            return None
        if isinstance(used, Code):
            check_turn(database, connection, used)
            use_invitation(connection, used, opened.id, opened.created_at)
        elif used is not None:
            statement = "DELETE FROM link WHERE digest = ?"
            if not connection.execute(statement, (used.digest,)).rowcount:
                raise CodeError("used")
        return opened

    try:
        async with database.claims.alone("accounts"), _claimed(database, used):
            return await database.write(work)
    except CodeError:  # and nothing has changed
        return None


def _claimed(database: Database, used: Link | Code | None) -> AbstractAsyncContextManager[None]:
    """Claim a link, or the next use of an invitation."""
    if used is None:
        return nullcontext()
    if isinstance(used, Code):
        return database.claims.once(*turn_of(used))
    return database.claims.once("link", used.digest.hex())


async def delete_user(database: Database, user_id: str, now: float) -> bool:
    """Delete an account with its keys, sessions, links and stored responses.

    Usage and statements stay, under an id that leads to nobody. False if it is the last
    administrator's.
    """

    def work(connection: sqlite3.Connection) -> bool:
        user = select_user_by_id(connection, user_id)
        if user is None:
            return True
        others = "SELECT 1 FROM users WHERE is_admin AND id <> ?"
        if user.is_admin and connection.execute(others, (user_id,)).fetchone() is None:
            return False
        connection.execute("DELETE FROM keys WHERE user_id = ?", (user_id,))
        connection.execute("DELETE FROM spend_limit WHERE user_id = ?", (user_id,))
        connection.execute("DELETE FROM users WHERE id = ?", (user_id,))
        record(connection, database.actor, now, Change("user.delete", user_id, user.audited()))
        return True

    return await database.write(work)


async def has_users(database: Database) -> bool:
    """Whether there is any account."""
    return bool(await database.select("SELECT 1 FROM users LIMIT 1"))


# --- links ---


async def add_link(database: Database, link: Link) -> None:
    """Keep a new link. An earlier one of the same purpose for the same account or address goes."""
    marks = ", ".join("?" * len(Link.__struct_fields__))

    def work(connection: sqlite3.Connection) -> None:
        if link.purpose == "admin":
            connection.execute("DELETE FROM link WHERE purpose = 'admin'")
        connection.execute(
            "DELETE FROM link WHERE purpose = ? AND (user_id = ? OR email = ?)",
            (link.purpose, link.user_id, link.email),
        )
        connection.execute(
            f"INSERT INTO link ({_LINK}) VALUES ({marks})",  # noqa: S608
            msgspec.structs.astuple(link),
        )

    await database.write(work)


async def find_link(database: Database, digest: bytes, purpose: str, now: float) -> Link | None:
    """A link that can be used; None if there is none for this purpose."""
    rows = await database.select(
        f"SELECT {_LINK} FROM link WHERE digest = ? AND purpose = ? AND expires_at > ?",  # noqa: S608
        (digest, purpose, now),
    )
    return Link(*rows[0]) if rows else None
