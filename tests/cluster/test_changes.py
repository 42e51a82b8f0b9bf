"""A change that one node writes is seen by the others within a second, whatever is lost."""

import asyncio
import time
from typing import Any

import psycopg
import pytest

from relay.cluster.schema import SchemaError, known_migrations
from tests.cluster.nodes import Wire, running_node
from tests.cluster.postgres import Postgres
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

Connection = psycopg.AsyncConnection[Any]


async def note(connection: Connection, kind: str, id: str) -> None:
    await connection.execute("SELECT relay.note_change(%s, %s)", [kind, id])


async def test_a_change_is_seen_at_once(
    postgres: Postgres, database: str, connection: Connection, record_property: RecordProperty
) -> None:
    heard: list[tuple[str, str]] = []
    async with running_node(postgres.url(database), changes=heard) as node:
        await until(lambda: node.limits.reported())
        await note(connection, "key", "k1")
        await until(lambda: heard == [("key", "k1")], within=1)
        started = time.monotonic()
        await note(connection, "plan", "free")
        await until(lambda: heard == [("key", "k1"), ("plan", "free")], within=1)
        record_property("figure", f"a change after {(time.monotonic() - started) * 1000:.0f} ms")


async def test_a_change_without_its_notification_is_polled(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    heard: list[tuple[str, str]] = []
    async with running_node(postgres.url(database), changes=heard) as node:
        await until(lambda: node.limits.reported())
        await connection.execute(
            "INSERT INTO relay.change (seq, kind, id) VALUES (1, 'key', 'k1'), (2, 'key', 'k2')"
        )
        await until(lambda: heard == [("key", "k1"), ("key", "k2")], within=2)


async def test_changes_during_a_cut_are_made_up_for(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    heard: list[tuple[str, str]] = []
    async with (
        Wire(postgres.port) as wire,
        running_node(postgres.url(database, wire.port), changes=heard) as node,
    ):
        await until(lambda: node.limits.reported())
        wire.drop()
        await note(connection, "key", "k1")
        await asyncio.sleep(1.5)
        assert heard == []
        await note(connection, "key", "k2")
        wire.restore()
        await until(lambda: heard == [("key", "k1"), ("key", "k2")], within=6)


async def test_changes_that_are_gone_are_any_change(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    heard: list[tuple[str, str]] = []
    async with running_node(postgres.url(database), changes=heard) as node:
        await until(lambda: node.limits.reported())
        await connection.execute("INSERT INTO relay.change (seq, kind, id) VALUES (7, 'key', 'k7')")
        await until(lambda: heard == [("", ""), ("key", "k7")], within=2)
        await connection.execute("DELETE FROM relay.change")  # an earlier state of the database
        await until(lambda: heard[2:] == [("", "")], within=2)


async def test_changes_are_numbered_in_the_order_of_commits(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url(database)) as slow:
        await note(slow, "key", "first")
        quick = asyncio.create_task(note(connection, "key", "second"))
        done, _ = await asyncio.wait([quick], timeout=0.2)
        assert not done  # else a reader could see number 2 before number 1
        await slow.commit()
        await quick
    rows = await (await connection.execute("SELECT id FROM relay.change ORDER BY seq")).fetchall()
    assert rows == [("first",), ("second",)]


async def test_a_node_does_not_start_on_a_newer_database(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    later = len(known_migrations()) + 1
    await connection.execute(
        "INSERT INTO relay.migration (number, name, needs) VALUES (%s, 'later', %s)", [later, later]
    )
    with pytest.raises(SchemaError, match="newer relay"):
        async with running_node(postgres.url(database)):
            pass


async def test_old_windows_and_nodes_are_deleted(
    postgres: Postgres, database: str, connection: Connection
) -> None:
    day = 86_400_000
    await connection.execute(
        "INSERT INTO relay.quota_window (name, size, per, epoch, ends)"
        " SELECT name, 1, 1, 1, relay.now_ms() - since FROM (VALUES"
        f" ('old', {day + 1000}), ('recent', 1000), ('reported', {day + 1000})) it (name, since)"
    )
    await connection.execute(
        "INSERT INTO relay.lease VALUES ('reported', 'a/1', 1, 0, 0, relay.now_ms(), false)"
    )
    await connection.execute(
        f"INSERT INTO relay.node VALUES ('gone', 'x', relay.now_ms() - {day + 1000}, 1)"
    )
    cursor = await connection.execute("SELECT relay.tidy()")
    assert await cursor.fetchall() == [(1,)]
    cursor = await connection.execute("SELECT name FROM relay.quota_window ORDER BY name")
    assert await cursor.fetchall() == [("recent",), ("reported",)]
    cursor = await connection.execute("SELECT count(*) FROM relay.node")
    assert await cursor.fetchall() == [(0,)]
