"""The journal while the disk is well: batches, sums, and values that SQLite rejects."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from relay.store import unfolder
from relay.store.batch import read
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.recovery import restore
from tests.store.entries import (
    NOON,
    RUNNING,
    Changes,
    Mode,
    admission,
    bucket,
    crash,
    opened,
    outcome,
    pragma,
    rows,
    serve,
    settle,
)


async def test_an_entry_is_on_disk_before_its_callback(
    journal: Journal, changes: Changes, tmp_path: Path
) -> None:
    request = admission()
    changes.rows = [bucket(1)]
    ticket = journal.open(request)
    assert not ticket.durable
    assert await outcome(ticket)
    assert ticket.durable
    with sqlite3.connect(tmp_path / "relay.db") as other:  # as another process sees it
        [(_, admitted)] = read(other)
        assert await outcome(settle(journal, request))
        *_, (_, ended) = read(other)
    other.close()
    assert admitted.opened == [request]
    assert admitted.buckets == [bucket(1)]
    assert [one.id for one in ended.ended] == [request.id]


async def test_a_callback_on_a_durable_ticket_is_called_immediately(journal: Journal) -> None:
    ticket = journal.open(admission())
    assert await outcome(ticket)
    results: list[bool] = []
    ticket.when_durable(results.append)
    assert results == [True]


async def test_a_settlement_is_a_row_and_in_the_sums_immediately(
    journal: Journal, database: Database
) -> None:
    request = admission()
    assert await outcome(serve(journal, request))
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
    journal.open(admission())
    while not changes.asked:  # noqa: ASYNC110 - until it is on its way
        await asyncio.sleep(0)
    tickets = {journal.open(admission()) for _ in range(1_000)}
    assert len(tickets) == 1
    assert await outcome(tickets.pop())
    assert changes.asked == 2
    assert await rows(database, "SELECT count(*) FROM running") == [(1_001,)]


async def test_a_batch_goes_before_the_loop_hears_of_the_thread(database: Database) -> None:
    journal = await Journal.start(database, list, "normal")
    started, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(10)

    held = asyncio.create_task(database.run(hold, writes=True))
    while not started.is_set():  # noqa: ASYNC110 - until the thread has it
        await asyncio.sleep(0)
    ticket = journal.open(admission())
    journal.hasten()
    assert not ticket.durable
    go_on.set()
    deadline = time.monotonic() + 10
    while database.is_writing and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251 - a loop that is busy with something else
    journal.hasten()
    assert ticket.durable
    assert not held.done()
    await held
    assert await journal.close() == 0


async def test_the_more_is_behind_the_longer_are_the_steps(database: Database) -> None:
    journal = await Journal.start(database, list, "normal")
    statements: list[str] = []
    await database.run_beside(lambda connection: connection.set_trace_callback(statements.append))
    started, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(10)

    held = asyncio.create_task(database.run(hold))
    while not started.is_set():  # noqa: ASYNC110 - until the thread has it
        await asyncio.sleep(0)
    for _ in range(200):
        for _ in range(10):
            ticket = serve(journal, admission())
        journal.hasten()
        assert ticket.durable
    go_on.set()
    await held
    assert await rows(database, "SELECT count(*) FROM usage") == [(2_000,)]
    steps = {one for one in statements if one.startswith("INSERT INTO unfolding")}
    assert 1 < len(steps) <= 6  # eight of 256
    assert await journal.close() == 0


@pytest.mark.parametrize("number", [1, 2, 3, 5, 1_024, 1_025, 1_500])
async def test_a_batch_of_any_size_is_written_completely(
    journal: Journal, database: Database, changes: Changes, number: int
) -> None:
    requests = [admission(billed_micro=500) for _ in range(number)]
    for request in requests:
        journal.open(request)
    changes.rows = [bucket(7, owner=f"key_{index}") for index in range(number)]
    for request in requests:
        last = settle(journal, request)
    assert await outcome(last)
    assert await journal.close() == 0
    settled = "SELECT count(*), count(DISTINCT id), sum(output) FROM usage"
    assert await rows(database, settled) == [(number, number, 20 * number)]
    assert await rows(database, "SELECT sum(requests) FROM usage_hour") == [(number,)]
    assert await rows(database, "SELECT count(*), sum(used) FROM bucket") == [(number, 7 * number)]
    assert await rows(database, "SELECT micro FROM balance") == [(-77 * number,)]
    assert await rows(database, RUNNING) == []


async def test_a_later_state_of_a_limit_replaces_the_earlier(
    journal: Journal, database: Database, changes: Changes
) -> None:
    for used in (1, 2, 3):
        changes.rows = [bucket(used), bucket(used * 100, kind="tokens")]
        assert await outcome(journal.open(admission()))
    await journal.close()
    assert await rows(database, "SELECT kind, used FROM bucket ORDER BY kind") == [
        ("requests", 3),
        ("tokens", 300),
    ]


async def test_charge_rows_of_a_ledger_are_not_journalled(
    journal: Journal, database: Database, changes: Changes
) -> None:
    changes.rows = [("account", "usr_1", "money", 0, "charged", 0, 5_000, 0)]
    assert await outcome(journal.open(admission()))
    [(_, batch)] = await database.run(lambda connection: list(read(connection)))
    assert batch.buckets == []
    await journal.close()
    assert await rows(database, "SELECT * FROM bucket") == []


async def test_closing_writes_everything(journal: Journal, database: Database) -> None:
    requests = [admission() for _ in range(10)]
    tickets = [journal.open(request) for request in requests]
    for request in requests[:4]:
        settle(journal, request)
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
    ticket = journal.open(admission())
    ticket.when_durable(lambda _: [][0])
    assert await outcome(ticket)
    assert "could not be ended" in caplog.text
    assert await outcome(journal.open(admission()))


# --- summing up ---


async def test_entries_are_summed_up_and_deleted_after_a_second(
    journal: Journal, database: Database, changes: Changes
) -> None:
    running, ended = admission(), admission()
    changes.rows = [bucket(1)]
    tickets = []
    for request in (running, ended):
        tickets.append(journal.open(request))
        assert await outcome(tickets[-1])
    assert await outcome(settle(journal, ended))

    async def summed() -> list[tuple[int]]:
        return await rows(database, "SELECT requests FROM usage_hour")

    async with asyncio.timeout(2):
        while not await summed():  # noqa: ASYNC110 - each asks anew
            await asyncio.sleep(0.01)
    assert await rows(database, RUNNING) == [(running.id,)]  # and no other
    assert await database.run(lambda connection: list(read(connection))) == []
    assert await rows(database, "SELECT used FROM bucket") == [(1,)]
    assert await outcome(settle(journal, running))
    await journal.close()
    assert await summed() == [(2,)]
    assert await rows(database, RUNNING) == []


@pytest.mark.parametrize("last_step", ["summed", "unfolded"])
async def test_a_step_that_fails_is_retried_and_counts_once(
    journal: Journal,
    database: Database,
    changes: Changes,
    monkeypatch: pytest.MonkeyPatch,
    last_step: str,
) -> None:
    monkeypatch.setattr(unfolder, "_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(unfolder, "_RETRY_SECONDS", 0.02)
    failed = threading.Event()
    sums = "SELECT sum(requests), sum(output), sum(cost_micro) FROM {}"

    def spoil(connection: sqlite3.Connection) -> None:
        connection.create_function("report", 0, failed.set)
        connection.execute(
            f"""CREATE TEMP TRIGGER stop BEFORE UPDATE ON main.{last_step} BEGIN
               SELECT report(); SELECT RAISE(ABORT, 'not now'); END"""
        )

    await database.run_beside(spoil)
    for number in range(1, 11):
        request = admission(billed_micro=500)
        changes.rows = [bucket(number)]
        assert await outcome(serve(journal, request))
        if last_step == "summed":
            total = (number, 20 * number, 77 * number)
            assert await rows(database, sums.format("usage_sums")) == [total]
    assert await asyncio.to_thread(failed.wait, 5)
    failed.clear()
    assert await asyncio.to_thread(failed.wait, 5)
    assert journal.healthy
    assert await rows(database, sums.format("usage_hour")) == [(None, None, None)]
    await database.run_beside(lambda c: c.execute("DROP TRIGGER stop"))
    async with asyncio.timeout(5):
        while await rows(database, sums.format("usage_hour")) != [(10, 200, 770)]:
            pass
    assert await rows(database, sums.format("usage_sums")) == [(10, 200, 770)]
    assert await rows(database, "SELECT micro FROM balance") == [(-770,)]
    assert await rows(database, "SELECT used FROM bucket") == [(10,)]


async def test_the_write_ahead_log_is_checkpointed_before_it_grows(
    journal: Journal, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfolder, "_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(unfolder, "_CHECKPOINT_WEIGHT", 100)
    sizes = []
    for _ in range(200):
        for _ in range(20):
            request = admission()
            ticket = serve(journal, request)
        assert await outcome(ticket)
        while await rows(database, "SELECT 1 FROM usage_lately"):  # summed up; a checkpoint is next
            pass
        sizes.append((tmp_path / "relay.db-wal").stat().st_size)
    assert max(sizes) < 2**23  # without checkpoints: 20 MB and more
    assert max(sizes[100:]) < 2 * max(sizes[:100])


# --- values that SQLite will not have ---


async def test_an_entry_that_sqlite_rejects_does_not_drop_others(
    journal: Journal, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bad, *others = admission(), admission(billed_micro=500), admission()
    for request in (bad, *others):
        journal.open(request)
    settle(journal, others[0])
    settle(journal, bad, status="all is well")
    assert await outcome(settle(journal, others[1]))
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
        for request in [admission(model="\ud800"), admission(billed_micro=500), admission()]:
            last = serve(journal, request, input=tokens, cost_micro=78)
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
        request = admission(billed_micro=500)
        assert await outcome(serve(journal, request, cost_micro=cost))
    assert await rows(database, "SELECT charged FROM balance") == [(3 * 10**12 + 5,)]
    assert await rows(database, "SELECT sum(cost_micro) FROM usage_sums") == [(3 * 10**12 + 5,)]


async def test_limits_are_kept_unchanged_beside_an_invalid_value(
    journal: Journal, database: Database, changes: Changes, tmp_path: Path
) -> None:
    """In the journal, for a restart after a crash, and after a fold."""
    good = ("key", "key_2", "tokens", 60, "smooth", 100, 10**15, int(NOON * 1000))
    changes.rows = [bucket(3), bucket(2**80, owner="key_\ud800"), good]
    assert await outcome(journal.open(admission(model="\ud800")))
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
    assert await outcome(journal.open(admission()))
    async with opened(crash(tmp_path / "relay.db")) as copy:
        assert (await restore(copy, NOON)).rows == [bucket(2**63 - 1)]
    await journal.close()
    assert await rows(database, "SELECT * FROM bucket") == [bucket(2**63 - 1)]


async def test_slots_are_used_again(
    journal: Journal, database: Database, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfolder, "_LIMITS_BATCHES", 8)
    for number in range(60):
        changes.rows = [bucket(number)]
        assert await outcome(serve(journal, admission()))
        await rows(database, "SELECT 1")  # unfolded
    await journal.close()
    assert await rows(database, "SELECT count(*), count(DISTINCT id) FROM usage") == [(60, 60)]
    assert await rows(database, "SELECT used FROM bucket") == [(59,)]
    [(slots, numbers)] = await rows(
        database, "SELECT count(*), count(DISTINCT number) FROM journal"
    )
    assert slots == numbers < 60
    [(upto, limits)] = await rows(database, "SELECT * FROM unfolded")
    assert upto == limits == journal.batches
