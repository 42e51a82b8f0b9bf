import asyncio
import logging
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.store import database as store
from relay.store import journal as module
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from tests.fakes.until import until
from tests.store.entries import Changes, bucket, opening, outcome, rows, settlement


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def journal(database: Database, changes: Changes) -> AsyncIterator[Journal]:
    journal = await Journal.start(database, changes)
    yield journal
    await journal.close(0)


async def pragma(database: Database, text: str) -> None:
    await database.read(lambda c: c.execute(f"PRAGMA {text}").fetchall())


# --- while all is well ---


async def test_an_entry_is_on_disk_before_anyone_is_told_so(
    journal: Journal, changes: Changes, tmp_path: Path
) -> None:
    request = opening()
    changes.rows = [bucket(1)]
    ticket = journal.open(request)
    assert not ticket.durable
    assert await outcome(ticket)
    assert ticket.durable
    with sqlite3.connect(tmp_path / "relay.db") as other:  # as another process sees it
        seen = other.execute("SELECT id, key_id, settled_at FROM usage").fetchall()
        used = other.execute("SELECT owner, used FROM bucket").fetchall()
    other.close()
    assert seen == [(request.id, "key_1", None)]
    assert used == [("key_1", 1)]


async def test_who_asks_once_it_is_durable_is_told_at_once(journal: Journal) -> None:
    ticket = journal.open(opening())
    assert await outcome(ticket)
    told: list[bool] = []
    ticket.when_durable(told.append)
    assert told == [True]


async def test_a_settlement_completes_the_row_and_the_hours_sums(
    journal: Journal, database: Database
) -> None:
    request = opening()
    journal.open(request)
    assert await outcome(journal.settle(settlement(request.id)))
    assert await rows(
        database, "SELECT settled_at - time, status, input, output, rule, cost_micro FROM usage"
    ) == [(2.0, 200, 10, 20, "reported", 77)]
    assert await rows(database, "SELECT requests, input, output, cost_micro FROM usage_hour") == [
        (1, 10, 20, 77)
    ]


async def test_a_request_is_settled_once_whatever_comes_later(
    journal: Journal, database: Database
) -> None:
    request = opening(billed=True)
    journal.open(request)
    assert await outcome(journal.settle(settlement(request.id)))
    assert await outcome(journal.settle(settlement(request.id, output=9_999, cost_micro=9_999)))
    assert await rows(database, "SELECT output FROM usage") == [(20,)]
    assert await rows(database, "SELECT requests, output FROM usage_hour") == [(1, 20)]
    assert await rows(database, "SELECT amount_micro FROM statement") == [(-77,)]


async def test_what_was_never_opened_is_neither_counted_nor_charged(
    journal: Journal, database: Database
) -> None:
    assert await outcome(journal.settle(settlement("req_unheard_of")))
    for table in ("usage", "usage_hour", "statement", "balance"):
        assert await rows(database, f"SELECT * FROM {table}") == []


async def test_all_that_came_while_one_batch_was_written_is_the_next(
    journal: Journal, database: Database, changes: Changes
) -> None:
    journal.open(opening())
    while not changes.asked:  # noqa: ASYNC110 - until it is on its way
        await asyncio.sleep(0)
    tickets = {journal.open(opening()) for _ in range(1_000)}
    assert len(tickets) == 1
    assert await outcome(tickets.pop())
    assert changes.asked == 2
    assert await rows(database, "SELECT count(*) FROM usage") == [(1_001,)]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 682, 683, 1_500])
async def test_a_batch_of_any_size_is_written_whole(
    journal: Journal, database: Database, changes: Changes, number: int
) -> None:
    requests = [opening(billed=True) for _ in range(number)]
    for request in requests:
        journal.open(request)
    changes.rows = [bucket(7, owner=f"key_{index}") for index in range(number)]
    for request in requests:
        last = journal.settle(settlement(request.id))
    assert await outcome(last)
    settled = "SELECT count(*), count(settled_at), sum(output) FROM usage"
    assert await rows(database, settled) == [(number, number, 20 * number)]
    assert await rows(database, "SELECT count(*), sum(used) FROM bucket") == [(number, 7 * number)]
    assert await rows(database, "SELECT micro FROM balance") == [(-77 * number,)]


