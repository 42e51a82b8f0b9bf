"""Changes that wait for PostgreSQL take little room, and the operator hears of them."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay import config
from relay.cli.doctor.findings import Finding
from relay.cli.doctor.ledger import examine
from relay.store.database import Database
from tests.cli.command import SETTINGS
from tests.cluster.postgres import Postgres
from tests.cluster.replication.members import Member, assert_equal, member, settle, until
from tests.cluster.replication.rows import USAGE

REQUESTS = (
    """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
    """
    + USAGE.replace("VALUES (?, ?, 'key_1', ?,", "SELECT ? || i, 1.0, 'key_1', 'usr_1',").rstrip(
        ")"
    )
    + " FROM n"
)


async def serve(one: Member, count: int, name: str) -> None:
    """Have served so many requests."""
    await one.run(REQUESTS.format(count), name)


async def numbers(one: Member) -> int:
    return int((await one.rows("SELECT count(DISTINCT id) FROM usage"))[0][0])


async def test_requests_of_several_nodes_are_shared_once(trio: list[Member]) -> None:
    for turn in range(3):
        for one in trio:
            await serve(one, 700, f"{one.name}{turn}-")
        await settle(*trio)
    assert [await numbers(one) for one in trio] == [6300] * 3
    await assert_equal(*trio)
    for one in trio:
        assert await one.rows("SELECT * FROM usage_foreign") == []


async def test_the_outbox_does_not_grow_with_requests(
    own_postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db") as a, member(url, "b", tmp_path / "b.db") as b:
        await settle(a, b)
        own_postgres.stop()
        with caplog.at_level(logging.WARNING, "relay.cluster"):
            await serve(a, 12_000, "r")

            async def has_warned() -> bool:
                return "12000 changes wait to be shared" in caplog.text

            await until(has_warned)
        assert a.replication is not None
        assert a.replication.view().waiting_for > 0
        assert len(await a.rows("SELECT 1 FROM outbox")) <= 500
        own_postgres.start()

        async def has_all() -> bool:
            return await numbers(b) == 12_000

        await until(has_all, 60)
        await settle(a, b)
        await assert_equal(a, b)


async def test_a_database_of_an_earlier_program_goes_on(url: str, tmp_path: Path) -> None:
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", tmp_path / "a.db") as a:
            await serve(a, 3, "shared")
            await settle(a, b)
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
            connection.execute(
                """CREATE TRIGGER shared_usage_insert AFTER INSERT ON usage BEGIN
                   INSERT INTO outbox (tbl, pk, op)
                   VALUES ('usage', json_array(NEW.number), 'insert'); END"""
            )
            connection.execute(REQUESTS.format(4), ("noted",))
        async with member(url, "a", tmp_path / "a.db") as a:
            await serve(a, 5, "new")
            await settle(a, b)
            await assert_equal(a, b)
            assert len(await b.rows("SELECT 1 FROM usage")) == 12


async def test_requests_of_a_backup_are_not_shared_again(url: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", path) as a:
            await settle(a, b)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(REQUESTS.format(4), ("waits",))  # not noted yet
        shutil.copy(path, tmp_path / "backup.db")
        async with member(url, "a", path) as a:
            await serve(a, 2, "later")
            await settle(a, b)
        for suffix in ("-wal", "-shm"):
            path.with_name(f"a.db{suffix}").unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", path)
        async with member(url, "a", path) as a:
            await serve(a, 1, "new")
            await settle(a, b)
            await assert_equal(a, b)
            assert len(await b.rows("SELECT 1 FROM usage")) == 7


def test_the_doctor_counts_what_waits(tmp_path: Path) -> None:
    path, settings = tmp_path / "a.db", tmp_path / "relay.toml"
    settings.write_text(
        f'{SETTINGS}\n[ledger]\nurl = "postgresql://127.0.0.1:1/x"\n[database]\npath = "{path}"\n'
    )

    def first() -> Finding:
        return next(examine(config.load(str(settings))))

    assert "PostgreSQL cannot be reached" in first().found  # no relay has started yet

    async def prepare() -> None:
        database = await Database.open(path)
        await database.close()

    asyncio.run(prepare())
    assert first().found == "0 changes wait to be shared"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO replica (one, node, number, schema) VALUES (1, 'a', 1, 1)")
        connection.execute(REQUESTS.format(1_500), ("r",))
    assert (first().level, first().found) == (
        "warning",
        "1,500 changes wait to be shared: no other relay has them",
    )
