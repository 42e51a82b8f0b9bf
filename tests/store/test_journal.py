import asyncio
import logging
import os
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from relay.store import database as store
from relay.store import journal as module
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.recovery import restore
from tests.fakes.until import until
from tests.store.entries import (
    NOON,
    Changes,
    bucket,
    crash,
    opened,
    opening,
    outcome,
    rows,
    settle,
)  # fmt: skip

Mode: TypeAlias = Literal["normal", "full"]

OPENED = "SELECT value ->> 0 FROM batch, json_each(opened)"
NUMBER = "SELECT coalesce(sum(json_array_length(opened)), 0) FROM batch"


@pytest.fixture(params=["normal", "full"])
def mode(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    return mode


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_INTERVAL_SECONDS", 0.02)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def journal(database: Database, changes: Changes, mode: Mode) -> AsyncIterator[Journal]:
    journal = await Journal.start(database, changes, mode)
    yield journal
    await journal.close(0)


async def pragma(database: Database, mode: Mode, text: str) -> int:
    """Asked of, or set on, the connection that the journal writes on."""

    def work(connection: sqlite3.Connection) -> int:
        found = connection.execute(f"PRAGMA {text}").fetchone()
        return int(found[0]) if found else 0

    return database.run_inline(work) if mode == "normal" else await database.run(work)


# --- while all is well ---


async def test_an_entry_is_on_disk_before_its_callback(
    journal: Journal, changes: Changes, tmp_path: Path
) -> None:
    request = opening()
    changes.rows = [bucket(1)]
    ticket = journal.open(request)
    assert not ticket.durable
    assert await outcome(ticket)
    assert ticket.durable
    with sqlite3.connect(tmp_path / "relay.db") as other:  # as another process sees it
        seen = other.execute(OPENED).fetchall()
        used = other.execute("SELECT value ->> 6 FROM batch, json_each(buckets)").fetchall()
        assert await outcome(settle(journal, ticket, request))
        ended = other.execute("SELECT id, key_id FROM usage").fetchall()
    other.close()
    assert seen == [(request.id,)]
    assert used == [(1,)]
    assert ended == [(request.id, "key_1")]


async def test_a_callback_on_a_durable_ticket_is_called_immediately(journal: Journal) -> None:
    ticket = journal.open(opening())
    assert await outcome(ticket)
    told: list[bool] = []
    ticket.when_durable(told.append)
    assert told == [True]


async def test_a_settlement_is_a_row_and_in_the_sums_immediately(
    journal: Journal, database: Database
) -> None:
    request = opening()
    assert await outcome(settle(journal, journal.open(request), request))
    columns = "SELECT id, time, reserved, status, input, output, rule, cost_micro FROM usage"
    assert await rows(database, columns) == [(request.id, NOON, 1000, 200, 10, 20, "reported", 77)]
    sums = "SELECT requests, input, output, cost_micro FROM {}"
    assert await rows(database, sums.format("usage_hour")) == []  # not folded yet
    assert await rows(database, sums.format("usage_sums")) == [(1, 10, 20, 77)]
    await journal.close()
    for table in ("usage_hour", "usage_sums"):
        assert await rows(database, sums.format(table)) == [(1, 10, 20, 77)]


async def test_entries_made_during_a_write_are_the_next_batch(
    journal: Journal, database: Database, changes: Changes
) -> None:
    journal.open(opening())
    while not changes.asked:  # noqa: ASYNC110 - until it is on its way
        await asyncio.sleep(0)
    tickets = {journal.open(opening()) for _ in range(1_000)}
    assert len(tickets) == 1
    assert await outcome(tickets.pop())
    assert changes.asked == 2
    assert await rows(database, NUMBER) == [(1_001,)]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 1_024, 1_025, 1_500])
async def test_a_batch_of_any_size_is_written_completely(
    journal: Journal, database: Database, changes: Changes, number: int
) -> None:
    requests = [opening(billed_micro=500) for _ in range(number)]
    tickets = [journal.open(request) for request in requests]
    changes.rows = [bucket(7, owner=f"key_{index}") for index in range(number)]
    for ticket, request in zip(tickets, requests, strict=True):
        last = settle(journal, ticket, request)
    assert await outcome(last)
    assert await journal.close() == 0
    settled = "SELECT count(*), count(DISTINCT id), sum(output) FROM usage"
    assert await rows(database, settled) == [(number, number, 20 * number)]
    assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(number,)]
    assert await rows(database, "SELECT count(*), sum(used) FROM bucket") == [(number, 7 * number)]
    assert await rows(database, "SELECT micro FROM balance") == [(-77 * number,)]
    assert await rows(database, "SELECT * FROM batch") == []