async def test_a_later_state_of_a_limit_takes_the_place_of_the_earlier(
    journal: Journal, database: Database, changes: Changes
) -> None:
    for used in (1, 2, 3):
        changes.rows = [bucket(used), bucket(used * 100, kind="tokens")]
        assert await outcome(journal.open(opening()))
    assert await rows(database, "SELECT kind, used FROM bucket ORDER BY kind") == [
        ("requests", 3),
        ("tokens", 300),
    ]


async def test_charges_that_a_ledger_tells_are_left_to_the_settlements(
    journal: Journal, database: Database, changes: Changes
) -> None:
    changes.rows = [("account", "usr_1", "money", 0, "charged", 0, 5_000, 0)]
    assert await outcome(journal.open(opening()))
    assert await rows(database, "SELECT * FROM bucket") == []


async def test_closing_writes_everything(database: Database, changes: Changes) -> None:
    journal = await Journal.start(database, changes)
    tickets = [journal.open(opening()) for _ in range(10)]
    assert await journal.close() == 0
    assert await journal.close() == 0
    assert all(ticket.durable for ticket in tickets)
    assert not journal.healthy
    assert await rows(database, "SELECT count(*) FROM usage") == [(10,)]


@pytest.mark.parametrize(("word", "level"), [("normal", 1), ("full", 2)])
async def test_how_much_a_loss_of_power_may_take_is_a_setting(
    database: Database, changes: Changes, word: str, level: int
) -> None:
    journal = await Journal.start(database, changes, word)  # type: ignore[arg-type]
    assert await rows(database, "PRAGMA synchronous") == [(level,)]
    await journal.close()


