"""Events for receivers outside: written with what it reports, kept until it is sent.

Decides that an event is written once and never lost. Must not know who receives it, or how.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from relay.store.database import Database

Kind = Literal["user", "payment", "window"]
_KEPT_SECONDS: Final = 30 * 86_400  # so that one that may not repeat is known


@dataclass(frozen=True, slots=True)
class Event:
    """`subject`: whom it is about. `once`: the same event is written once; empty: each time."""

    kind: Kind
    subject: str
    text: str
    once: str = ""


class PendingEvent(msgspec.Struct, frozen=True):
    """An event that has yet to be sent; `time` is epoch seconds."""

    id: int
    time: float
    kind: Kind
    subject: str
    text: str


def emit(connection: sqlite3.Connection, now: float, event: Event) -> None:
    """Write an event, in the transaction of what it reports."""
    connection.execute(
        "INSERT OR IGNORE INTO event (time, kind, subject, text, once) VALUES (?, ?, ?, ?, ?)",
        (now, event.kind, event.subject, event.text, event.once or None),
    )


async def write(database: Database, now: float, event: Event) -> None:
    """Write an event by itself. Raises StoreError: SQLite failed."""
    await database.write(lambda connection: emit(connection, now, event))


async def pending(database: Database, after: int, limit: int = 100) -> list[PendingEvent]:
    """The events that have yet to be sent, oldest first, with ids above `after`."""
    rows = await database.select(
        """SELECT id, time, kind, subject, text FROM event
           WHERE sent_at IS NULL AND id > ? ORDER BY id LIMIT ?""",
        (after, limit),
    )
    return [PendingEvent(*row) for row in rows]


async def mark_sent(database: Database, event_id: int, now: float) -> None:
    """An event needs no further attempt. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "UPDATE event SET sent_at = ? WHERE id = ?", (now, event_id)
        )
    )


async def prune(database: Database, now: float) -> None:
    """Delete events that are long over. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "DELETE FROM event WHERE time < ?", (now - _KEPT_SECONDS,)
        )
    )