async def test_a_later_state_of_a_limit_replaces_the_earlier(
    journal: Journal, database: Database, changes: Changes
) -> None:
    for used in (1, 2, 3):
        changes.rows = [bucket(used), bucket(used * 100, kind="tokens")]
        assert await outcome(journal.open(opening()))
    await journal.close()
    assert await rows(database, "SELECT kind, used FROM bucket ORDER BY kind") == [
        ("requests", 3),
        ("tokens", 300),
    ]


async def test_charge_rows_of_a_ledger_are_not_journalled(
    journal: Journal, database: Database, changes: Changes
) -> None:
    changes.rows = [("account", "usr_1", "money", 0, "charged", 0, 5_000, 0)]
    assert await outcome(journal.open(opening()))
    assert await rows(database, "SELECT buckets FROM batch") == [("[]",)]
    await journal.close()
    assert await rows(database, "SELECT * FROM bucket") == []


async def test_closing_writes_everything(journal: Journal, database: Database) -> None:
    requests = [opening() for _ in range(10)]
    tickets = [journal.open(request) for request in requests]
    for ticket, request in zip(tickets[:4], requests, strict=False):
        settle(journal, ticket, request)
    assert await journal.close() == 0
    assert await journal.close() == 0
    assert all(ticket.durable for ticket in tickets)
    assert not journal.healthy
    assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(4,)]
    assert len((await restore(database, NOON)).crashed) == 6


@pytest.mark.parametrize(("mode", "level"), [("normal", 1), ("full", 2)], indirect=["mode"])
async def test_synchronous_is_a_setting(
    journal: Journal, database: Database, mode: Mode, level: int
) -> None:
    assert await pragma(database, mode, "synchronous") == level