async def test_a_callback_that_fails_keeps_nobody_else_waiting(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = journal.open(opening())
    ticket.when_durable(lambda _: [][0])
    assert await outcome(ticket)
    assert "could not be ended" in caplog.text
    assert await outcome(journal.open(opening()))


# --- values that SQLite will not have ---


async def test_one_entry_that_cannot_be_written_takes_no_other_with_it(
    journal: Journal, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    first = opening()
    assert await outcome(journal.open(first))
    others = [opening(), opening()]
    journal.open(others[0])
    journal.open(opening(id=first.id))  # taken
    assert await outcome(journal.open(others[1]))
    ids = await rows(database, "SELECT id FROM usage ORDER BY id")
    assert ids == sorted((request.id,) for request in (first, *others))
    assert first.id in caplog.text
    assert journal.healthy


@pytest.mark.parametrize("tokens", [2**63, 2**62, -(2**70), 10**30])
async def test_absurd_counts_of_an_upstream_are_bounded_and_the_rest_is_kept(
    journal: Journal, database: Database, tokens: int
) -> None:
    requests = [opening(model="\ud800"), opening(), opening()]
    for request in requests:
        journal.open(request)
    for request in requests:
        last = journal.settle(settlement(request.id, input=tokens))
    assert await outcome(last)
    assert await rows(database, "SELECT count(*), sum(output) FROM usage") == [(3, 60)]
    assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(3,)]
    assert journal.healthy


# --- while the disk is not well ---


async def test_a_full_disk_refuses_new_work_keeps_the_entries_and_heals(
    journal: Journal, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    before = journal.open(opening())
    assert await outcome(before)
    [(pages,)] = await rows(database, "PRAGMA page_count")
    await pragma(database, f"max_page_count = {pages}")
    kept = [journal.open(opening()) for _ in range(2_000)]
    waiting = asyncio.create_task(outcome(kept[-1]))
    await until(lambda: not journal.healthy)
    assert "the disk is full" in journal.trouble
    journal.settle(settlement(opening().id))  # of a stream in flight: goes on
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert before.durable
    await pragma(database, "max_page_count = 1000000")
    assert await waiting
    await until(lambda: journal.healthy, within=5)
    assert journal.trouble == ""
    assert await rows(database, "SELECT count(*) FROM usage") == [(2_001,)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_file_that_became_read_only_is_survived(
    journal: Journal, database: Database
) -> None:
    await pragma(database, "query_only = 1")
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "cannot be written" in journal.trouble
    await pragma(database, "query_only = 0")
    assert await waiting
    assert journal.healthy


async def test_an_answer_waits_for_so_long_and_no_longer_but_its_entry_is_kept(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    await pragma(database, "query_only = 1")
    ticket = journal.open(opening())
    assert not await outcome(ticket)
    later = journal.open(opening())
    assert later is not ticket
    assert not await outcome(later)
    await pragma(database, "query_only = 0")
    await until(lambda: later.durable)
    assert await rows(database, "SELECT count(*) FROM usage") == [(2,)]


async def test_a_disk_that_hangs_refuses_new_work_as_one_that_fails(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_SLOW", 0.1)
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "takes longer" in journal.trouble
    other.execute("COMMIT")
    other.close()
    assert await waiting
    assert journal.healthy


async def test_another_process_that_never_lets_go_is_a_failure_like_any_other(
    journal: Journal, database: Database, tmp_path: Path
) -> None:
    await pragma(database, "busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "locked" in journal.trouble
    other.execute("COMMIT")
    other.close()
    assert await waiting


async def test_what_waits_is_bounded(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 50)
    for _ in range(49):
        journal.open(opening())
    assert journal.healthy
    last = journal.open(opening())
    assert not journal.healthy
    assert await outcome(last)
    await until(lambda: journal.healthy)


async def test_a_ledger_that_fails_does_not_end_the_journal(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[object]:
        raise LookupError

    journal = await Journal.start(database, broken)  # type: ignore[arg-type]
    assert await outcome(journal.open(opening()))
    assert "not journalled" in caplog.text
    await journal.close()


async def test_closing_on_a_dead_disk_ends_and_says_what_is_lost(
    database: Database, changes: Changes, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await Journal.start(database, changes)
    await pragma(database, "query_only = 1")
    ticket = journal.open(opening())
    told: list[bool] = []
    ticket.when_durable(told.append)
    assert await journal.close(patience=0.2) == 1
    assert told == [False]
    assert "1 entries unwritten" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"\0" * 4096)


async def test_a_disk_that_is_really_full_heals_once_there_is_space(
    small_disk: Path, changes: Changes
) -> None:
    database = await Database.open(small_disk / "relay.db")
    journal = await Journal.start(database, changes)
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "ballast")
    number = 0
    while journal.healthy:
        for _ in range(50):
            ticket = journal.open(opening())
        number += 50
        waiting = asyncio.create_task(outcome(ticket))
        await asyncio.wait([waiting], timeout=0.3)
    (small_disk / "ballast").unlink()
    assert await waiting
    await until(lambda: journal.healthy)
    assert await journal.close() == 0
    assert await rows(database, "SELECT count(*) FROM usage") == [(number,)]
    assert await rows(database, "PRAGMA integrity_check") == [("ok",)]
    await database.close()


async def test_a_schema_without_metering_is_brought_up_with_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        folder = tmp_path / "migrations"
        folder.mkdir()
        name = "0001_people_and_keys.sql"
        (folder / name).write_text((store.MIGRATIONS / name).read_text())
        before.setattr(store, "MIGRATIONS", folder)
        old = await Database.open(tmp_path / "relay.db")
        await old.write(
            lambda c: c.execute("INSERT INTO users VALUES ('usr_1','a@b.c','free',0,NULL,NULL,1.0)")
        )
        with pytest.raises(StoreError):
            await rows(old, "SELECT * FROM usage")
        await old.close()
    new = await Database.open(tmp_path / "relay.db")
    assert await rows(new, "SELECT email FROM users") == [("a@b.c",)]
    assert await rows(new, "SELECT * FROM usage") == []
    assert await rows(new, "PRAGMA integrity_check") == [("ok",)]
    await new.close()
