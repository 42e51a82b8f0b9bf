"""The journal while the disk is full, read-only, locked or slow."""

import asyncio
import logging
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store import journal as journal_module
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.recovery import restore
from tests.fakes.until import until
from tests.store.entries import (
    NOON,
    Changes,
    Mode,
    admission,
    outcome,
    pragma,
    rows,
    serve,
    settle,
)

pytestmark = pytest.mark.usefixtures("quick_checks")


async def test_a_full_disk_refuses_work_keeps_entries_and_heals(
    journal: Journal, database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    flying = admission()
    before = journal.open(flying)
    assert await outcome(before)
    pages = await pragma(database, mode, "page_count")
    await pragma(database, mode, f"max_page_count = {pages}")
    kept = [journal.open(admission()) for _ in range(2_000)]
    waiting = asyncio.create_task(outcome(kept[-1]))
    await until(lambda: not journal.healthy)
    assert "the disk is full" in journal.failure
    settle(journal, flying)  # a stream in flight goes on
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert before.durable
    await pragma(database, mode, "max_page_count = 1000000")
    assert await waiting
    await until(lambda: journal.healthy, within=5)
    assert journal.failure == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert await journal.close() == 0
    assert len((await restore(database, NOON)).crashed) == 2_000
    assert await rows(database, "SELECT count(*), count(status) FROM usage") == [(2_001, 1)]


async def test_the_journal_heals_after_the_file_was_read_only(
    journal: Journal, database: Database, mode: Mode
) -> None:
    await pragma(database, mode, "query_only = 1")
    waiting = asyncio.create_task(outcome(journal.open(admission())))
    await until(lambda: not journal.healthy)
    assert "cannot be written" in journal.failure
    await pragma(database, mode, "query_only = 0")
    assert await waiting
    assert journal.healthy


async def test_a_callback_waits_for_the_grace_but_its_entry_is_kept(
    journal: Journal, database: Database, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "GRACE_SECONDS", 0.1)
    await pragma(database, mode, "query_only = 1")
    ticket = journal.open(admission())
    assert not await outcome(ticket)
    later = journal.open(admission())
    assert later is not ticket
    assert not await outcome(later)
    await pragma(database, mode, "query_only = 0")
    await until(lambda: later.durable)
    assert await rows(database, "SELECT count(*) FROM running") == [(2,)]


async def test_a_hanging_disk_refuses_new_work(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(journal_module, "_SLOW_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(admission())))
    await until(lambda: not journal.healthy)
    assert "takes longer" in journal.failure
    other.execute("COMMIT")
    other.close()
    assert await waiting
    assert journal.healthy


async def test_a_writer_that_hangs_holds_nobody_beyond_the_grace(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SLOW_SECONDS", 0.1)
    monkeypatch.setattr(journal_module, "GRACE_SECONDS", 0.2)
    first = admission()
    ticket = journal.open(first)
    assert await outcome(ticket)
    hangs, works = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        hangs.set()
        works.wait(10)

    hanging = asyncio.create_task(database.run(hang, writes=True))
    await asyncio.to_thread(hangs.wait, 10)
    ended = settle(journal, first)
    later = journal.open(admission())
    assert not await outcome(later, within=2)
    assert not journal.healthy
    works.set()
    await hanging
    await until(lambda: ended.durable and later.durable and journal.healthy)


async def test_a_slow_writer_leaves_the_journal_healthy(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SLOW_SECONDS", 0.1)
    assert await outcome(journal.open(admission()))
    works = threading.Event()
    hanging = asyncio.create_task(database.run(lambda _: works.wait(10), writes=True))
    await asyncio.sleep(0)
    journal.open(admission())
    await until(lambda: not journal.healthy)
    works.set()
    await hanging
    await until(lambda: journal.healthy)  # though nothing is left to write


@pytest.mark.parametrize("mode", ["normal"], indirect=True)
async def test_a_reader_on_the_writers_thread_holds_no_batch(
    journal: Journal, database: Database
) -> None:
    works = threading.Event()
    reading = asyncio.create_task(database.run(lambda _: works.wait(10)))
    await asyncio.sleep(0)
    assert await outcome(journal.open(admission()))
    works.set()
    await reading


@pytest.mark.parametrize("mode", ["normal"], indirect=True)
async def test_a_batch_goes_before_the_writers_that_wait(
    journal: Journal, database: Database
) -> None:
    works = threading.Event()
    order: list[str] = []
    first = asyncio.create_task(database.run(lambda _: works.wait(10), writes=True))
    others = [asyncio.create_task(database.write(lambda _: order.append("write")))]
    await asyncio.sleep(0)
    journal.open(admission()).when_durable(lambda _: order.append("batch"))
    await asyncio.sleep(0)
    assert order == []
    works.set()
    await asyncio.gather(first, *others)
    assert order == ["batch", "write"]


async def test_a_short_lock_by_another_process_is_waited_for(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticket = journal.open(admission())
    await asyncio.sleep(0.1)
    assert not ticket.durable
    other.execute("COMMIT")
    other.close()
    assert await outcome(ticket)
    assert journal.healthy
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["normal"], indirect=True)
async def test_a_retry_stays_out_of_the_threads_transaction(
    journal: Journal, database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    request = admission()
    ticket = journal.open(request)
    await asyncio.sleep(0)  # the first attempt has failed, and another follows in a moment
    entered, works = threading.Event(), threading.Event()

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        entered.set()
        works.wait(10)
        connection.execute("ROLLBACK")

    failing = asyncio.create_task(database.run_beside(fail))
    await until(entered.is_set)
    other.execute("COMMIT")
    other.close()
    asyncio.get_running_loop().call_later(0.1, works.set)  # some attempts later
    assert await outcome(ticket)
    assert works.is_set()
    await failing
    assert await rows(database, "SELECT id FROM running") == [(request.id,)]


@pytest.mark.parametrize("mode", ["full"], indirect=True)
async def test_a_lock_that_is_never_released_is_a_failure(
    journal: Journal, database: Database, mode: Mode, tmp_path: Path
) -> None:
    await pragma(database, mode, "busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(admission())))
    await until(lambda: not journal.healthy)
    assert "locked" in journal.failure
    other.execute("COMMIT")
    other.close()
    assert await waiting


async def test_waiting_admissions_are_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_WAITING", 50)
    for _ in range(49):
        journal.open(admission())
    assert journal.healthy
    last = journal.open(admission())
    assert not journal.healthy
    assert await outcome(last)
    await until(lambda: journal.healthy)


async def test_a_failing_ledger_does_not_end_the_journal(
    database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[object]:
        raise LookupError

    journal = await Journal.start(database, broken, mode)  # type: ignore[arg-type]
    assert await outcome(journal.open(admission()))
    assert "not journalled" in caplog.text
    await journal.close()


async def test_closing_on_a_dead_disk_ends_and_reports_the_loss(
    journal: Journal, database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    await pragma(database, mode, "query_only = 1")
    ticket = journal.open(admission())
    results: list[bool] = []
    ticket.when_durable(results.append)
    assert await journal.close(patience=0.2) == 1
    assert results == [False]
    assert "1 entries unwritten" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


async def test_an_unexpected_error_is_logged_and_refuses_work(
    journal: Journal, changes: Changes, caplog: pytest.LogCaptureFixture
) -> None:
    changes.rows = [("key", object(), "requests", 60, "window", 1, 1, 1)]  # type: ignore[list-item]
    ticket = journal.open(admission())
    await until(lambda: not journal.healthy)
    assert "the journal failed unexpectedly" in caplog.text
    assert not ticket.durable
    assert await journal.close(0.1) == 1


async def test_entries_made_while_it_closes_are_written(
    journal: Journal, database: Database
) -> None:
    request = admission()
    assert await outcome(serve(journal, request))
    started, go_on = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(10)

    hanging = asyncio.create_task(database.run(hang))
    await asyncio.to_thread(started.wait, 10)
    closing = asyncio.create_task(journal.close())  # its last fold waits for the thread
    await asyncio.sleep(0.05)
    late = journal.open(admission())
    go_on.set()
    await hanging
    assert await closing == 0
    assert late.durable


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


async def test_a_really_full_disk_heals_once_there_is_space(
    small_disk: Path, changes: Changes, mode: Mode
) -> None:
    database = await Database.open(small_disk / "relay.db")
    journal = await Journal.start(database, changes, mode)
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "ballast")
    number = 0
    while journal.healthy:
        for _ in range(50):
            ticket = journal.open(admission())
        number += 50
        waiting = asyncio.create_task(outcome(ticket))
        await asyncio.wait([waiting], timeout=0.3)
    (small_disk / "ballast").unlink()
    assert await waiting
    await until(lambda: journal.healthy)
    assert await journal.close() == 0
    assert len((await restore(database, NOON)).crashed) == number
    assert await rows(database, "SELECT count(*) FROM usage") == [(number,)]
    assert await rows(database, "PRAGMA integrity_check") == [("ok",)]
    await database.close()
