"""Announcements, maintenance and incidents: what people read, from when to when.

Knows the table `announcement` and makes the ids. Must not know how they are shown.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import structs

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.users import new_id

Kind = Literal["notice", "maintenance", "incident"]


class Announcement(msgspec.Struct, frozen=True):
    """A text for all people; times are epoch seconds. `ends_at` None: until it is resolved or
    removed. The status page keeps what is no notice after its end."""

    id: str
    kind: Kind
    text: str
    text_zh: str  # empty: `text` for everybody
    starts_at: float
    ends_at: float | None
    created_at: float
    title: str = ""  # of a notice: none
    title_zh: str = ""
    resolved_at: float | None = None

    @property
    def over_at(self) -> float | None:
        """When it ended or will end; None: that is not known."""
        return min(filter(None, (self.ends_at, self.resolved_at)), default=None)

    def is_shown(self, now: float) -> bool:
        """Whether people read it above every page at a moment."""
        return self.starts_at <= now and (self.over_at is None or now < self.over_at)


_COLUMNS = ", ".join(Announcement.__struct_fields__)
_PLACES = ", ".join("?" * len(Announcement.__struct_fields__))
_SELECT = f"SELECT {_COLUMNS} FROM announcement"  # noqa: S608
_ORDER: Final[dict[Kind, int]] = {"incident": 0, "maintenance": 1, "notice": 2}


async def add(database: Database, new: Announcement) -> Announcement:
    """Add an announcement; its id is made here. Raises StoreError: SQLite failed."""
    made = structs.replace(new, id=new_id("ann"))

    def work(connection: sqlite3.Connection) -> Announcement:
        connection.execute(
            f"INSERT INTO announcement ({_COLUMNS}) VALUES ({_PLACES})",  # noqa: S608
            structs.astuple(made),
        )
        change = Change("announcement.add", made.id, None, structs.asdict(made))
        record(connection, database.actor, made.created_at, change)
        return made

    return await database.write(work)


async def resolve(database: Database, announcement_id: str, now: float) -> bool:
    """Note that it is over; False: there is none, or it was over. Raises StoreError: SQLite
    failed."""

    def work(connection: sqlite3.Connection) -> bool:
        row = connection.execute(f"{_SELECT} WHERE id = ?", (announcement_id,)).fetchone()
        before = Announcement(*row) if row else None
        if before is None or (before.over_at is not None and before.over_at <= now):
            return False
        connection.execute(
            "UPDATE announcement SET resolved_at = ? WHERE id = ?", (now, announcement_id)
        )
        after = structs.replace(before, resolved_at=now)
        change = Change(
            "announcement.resolve", announcement_id, structs.asdict(before), structs.asdict(after)
        )
        record(connection, database.actor, now, change)
        return True

    return await database.write(work)


async def remove(database: Database, announcement_id: str, now: float) -> bool:
    """Remove an announcement; False: there is none. Raises StoreError: SQLite failed."""

    def work(connection: sqlite3.Connection) -> bool:
        row = connection.execute(f"{_SELECT} WHERE id = ?", (announcement_id,)).fetchone()
        if row is None:
            return False
        connection.execute("DELETE FROM announcement WHERE id = ?", (announcement_id,))
        before = structs.asdict(Announcement(*row))
        change = Change("announcement.remove", announcement_id, before, None)
        record(connection, database.actor, now, change)
        return True

    return await database.write(work)


async def list_all(database: Database) -> list[Announcement]:
    """All announcements, newest first."""
    rows = await database.select(f"{_SELECT} ORDER BY created_at DESC, rowid DESC")
    return [Announcement(*row) for row in rows]


async def shown(database: Database, now: float) -> list[Announcement]:
    """Those that people read at a moment, the gravest first."""
    return by_gravity(one for one in await list_all(database) if one.is_shown(now))


def by_gravity(found: Iterable[Announcement]) -> list[Announcement]:
    """Incidents first, then maintenance, then notices; else in their order."""
    return sorted(found, key=lambda one: _ORDER[one.kind])
