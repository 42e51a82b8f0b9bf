"""Upstreams that the operator paused. A pause outlives the process.

Knows upstreams by name only; some may no longer be in relay.toml.
"""

import sqlite3
import time

from relay.store.audit import Change, record
from relay.store.database import Database


async def paused(database: Database) -> dict[str, float]:
    """The name of each paused upstream, and the epoch second at which it was paused.

    Raises:
        StoreError: the database cannot be read.
    """
    return dict(await database.select("SELECT upstream, since FROM pause ORDER BY upstream"))


async def pause(database: Database, upstream: str, now: float) -> None:
    """Record that an upstream is paused. A second call keeps the first time.

    Raises:
        StoreError: the pause was not recorded.
    """

    def work(connection: sqlite3.Connection) -> None:
        done = connection.execute("INSERT OR IGNORE INTO pause VALUES (?, ?)", (upstream, now))
        if done.rowcount:
            change = Change("upstream.pause", upstream, {"paused": False}, {"paused": True})
            record(connection, database.actor, now, change)

    await database.write(work)


async def resume(database: Database, upstream: str, now: float | None = None) -> None:
    """Remove a pause, if there is one.

    Raises:
        StoreError: the pause was not removed.
    """
    moment = time.time() if now is None else now

    def work(connection: sqlite3.Connection) -> None:
        done = connection.execute("DELETE FROM pause WHERE upstream = ?", (upstream,))
        if done.rowcount:
            change = Change("upstream.resume", upstream, {"paused": True}, {"paused": False})
            record(connection, database.actor, moment, change)

    await database.write(work)
