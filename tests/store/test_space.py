"""Disk space of the database: measured, and given back in small steps."""

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from relay.store import space
from relay.store.database import Database
from relay.store.journal import Journal
from tests.store.entries import Changes, admission, outcome, serve

PAGE = 4096
MIB = 1024 * 1024


async def fill(database: Database, mebibytes: int) -> None:
    """Put rows into the table of values, and delete them again."""

    def work(connection: sqlite3.Connection) -> None:
        rows = ((f"filler {number}", bytes(100_000)) for number in range(mebibytes * 10))
        connection.executemany("INSERT INTO value VALUES (?, ?)", rows)

    await database.write(work)
    await database.write(
        lambda connection: connection.execute("DELETE FROM value WHERE name LIKE 'filler%'")
    )


async def test_much_free_space_is_given_back_and_some_is_kept(
    database: Database, tmp_path: Path
) -> None:
    await fill(database, 32)
    before = await space.usage(database, f"{tmp_path}/relay.db")
    assert before.shrinkable
    assert before.free_octets > 30 * MIB
    given = await space.give_back(database)
    after = await space.usage(database, str(tmp_path / "relay.db"))
    assert given == before.octets - after.octets > 25 * MIB
    assert 2 * MIB < after.free_octets < 4 * MIB  # a tenth, for the next rows
    assert await space.give_back(database) == 0
    given = await space.give_back(database, always=True)
    assert given in (after.free_octets, after.free_octets + PAGE)  # of the map of pages
    await database.checkpoint()
    assert (tmp_path / "relay.db").stat().st_size < MIB


async def test_little_free_space_is_kept(database: Database, tmp_path: Path) -> None:
    await fill(database, 4)
    assert await space.give_back(database) == 0


@pytest.mark.alone
async def test_the_journal_does_not_wait_while_space_is_given_back(
    database: Database, tmp_path: Path
) -> None:
    await fill(database, 64)
    journal = await Journal.start(database, Changes())
    giving = asyncio.create_task(space.give_back(database, always=True))
    waits: list[float] = []
    while not giving.done() and len(waits) < 20_000:  # each takes 0.1 KiB of the free pages
        started = time.perf_counter()
        request = admission()
        assert await outcome(serve(journal, request))
        waits.append(time.perf_counter() - started)
    assert await giving > 50 * MIB
    await journal.close()
    waits.sort()
    assert len(waits) > 10
    assert waits[len(waits) // 2] < 0.1  # a settlement waits for company first


async def test_a_file_of_an_older_version_is_rewritten_once(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    old = sqlite3.connect(path)
    old.execute("PRAGMA application_id = 0x524C4159")
    old.execute("CREATE TABLE early (a)")
    old.execute("DROP TABLE early")
    old.commit()
    old.close()
    database = await Database.open(path)
    await fill(database, 2)
    assert not (await space.pages(database)).shrinkable
    assert await space.give_back(database, always=True) == 0
    assert await space.rewrite(database) > MIB
    await fill(database, 2)
    assert (await space.pages(database)).shrinkable
    assert await space.give_back(database, always=True) > MIB
    await database.close()


@pytest.mark.parametrize("step", [1, 64])
async def test_a_step_holds_the_writer_for_milliseconds(database: Database, step: int) -> None:
    await fill(database, 16)
    longest = 0.0
    for _ in range(20):
        left, seconds = await database.run(lambda writer: space._step(step, writer))
        longest = max(longest, seconds)
    assert left
    assert longest < 0.5  # 0.3 ms alone; other tests run beside this one
