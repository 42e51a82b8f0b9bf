"""The audit log: who changed what, from where, with the state before and after.

Each entry is written in the transaction of the change, so there is neither a change without its
entry nor an entry without its change. Triggers keep entries as they are. Whoever writes one gives
plain values without secrets: a key is there by its id and hint.

Decides the form of an entry. Must not know what a change means.
"""

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from relay.store.ids import next_id

if TYPE_CHECKING:
    from relay.store.database import Database

_COLUMNS: Final = "id, time, actor, address, action, subject, before, after"
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of changes: the id of an account or an admin key, `cli:NAME` or `relay`."""

    name: str
    address: str = ""


RELAY: Final = Actor("relay")  # by itself: the end of a period, say


class AuditEntry(msgspec.Struct, frozen=True):
    """One change; `time` is epoch seconds. None: it was not there before, or is not there after."""

    id: int
    time: float
    actor: str
    address: str
    action: str
    subject: str
    before: State | None
    after: State | None


class AuditFilter(msgspec.Struct, frozen=True):
    """Which entries: of one actor, one subject, or actions that begin so; older than an id."""

    actor: str | None = None
    subject: str | None = None
    action: str | None = None
    before: int | None = None


_ALL: Final = AuditFilter()
_INSERT: Final = f"""INSERT INTO audit (id, time, actor, address, action, subject, before, after)
    VALUES ({next_id("audit")}, ?, ?, ?, ?, ?, ?, ?)"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Change:
    """The subject of an entry. States that are equal on both sides are reduced to what differs."""

    action: str
    subject: str
    before: State | None = None
    after: State | None = None


def record(connection: sqlite3.Connection, actor: Actor, now: float, change: Change) -> None:
    """Write an entry, in the transaction of the change. A change of nothing leaves none."""
    before, after = change.before, change.after
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if not names:
            return
        before = {name: before.get(name) for name in names}
        after = {name: after.get(name) for name in names}
    connection.execute(
        _INSERT,
        (
            now,
            actor.name,
            actor.address,
            change.action,
            change.subject,
            _encoded(before),
            _encoded(after),
        ),
    )


async def note(database: "Database", now: float, change: Change) -> None:
    """Record a change that is not in the database, such as of relay.toml.

    Raises:
        StoreError: SQLite failed.
    """
    await database.write(lambda connection: record(connection, database.actor, now, change))


async def entries(
    database: "Database", which: AuditFilter = _ALL, limit: int = 100
) -> list[AuditEntry]:
    """The latest entries, newest first; `which.before` is the id that ended the last page."""
    conditions, values = ["id < ?"], [2**62 if which.before is None else which.before]
    found: list[object] = [*values]
    for column in ("actor", "subject"):
        value = getattr(which, column)
        if value is not None:
            conditions.append(f"{column} = ?")
            found.append(value)
    if which.action is not None:
        conditions.append("substr(action, 1, length(?)) = ?")
        found += [which.action, which.action]
    rows = await database.select(
        f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",  # noqa: S608
        [*found, limit],
    )
    return [AuditEntry(*row[:6], *map(_decoded, row[6:])) for row in rows]


def _encoded(state: State | None) -> str | None:
    return None if state is None else msgspec.json.encode(state).decode()


def _decoded(text: str | None) -> State | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
