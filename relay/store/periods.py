"""Periods of plans: a plan until a moment, and the plan that follows.

Knows the columns of `users` and the table `period`. Must not know which plans exist. The plan in
force at a moment is `User.plan_at` and `LiveKey.plan_at`, so that the end needs nobody to write it.
"""

import sqlite3
from typing import Final, Literal

import msgspec

from relay.store import adjustments
from relay.store.adjustments import Adjustment
from relay.store.audit import Actor, Change, record
from relay.store.database import Database
from relay.store.ids import next_id
from relay.store.users import Update, User, select_user, update_user

_INSERT: Final = f"""INSERT INTO period
        (id, user_id, plan, kind, starts_at, ends_at, plan_then, source)
    VALUES ({next_id("period")}, ?, ?, ?, ?, ?, ?, ?)"""  # noqa: S608
_ENDED = "plan = plan_then, plan_until = NULL, plan_then = NULL"


class Period(msgspec.Struct, frozen=True):
    """One period of an account's plan; times are epoch seconds."""

    id: int
    plan: str
    kind: Literal["start", "extend"]
    starts_at: float
    ends_at: float
    plan_then: str
    source: str


class Present(msgspec.Struct, frozen=True):
    """The plan that an account has at a moment, and its end; None: it has none."""

    plan: str
    until: float | None

    def gives_up(self, other: "Present | None") -> bool:
        """Whether who agreed to give up `other` has agreed to give this one up."""
        if other is None or other.plan != self.plan:
            return False
        return other.until is None or (self.until is not None and self.until <= other.until)


class Outlook(msgspec.Struct, frozen=True):
    """The effect of a plan that somebody would redeem or buy. It `extend`s a period of the same
    plan; it `start`s where nothing is lost by that; it would `replace` the present plan, for which
    its person has to agree; or it gives `nothing`: its person has the plan without an end."""

    kind: Literal["start", "extend", "replace", "nothing"]
    present: Present
    ends_at: float
    plan_then: str


class NewPeriod(msgspec.Struct, frozen=True):
    """A period to be entered: from now on, or as the continuation of the present one. `source`:
    who or which code."""

    plan: str
    seconds: int
    plan_then: str
    source: str


def start(
    connection: sqlite3.Connection, actor: Actor, user: User, new: NewPeriod, now: float
) -> User:
    """Begin a period now, whatever runs; all windows begin anew."""
    ends_at = now + new.seconds
    assignment = "plan = ?1, plan_until = ?2, plan_then = ?3"
    values = (new.plan, ends_at, new.plan_then)
    after = update_user(
        connection, actor, user.email, Update("plan.start", assignment, values), now
    )
    assert after is not None
    _enter(connection, user.id, new, ("start", now, ends_at))
    adjustments.add(connection, actor, Adjustment(user.id, "renew"), now)
    return after


def extend(
    connection: sqlite3.Connection, actor: Actor, user: User, new: NewPeriod, now: float
) -> User:
    """Add to the end of the present period; windows go on."""
    assert user.plan_until is not None
    ends_at = user.plan_until + new.seconds
    values = (ends_at, new.plan_then)
    update = Update("plan.extend", "plan_until = ?1, plan_then = ?2", values)
    after = update_user(connection, actor, user.email, update, now)
    assert after is not None
    _enter(connection, user.id, new, ("extend", user.plan_until, ends_at))
    return after


def present(user: User, now: float) -> Present:
    """The plan of an account at a moment."""
    until = user.plan_until if user.plan_until is not None and user.plan_until > now else None
    return Present(user.plan_at(now), until)


def agreement(has: Present) -> str:
    """The value that a form sends back once its person agrees to give this plan up."""
    return f"{has.plan} {has.until}"


def outlook(user: User, new: NewPeriod, now: float) -> Outlook:
    """See `Outlook`."""
    has, ends_at = present(user, now), now + new.seconds
    if has.plan == new.plan:
        if has.until is None:
            return Outlook("nothing", has, ends_at, new.plan_then)
        return Outlook("extend", has, has.until + new.seconds, user.plan_then or new.plan_then)
    # A plan without an end is not lost if it is the one that follows.
    is_kept = has.until is None and has.plan == new.plan_then
    return Outlook("start" if is_kept else "replace", has, ends_at, new.plan_then)


def grant(
    connection: sqlite3.Connection,
    actor: Actor,
    user: User,
    new: NewPeriod,
    agreed: Present | None,
    now: float,
) -> tuple[User, bool] | None:
    """A plan that somebody redeemed or bought. `agreed`: the plan that they agreed to give up.

    Returns the account, and whether the plan was extended. None: nothing has changed, since it
    gives nothing, or would take a plan that its person has not agreed to give up.
    """
    found = outlook(user, new, now)
    if found.kind == "extend":
        longer = NewPeriod(new.plan, new.seconds, found.plan_then, new.source)
        return extend(connection, actor, user, longer, now), True
    if found.kind == "start" or (found.kind == "replace" and found.present.gives_up(agreed)):
        return start(connection, actor, user, new, now), False
    return None


async def extend_present(database: Database, email: str, seconds: int, now: float) -> User | None:
    """Extend the period that runs; None: none does. Raises StoreError: SQLite failed."""

    def work(connection: sqlite3.Connection) -> User | None:
        present = select_user(connection, email)
        if present is None or present.plan_until is None or present.plan_until <= now:
            return None
        new = NewPeriod(present.plan, seconds, present.plan_then or "", database.actor.name)
        return extend(connection, database.actor, present, new, now)

    return await database.write(work)


async def start_now(database: Database, user: User, new: NewPeriod, now: float) -> User:
    """See `start`. Raises StoreError: SQLite failed."""
    return await database.write(
        lambda connection: start(connection, database.actor, user, new, now)
    )


def _enter(
    connection: sqlite3.Connection, user_id: str, new: NewPeriod, when: tuple[str, float, float]
) -> None:
    kind, starts_at, ends_at = when
    connection.execute(
        _INSERT,
        (user_id, new.plan, kind, starts_at, ends_at, new.plan_then, new.source),
    )


async def list_periods(database: Database, user_id: str) -> list[Period]:
    """An account's periods, newest first."""
    rows = await database.select(
        """SELECT id, plan, kind, starts_at, ends_at, plan_then, source FROM period
           WHERE user_id = ? ORDER BY id DESC""",
        (user_id,),
    )
    return [Period(*row) for row in rows]


async def end_due(database: Database, now: float) -> int:
    """Write the plan that follows where a period has ended; returns the number of accounts.

    Raises:
        StoreError: SQLite failed, and nothing was written.
    """
    due = "SELECT email FROM users WHERE plan_until <= ?"
    if not await database.select(f"{due} LIMIT 1", (now,)):
        return 0

    def work(connection: sqlite3.Connection) -> int:
        emails = [email for (email,) in connection.execute(due, (now,)).fetchall()]
        for email in emails:
            before = select_user(connection, email)
            assert before is not None
            connection.execute(f"UPDATE users SET {_ENDED} WHERE id = ?", (before.id,))  # noqa: S608
            after = select_user(connection, email)
            assert after is not None
            change = Change("plan.end", before.id, before.audited(), after.audited())
            record(connection, database.actor, now, change)
        return len(emails)

    async with database.claims.alone("periods"):
        return await database.write(work)
