"""Databases in this process that share their rows, and what they have in common."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from relay.cluster.replication.replication import Replication
from relay.store.database import Database
from relay.store.replication.shape import read_tables
from relay.store.replication.tables import SHARED


class Member:
    """A database and its part in the cluster; None: it is down, or by itself."""

    def __init__(self, name: str, database: Database, replication: Replication | None) -> None:
        self.name = name
        self.database = database
        self.replication = replication

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return await self.database.select(query, values)

    async def run(self, statement: str, *values: object) -> None:
        """Change rows, as the relay does."""
        await self.database.write(lambda connection: connection.execute(statement, values))

    async def sync(self) -> None:
        """Share everything of this moment."""
        assert self.replication is not None
        await self.replication.sync()


@contextlib.asynccontextmanager
async def member(url: str, name: str, path: Path) -> AsyncIterator[Member]:
    """A node that runs until the end of the block."""
    database = await Database.open(path)
    try:
        replication = await Replication.open(database, url, name)
        try:
            yield Member(name, database, replication)
        finally:
            await replication.close()
    finally:
        await database.close()


async def settle(*members: Member) -> None:
    """Let each have what all have. What one sends in its turn needs another turn to be read."""
    for one in (*members, *members):
        await one.sync()


async def until(is_done: Callable[[], Any], seconds: float = 30.0) -> float:
    """Wait until something is so; returns the seconds that it took."""
    started = time.monotonic()
    while not await is_done():
        assert time.monotonic() - started < seconds, "it did not come about"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def shared_rows(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All shared rows by table, without the numbers that each node gives to requests."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name, table in read_tables(connection).items():
        columns = [it for it in table.columns if (name, it) != ("usage", "number")]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {name}")
        found[name] = sorted(rows.fetchall(), key=repr)
    assert set(found) == set(SHARED)
    return found


async def assert_equal(*members: Member) -> None:
    """All have the same rows, and nothing waits."""
    first, *others = [await it.database.run(shared_rows) for it in members]
    for other in others:
        for table, rows in first.items():
            assert rows == other[table], table
    for one in members:
        assert await one.rows("SELECT * FROM held_row") == []
        assert await one.rows("SELECT * FROM outbox WHERE sent IS NULL") == []
