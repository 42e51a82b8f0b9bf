"""The operator's pauses, which outlast the process: which upstreams get no requests.

Knows their names and nothing else of them: some may be gone from relay.toml.
"""

import sqlite3

from relay.store.database import Database


async def paused(database: Database) -> dict[str, float]:
    """The names of the upstreams that are paused, each with since when, in epoch seconds.

    Raises:
        StoreError: the database cannot be read.
    """

    def work(connection: sqlite3.Connection) -> dict[str, float]:
        return dict(connection.execute("SELECT upstream, since FROM pause ORDER BY upstream"))

    return await database.read(work)


async def pause(database: Database, upstream: str, now: float) -> None:
    """Write down that an upstream is paused, from the first time on that it was asked for.

    Raises:
        StoreError: it is not written.
    """

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR IGNORE INTO pause VALUES (?, ?)", (upstream, now))

    await database.write(work)


async def resume(database: Database, upstream: str) -> None:
    """The reverse.

    Raises:
        StoreError: it is not written.
    """

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM pause WHERE upstream = ?", (upstream,))

    await database.write(work)
