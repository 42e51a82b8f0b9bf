"""A database of before the journal had slots: its batches are moved, and nothing counts twice."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec
from msgspec.structs import astuple

from relay.store.database import APPLICATION_ID, migrations
from relay.store.recovery import restore
from tests.store.entries import NOON, admission, bucket, opened, rows

_BEFORE = 18  # migrations


def old_database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for script in migrations()[:_BEFORE]:
        connection.executescript(script)
    connection.execute(f"PRAGMA user_version = {_BEFORE}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return connection


def text_of(*values: object) -> str:
    return msgspec.json.encode(values).decode()


async def test_batches_of_before_are_recovered_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    ended, running, twice = admission(), admission(), admission(reserved=10)
    anew = admission(id=twice.id, reserved=20, billed_micro=30, time=NOON + 1)
    with contextlib.closing(old_database(path)) as connection:
        batch = "INSERT INTO batch VALUES (?, ?, ?, ?)"
        connection.execute(batch, (4, 0, text_of(ended, running, twice), text_of(bucket(3))))
        connection.execute(batch, (5, 1, text_of(anew), text_of(bucket(4))))
        columns = [*astuple(ended)[:-1], 200, "m", "main", 1, 2, 3, 4, 77, 5, 6, "whole"]
        marks = ", ".join("?" * (len(columns) + 2))
        connection.execute(f"INSERT INTO usage VALUES ({marks})", [1, *columns, "reported"])
    async with opened(path) as database:
        state = await restore(database, NOON + 60)
        assert state.crashed == [running, anew]
        assert state.rows[0] == bucket(4)
        rules = await rows(database, "SELECT id, rule FROM usage ORDER BY number")
        crashed = [(running.id, "crashed"), (anew.id, "crashed")]
        assert rules == [(ended.id, "reported"), *crashed]
        assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(3,)]
        assert await rows(database, "SELECT charged FROM balance") == [(30,)]
        assert (await restore(database, NOON)).crashed == []


def test_the_next_migration_is_that_of_the_journal() -> None:
    assert "CREATE TABLE journal" in migrations()[_BEFORE]
