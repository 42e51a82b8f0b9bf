"""Users in the database: added, found, listed and changed.

Knows the table `users` and makes the ids. Must not know any policy: `relay.accounts` decides
what is allowed and passes plain values. Every function raises `StoreError` when SQLite fails.
"""

import secrets
import sqlite3
import time
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import structs

from relay.store.audit import Actor, Change, State, record
from relay.store.database import Database
from relay.store.events import Event, emit

USER_COLUMNS: Final = """users.id, users.email, users.plan, users.is_admin, users.suspended_at,
    users.created_at, users.suspended_reason, users.plan_until, users.plan_then"""
_SELECT: Final = f"SELECT {USER_COLUMNS} FROM users"  # noqa: S608


class User(msgspec.Struct, frozen=True):
    """An account; times are epoch seconds."""

    id: str
    email: str
    plan: str
    is_admin: bool
    suspended_at: float | None
    created_at: float
    suspended_reason: str = ""
    plan_until: float | None = None  # the end of the plan's period; None: it has none
    plan_then: str | None = None  # the plan after it

    def plan_at(self, now: float) -> str:
        """The plan that is in force at a moment."""
        is_over = self.plan_until is not None and now >= self.plan_until
        return self.plan_then or self.plan if is_over else self.plan

    def audited(self) -> State:
        """As the audit log has it."""
        state = structs.asdict(self)
        del state["id"], state["created_at"]
        return state


def new_id(prefix: str) -> str:
    """A random id such as `usr_0123456789abcdef`."""
    return f"{prefix}_{secrets.token_hex(8)}"


def user_of(row: tuple[Any, ...]) -> User:
    """A user from a row of `USER_COLUMNS`."""
    values = [*row]
    values[3] = bool(row[3])
    return User(*values)


def select_user(connection: sqlite3.Connection, email: str) -> User | None:
    """As `find_user`, within a transaction."""
    row = connection.execute(f"{_SELECT} WHERE email = ?", (email,)).fetchone()
    return None if row is None else user_of(row)


async def create_user(
    database: Database, *, email: str, plan: str, is_admin: bool, now: float
) -> User | None:
    """Add a user; None if the e-mail address is taken."""
    user = User(new_id("usr"), email, plan, is_admin, None, now)
    async with database.claims.alone("accounts"):
        return await database.write(lambda connection: add_user(connection, database.actor, user))


def add_user(
    connection: sqlite3.Connection, actor: Actor, user: User, password_hash: str | None = None
) -> User | None:
    """Add a user within a transaction; None if the e-mail address is taken."""
    if select_user(connection, user.email) is not None:
        return None
    connection.execute(
        """INSERT INTO users (id, email, plan, is_admin, created_at, password_hash)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (user.id, user.email, user.plan, user.is_admin, user.created_at, password_hash),
    )
    record(connection, actor, user.created_at, Change("user.create", user.id, None, user.audited()))
    emit(connection, user.created_at, Event("user", user.email, f"on plan {user.plan}"))
    return user


async def find_user(database: Database, email: str) -> User | None:
    """The user with this e-mail address, in any case; None if there is none."""
    rows = await database.select(f"{_SELECT} WHERE email = ?", (email,))
    return user_of(rows[0]) if rows else None


async def list_users(database: Database) -> list[User]:
    """All users, ordered by address."""
    return [user_of(row) for row in await database.select(f"{_SELECT} ORDER BY email")]


async def page_of_users(
    database: Database, limit: int, after: str = "", search: str = ""
) -> list[User]:
    """Users in the order of their addresses, from the one after `after` on; `search`: only those
    whose address has this text."""
    rows = await database.select(
        f"""{_SELECT} WHERE email > ?1 AND instr(lower(email), lower(?2)) > 0
            ORDER BY email LIMIT ?3""",
        (after, search, limit),
    )
    return [user_of(row) for row in rows]


async def user_by_id(database: Database, user_id: str) -> User | None:
    """The user with this id; None if there is none."""
    rows = await database.select(f"{_SELECT} WHERE id = ?", (user_id,))
    return user_of(rows[0]) if rows else None


def select_user_by_id(connection: sqlite3.Connection, user_id: str) -> User | None:
    """As `user_by_id`, within a transaction."""
    row = connection.execute(f"{_SELECT} WHERE id = ?", (user_id,)).fetchone()
    return None if row is None else user_of(row)


async def set_plan(
    database: Database, email: str, plan: str, now: float | None = None
) -> User | None:
    """Move a user to another plan, without an end; None if there is no such user."""
    assignment = "plan = ?1, plan_until = NULL, plan_then = NULL"
    return await _update(database, email, Update("user.plan", assignment, (plan,)), now)


async def set_admin(database: Database, email: str, is_admin: bool, now: float) -> User | None:
    """Let a user administer the relay, or no longer; None if there is no such user."""
    return await _update(database, email, Update("user.admin", "is_admin = ?1", (is_admin,)), now)


async def suspend(database: Database, email: str, now: float, reason: str = "") -> User | None:
    """Suspend an account. A second call keeps the first time, and changes the reason if it has
    one. None if there is no such user."""
    assignment = """suspended_at = coalesce(suspended_at, ?1),
        suspended_reason = iif(?2 = '', suspended_reason, ?2)"""
    return await _update(database, email, Update("user.suspend", assignment, (now, reason)), now)


async def resume(database: Database, email: str, now: float | None = None) -> User | None:
    """End a suspension; None if there is no such user."""
    assignment = "suspended_at = NULL, suspended_reason = ''"
    return await _update(database, email, Update("user.resume", assignment, ()), now)


class Update(NamedTuple):
    """A change of one user's row: the action's name, and what is assigned."""

    action: str
    assignment: str
    values: tuple[object, ...]


async def _update(database: Database, email: str, update: Update, now: float | None) -> User | None:
    moment = time.time() if now is None else now
    return await database.write(
        lambda connection: update_user(connection, database.actor, email, update, moment)
    )


def update_user(
    connection: sqlite3.Connection, actor: Actor, email: str, update: Update, now: float
) -> User | None:
    """Change a user's row within a transaction; None if there is no such user."""
    before = select_user(connection, email)
    if before is None:
        return None
    place = f"?{len(update.values) + 1}"
    connection.execute(
        f"UPDATE users SET {update.assignment} WHERE id = {place}",  # noqa: S608
        (*update.values, before.id),
    )
    after = select_user(connection, email)
    assert after is not None
    change = Change(update.action, before.id, before.audited(), after.audited())
    record(connection, actor, now, change)
    return after
