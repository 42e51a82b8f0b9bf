"""Announcements and the maintenance banner: what people read, from when to when.

Knows the table `announcement` and makes the ids. Must not know how they are shown.
"""

import sqlite3
from typing import Literal

import msgspec
from msgspec import structs

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.users import new_id

Kind = Literal["notice", "maintenance"]


class Announcement(msgspec.Struct, frozen=True):
    """A text for all people; times are epoch seconds. `ends_at` None: until it is removed."""

    id: str
    kind: Kind
    text: str
    text_zh: str  # empty: `text` for everybody
    starts_at: float
    ends_at: float | None
    created_at: float

    def is_shown(self, now: float) -> bool:
        """Whether people read it at a moment."""
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)


_SELECT = """SELECT id, kind, text, text_zh, starts_at, ends_at, created_at FROM announcement"""


async def add(database: Database, new: Announcement) -> Announcement:
    """Add an announcement; its id is made here. Raises StoreError: SQLite failed."""
    made = structs.replace(new, id=new_id("ann"))

    def work(connection: sqlite3.Connection) -> Announcement:
        connection.execute(
            "INSERT INTO announcement VALUES (?, ?, ?, ?, ?, ?, ?)", structs.astuple(made)
        )
        change = Change("announcement.add", made.id, None, structs.asdict(made))
        record(connection, database.actor, made.created_at, change)
        return made

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
    rows = await database.select(f"{_SELECT} ORDER BY created_at DESC, id")
    return [Announcement(*row) for row in rows]


async def shown(database: Database, now: float) -> list[Announcement]:
    """Those that people read at a moment, maintenance first."""
    found = [one for one in await list_all(database) if one.is_shown(now)]
    return sorted(found, key=lambda one: one.kind != "maintenance")
