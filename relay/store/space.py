"""The disk space of the database: its size, its contents, and giving free space back.

Decides when free pages are worth giving back, and in which steps, so that the journal never waits
long for the writer. Must not know when rows are deleted.
"""

import asyncio
import os
import sqlite3
import time
from functools import partial
from typing import Final

import msgspec

from relay.store.database import Database

_INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum
_KEPT_SHARE: Final = 0.10  # of the pages, which the next rows need
_TRIGGER_SHARE: Final = 0.25  # of the pages, above which free ones are given back
_TRIGGER_OCTETS: Final = 16 * 1024 * 1024
_FIRST_STEP_PAGES: Final = 64
_MAX_STEP_PAGES: Final = 256
_LONG_STEP_SECONDS: Final = 0.005  # a step that took longer is followed by one of half its size
_SHORT_STEP_SECONDS: Final = 0.002
_PAUSE_SECONDS: Final = 0.02  # between two steps


class Pages(msgspec.Struct, frozen=True):
    """The pages of the database file."""

    octets: int  # of one page
    total: int
    free: int
    shrinkable: bool  # False: made by an older version; only a rewrite gives free pages back


class Usage(msgspec.Struct, frozen=True):
    """The contents of the database. Times are epoch seconds."""

    octets: int
    log_octets: int  # of the write-ahead log
    free_octets: int  # within `octets`
    shrinkable: bool
    accounts: int
    keys: int
    requests: int
    oldest: float | None
    latest: float | None
    hours: int  # rows of sums
    entries: int  # of statements
    responses: int
    response_octets: int


def _pages(connection: sqlite3.Connection) -> Pages:
    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    return Pages(
        pragma("page_size"),
        pragma("page_count"),
        pragma("freelist_count"),
        pragma("auto_vacuum") == _INCREMENTAL,
    )


async def pages(database: Database) -> Pages:
    """The pages of the database. Raises StoreError: SQLite failed."""
    return await database.run(_pages)


async def usage(database: Database, path: str) -> Usage:
    """Measure the database. Counts rows, so it takes a second for ten million of them.

    Raises:
        StoreError: SQLite failed.
    """
    found = await pages(database)
    [row] = await database.select(
        """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM keys),
            (SELECT count(*) FROM usage), (SELECT time FROM usage ORDER BY number LIMIT 1),
            (SELECT time FROM usage ORDER BY number DESC LIMIT 1),
            (SELECT count(*) FROM usage_hour), (SELECT count(*) FROM statement),
            (SELECT count(*) FROM response),
            (SELECT coalesce(sum(length(sealed)), 0) FROM response)"""
    )
    log_octets = await database.run(lambda _: _size(f"{path}-wal"))
    octets = found.total * found.octets
    return Usage(octets, log_octets, found.free * found.octets, found.shrinkable, *row)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


async def give_back(database: Database, *, always: bool = False) -> int:
    """Give free pages back to the disk, if there are many, or `always`; returns the octets.

    Each step holds the writer for some milliseconds. Nothing is given back from a file that an
    older version made.

    Raises:
        StoreError: SQLite failed; earlier steps stay done.
    """
    found = await pages(database)
    most = max(found.total * _TRIGGER_SHARE, _TRIGGER_OCTETS / found.octets)
    if not found.shrinkable or not found.free or not (always or found.free > most):
        return 0
    kept = 0 if always else int(found.total * _KEPT_SHARE)
    size = _FIRST_STEP_PAGES
    here = found
    while here.free > kept:
        before = here
        here, seconds = await database.run(partial(_step, min(size, here.free - kept)), writes=True)
        if here.total >= before.total:  # others need the pages
            break
        if seconds > _LONG_STEP_SECONDS:
            size = max(size // 2, 1)
        elif seconds < _SHORT_STEP_SECONDS:
            size = min(size * 2, _MAX_STEP_PAGES)
        await asyncio.sleep(_PAUSE_SECONDS)
    return (found.total - here.total) * found.octets


def _step(count: int, connection: sqlite3.Connection) -> tuple[Pages, float]:
    """Give `count` pages back; returns the pages that are left, and the seconds that it took."""
    started = time.perf_counter()
    # `execute` stops after one page, at the first of the rows that the statement does not have.
    connection.executescript(f"PRAGMA incremental_vacuum({count})")
    seconds = time.perf_counter() - started
    return _pages(connection), seconds


async def rewrite(database: Database) -> int:
    """Rewrite the whole file without free pages, so that it can be shrunk from then on.

    Blocks every writer, and needs as much disk space again: only without a server. Returns the
    octets given back.

    Raises:
        StoreError: SQLite failed, and the file is as before.
    """

    def work(connection: sqlite3.Connection) -> int:
        before = _pages(connection)
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        after = _pages(connection)
        return (before.total - after.total) * after.octets

    return await database.run(work, writes=True)