async def test_a_failing_callback_does_not_stop_the_journal(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = journal.open(opening())
    ticket.when_durable(lambda _: [][0])
    assert await outcome(ticket)
    assert "could not be ended" in caplog.text
    assert await outcome(journal.open(opening()))


# --- summing up ---


async def test_entries_are_summed_up_and_deleted_within_a_second(
    journal: Journal, database: Database, changes: Changes
) -> None:
    running, ended = opening(), opening()
    changes.rows = [bucket(1)]
    tickets = []
    for request in (running, ended):
        tickets.append(journal.open(request))
        assert await outcome(tickets[-1])
    assert await outcome(settle(journal, tickets[1], ended))

    async def summed() -> list[tuple[int]]:
        return await rows(database, "SELECT requests FROM usage_hour")

    async with asyncio.timeout(1):
        while not await summed():
            pass
    assert await rows(database, OPENED) == [(running.id,)]  # and no other
    assert await rows(database, "SELECT buckets FROM batch") == [("[]",)]
    assert await rows(database, "SELECT used FROM bucket") == [(1,)]
    assert await outcome(settle(journal, tickets[0], running))
    await journal.close()
    assert await summed() == [(2,)]
    assert await rows(database, "SELECT * FROM batch") == []


async def test_a_fold_that_fails_is_retried_without_counting_twice(
    journal: Journal, database: Database, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FOLD_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(module, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LAST_RETRY_SECONDS", 0.02)
    failed = threading.Event()
    sums = "SELECT sum(requests), sum(output), sum(cost_micro) FROM {}"

    def spoil(connection: sqlite3.Connection) -> None:  # the very last step
        connection.create_function("told", 0, failed.set)
        connection.execute(
            """CREATE TEMP TRIGGER stop BEFORE UPDATE ON main.summed BEGIN
               SELECT told(); SELECT RAISE(ABORT, 'not now'); END"""
        )

    await database.run(spoil)
    for number in range(1, 11):
        request = opening(billed_micro=500)
        changes.rows = [bucket(number)]
        assert await outcome(settle(journal, journal.open(request), request))
        assert await rows(database, sums.format("usage_sums")) == [
            (number, 20 * number, 77 * number)
        ]
    assert await asyncio.to_thread(failed.wait, 5)
    failed.clear()
    assert await asyncio.to_thread(failed.wait, 5)
    assert journal.healthy
    assert await rows(database, sums.format("usage_hour")) == [(None, None, None)]
    assert await rows(database, "SELECT * FROM bucket") == []
    await database.run(lambda c: c.execute("DROP TRIGGER stop"))
    while await rows(database, "SELECT * FROM batch"):
        pass
    for table in ("usage_hour", "usage_sums"):
        assert await rows(database, sums.format(table)) == [(10, 200, 770)]
    assert await rows(database, "SELECT used FROM bucket") == [(10,)]


async def test_the_write_ahead_log_is_checkpointed_before_it_grows(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FOLD_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(module, "_CHECKPOINT_REQUESTS", 100)
    sizes = []
    for _ in range(200):
        for _ in range(20):
            request = opening()
            ticket = settle(journal, journal.open(request), request)
        assert await outcome(ticket)
        sizes.append((tmp_path / "relay.db-wal").stat().st_size)
    assert max(sizes) < 2**20
    assert max(sizes[100:]) < 2 * max(sizes[:100])


# --- values that SQLite will not have ---


async def test_an_entry_that_sqlite_rejects_does_not_drop_others(
    journal: Journal, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bad, *others = opening(), opening(billed_micro=500), opening()
    tickets = {request.id: journal.open(request) for request in (bad, *others)}
    settle(journal, tickets[others[0].id], others[0])
    settle(journal, tickets[bad.id], bad, status="all is well")
    assert await outcome(settle(journal, tickets[others[1].id], others[1]))
    ids = await rows(database, "SELECT id FROM usage ORDER BY id")
    assert ids == sorted((request.id,) for request in others)
    assert await rows(database, "SELECT charged FROM balance") == [(77,)]
    assert bad.id in caplog.text
    assert journal.healthy


@pytest.mark.parametrize("tokens", [10**12 + 1, 2**62, 2**63, -(2**63), -(2**70), 10**30])
async def test_absurd_counts_are_bounded_and_the_rest_is_kept(
    journal: Journal, database: Database, tokens: int
) -> None:
    for _ in range(2):  # sums of sums, too
        for request in [opening(model="\ud800"), opening(billed_micro=500), opening()]:
            last = settle(journal, journal.open(request), request, input=tokens, cost_micro=78)
        assert await outcome(last)
    assert await rows(database, "SELECT count(*), sum(output) FROM usage") == [(6, 120)]
    assert await journal.close() == 0
    bound = 10**12 if tokens > 0 else -(10**12)
    sums = "SELECT sum(requests), sum(input), sum(output) FROM usage_hour"
    assert await rows(database, sums) == [(6, 6 * bound, 120)]
    assert await rows(database, "SELECT charged FROM balance") == [(156,)]
    assert (await restore(database, NOON)).crashed == []


async def test_an_absurd_cost_is_charged_as_its_bound(journal: Journal, database: Database) -> None:
    for cost in (2**62, 2**62, 2**80, 5):
        request = opening(billed_micro=500)
        assert await outcome(settle(journal, journal.open(request), request, cost_micro=cost))
    assert await rows(database, "SELECT charged FROM balance") == [(3 * 10**12 + 5,)]
    assert await rows(database, "SELECT sum(cost_micro) FROM usage_sums") == [(3 * 10**12 + 5,)]


async def test_limits_are_kept_unchanged_beside_an_invalid_value(
    journal: Journal, database: Database, changes: Changes, tmp_path: Path
) -> None:
    """Both in the journal, for after a crash, and once it is folded."""
    good = ("key", "key_2", "tokens", 60, "smooth", 100, 10**15, int(NOON * 1000))
    changes.rows = [bucket(3), bucket(2**80, owner="key_\ud800"), good]
    assert await outcome(journal.open(opening(model="\ud800")))
    want = {bucket(3), bucket(2**63 - 1, owner="key_?"), good}
    async with opened(crash(tmp_path / "relay.db")) as copy:
        assert set((await restore(copy, NOON)).rows) == want
    await journal.close()
    assert set(await rows(database, "SELECT * FROM bucket")) == want


@pytest.mark.parametrize("used", [2**63, 2**64 - 1, 2**64])
async def test_a_limit_beyond_all_bounds_stops_neither_fold_nor_start(
    journal: Journal, database: Database, changes: Changes, tmp_path: Path, used: int
) -> None:
    changes.rows = [bucket(used)]
    assert await outcome(journal.open(opening()))
    async with opened(crash(tmp_path / "relay.db")) as copy:
        assert (await restore(copy, NOON)).rows == [bucket(2**63 - 1)]
    await journal.close()
    assert await rows(database, "SELECT * FROM bucket") == [bucket(2**63 - 1)]


# --- while the disk is not well ---


async def test_a_full_disk_refuses_work_keeps_entries_and_heals(
    journal: Journal, database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    flying = opening()
    before = journal.open(flying)
    assert await outcome(before)
    pages = await pragma(database, mode, "page_count")
    await pragma(database, mode, f"max_page_count = {pages}")
    kept = [journal.open(opening()) for _ in range(2_000)]
    waiting = asyncio.create_task(outcome(kept[-1]))
    await until(lambda: not journal.healthy)
    assert "the disk is full" in journal.failure
    settle(journal, before, flying)  # a stream in flight goes on
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
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "cannot be written" in journal.failure
    await pragma(database, mode, "query_only = 0")
    assert await waiting
    assert journal.healthy


async def test_a_callback_waits_for_the_grace_but_its_entry_is_kept(
    journal: Journal, database: Database, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.1)
    await pragma(database, mode, "query_only = 1")
    ticket = journal.open(opening())
    assert not await outcome(ticket)
    later = journal.open(opening())
    assert later is not ticket
    assert not await outcome(later)
    await pragma(database, mode, "query_only = 0")
    await until(lambda: later.durable)
    assert await rows(database, NUMBER) == [(2,)]


async def test_a_hanging_disk_refuses_new_work(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "takes longer" in journal.failure
    other.execute("COMMIT")
    other.close()
    assert await waiting
    assert journal.healthy


async def test_a_fold_that_hangs_holds_nobody_beyond_the_grace(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.1)
    monkeypatch.setattr(module, "_FOLD_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    first = opening()
    ticket = journal.open(first)
    assert await outcome(ticket)
    hangs, works = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        hangs.set()
        works.wait(10)

    hanging = asyncio.create_task(database.run(hang))
    await asyncio.to_thread(hangs.wait, 10)
    ended = settle(journal, ticket, first)
    await asyncio.sleep(0.05)  # at once in one mode, not before the disk works in the other
    later = journal.open(opening())
    assert not await outcome(later, within=2)
    assert not journal.healthy
    works.set()
    await hanging
    await until(lambda: ended.durable and later.durable and journal.healthy)


async def test_a_slow_fold_leaves_the_journal_healthy(
    journal: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.1)
    monkeypatch.setattr(module, "_FOLD_INTERVAL_SECONDS", 0.4)
    assert await outcome(journal.open(opening()))
    works = threading.Event()
    hanging = asyncio.create_task(database.run(lambda _: works.wait(10)))
    await until(lambda: not journal.healthy)
    works.set()
    await hanging
    await until(lambda: journal.healthy)  # though nothing is left to write


async def test_a_short_lock_by_another_process_is_waited_for(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticket = journal.open(opening())
    await asyncio.sleep(0.1)
    assert not ticket.durable
    other.execute("COMMIT")
    other.close()
    assert await outcome(ticket)
    assert journal.healthy
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["full"], indirect=True)
async def test_a_lock_that_is_never_released_is_a_failure(
    journal: Journal, database: Database, mode: Mode, tmp_path: Path
) -> None:
    await pragma(database, mode, "busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(outcome(journal.open(opening())))
    await until(lambda: not journal.healthy)
    assert "locked" in journal.failure
    other.execute("COMMIT")
    other.close()
    assert await waiting


async def test_waiting_admissions_are_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 50)
    for _ in range(49):
        journal.open(opening())
    assert journal.healthy
    last = journal.open(opening())
    assert not journal.healthy
    assert await outcome(last)
    await until(lambda: journal.healthy)


async def test_a_failing_ledger_does_not_end_the_journal(
    database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[object]:
        raise LookupError

    journal = await Journal.start(database, broken, mode)  # type: ignore[arg-type]
    assert await outcome(journal.open(opening()))
    assert "not journalled" in caplog.text
    await journal.close()


async def test_closing_on_a_dead_disk_ends_and_reports_the_loss(
    journal: Journal, database: Database, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    await pragma(database, mode, "query_only = 1")
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
            ticket = journal.open(opening())
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


async def test_a_schema_without_metering_is_migrated_with_its_data(
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
