import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from relay.store import balance, unfold, unfolder, usage
from relay.store.batch import read
from relay.store.database import Database
from relay.store.journal import Journal, Ticket
from relay.store.recovery import restore
from tests.store.entries import (
    NOON,
    Changes,
    admission,
    bucket,
    crash,
    journalled,
    opened,
    outcome,
    rows,
    serve,
    settle,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with opened(path) as database:
        yield database


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    journal = await Journal.start(database, Changes())
    yield journal
    await journal.close()


async def test_a_first_start_finds_nothing(database: Database) -> None:
    state = await restore(database, NOON)
    assert (state.rows, state.crashed) == ([], [])


async def test_limits_are_restored_in_their_last_state(path: Path, database: Database) -> None:
    """After a crash as after an orderly end."""
    changes = Changes()
    journal = await Journal.start(database, changes)
    expected = [bucket(3), bucket(400, kind="tokens"), bucket(5, owner="key_2")]
    for used in (1, 2, 3):
        changes.rows = [bucket(used), *expected[1:][: used - 1]]
        assert await outcome(journal.open(admission()))
    async with opened(crash(path)) as copy:
        assert sorted((await restore(copy, NOON)).rows) == sorted(expected)
    await journal.close()
    assert sorted((await restore(database, NOON)).rows) == sorted(expected)


async def test_a_journalled_limit_is_later_than_a_folded_one(
    path: Path, database: Database
) -> None:
    changes = Changes()
    for used in (1, 2):
        changes.rows = [bucket(used)]
        await restore(database, NOON)
        journal = await Journal.start(database, changes)
        assert await outcome(journal.open(admission()))
        if used == 1:
            await journal.close()
    assert await rows(database, "SELECT used FROM bucket") == [(1,)]
    async with opened(crash(path)) as copy:
        assert (await restore(copy, NOON)).rows == [bucket(2)]
    await journal.close()


async def test_a_request_that_a_crash_interrupted_counts_as_reserved(
    path: Path, journal: Journal
) -> None:
    complete, running, billed = admission(), admission(time=NOON + 1), admission(billed_micro=500)
    for request in (complete, running, billed):
        journal.open(request)
    assert await outcome(settle(journal, complete))
    async with opened(crash(path)) as copy:
        assert (await restore(copy, NOON + 60)).crashed == [billed, running]
        found = "SELECT id, time, cost_micro, input, rule FROM usage WHERE rule = 'crashed'"
        assert await rows(copy, found) == [
            (billed.id, NOON, 500, None, "crashed"),
            (running.id, NOON + 1, 0, None, "crashed"),
        ]
        [entry] = await balance.statement(copy, "usr_1")
        assert (entry.amount_micro, entry.request_id, entry.time) == (-500, billed.id, NOON + 60)
        assert entry.note == "settled by rule: crashed"
        assert await rows(copy, "SELECT requests, estimated, input FROM usage_hour") == [
            (3, 2000, 10)
        ]
        assert (await restore(copy, NOON + 120)).crashed == []
        assert await rows(copy, "SELECT sum(requests) FROM usage_sums") == [(3,)]


async def test_credits_and_charges_are_restored(
    database: Database,
) -> None:
    await balance.credit(database, "usr_1", 5_000_000, "paid", NOON)
    await journalled(database, admission(billed_micro=500))
    state = await restore(database, NOON)
    assert await rows(database, "SELECT user_id, credited FROM balance") == [("usr_1", 5_000_000)]
    assert state.rows == [("account", "usr_1", "money", 0, "charged", 0, 77, 0)]


async def test_pruned_requests_are_not_missed_by_recovery(path: Path, journal: Journal) -> None:
    """A long request, while all before and after it are deleted."""
    async with opened(path) as other:
        for _ in range(3):
            request = admission(time=1.0)
            assert await outcome(serve(journal, request))
        long, short = admission(time=1.0), admission(time=1.0)
        journal.open(long)
        assert await outcome(serve(journal, short))
        while await rows(other, "SELECT requests FROM usage_hour") != [(4,)]:
            pass
        assert await usage.prune(other, 1, NOON) == 3
        async with opened(crash(path, 1)) as copy:
            assert (await restore(copy, NOON)).crashed == [long]
        assert await outcome(settle(journal, long))
        async with opened(crash(path, 2)) as copy:
            assert (await restore(copy, NOON)).crashed == []
            assert await rows(copy, "SELECT sum(requests) FROM usage_hour") == [(5,)]


@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_a_crash_at_any_moment_loses_and_doubles_nothing(
    path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    synchronous: Literal["normal", "full"],
) -> None:
    """Before, during and after steps of unfolding, of which there are many here."""
    monkeypatch.setattr(unfolder, "_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(unfolder, "_STEP_WEIGHT", 3)
    monkeypatch.setattr(unfold, "_SUM_ROWS", 3)
    dice = random.Random(synchronous)
    changes = Changes()
    journal = await Journal.start(database, changes, synchronous)
    running: list[tuple[Ticket, str]] = []
    requests = {}
    admitted: set[str] = set()  # as callbacks reported
    ended: set[str] = set()
    copies = []
    for number in range(30):
        for _ in range(dice.choice([1, 1, 5, 20])):
            request = admission(billed_micro=dice.choice([0, 500]))
            requests[request.id] = request
            changes.rows = [bucket(len(requests))]
            ticket = journal.open(request)
            ticket.when_durable(lambda _, id=request.id: admitted.add(id))  # type: ignore[misc]
            running.append((ticket, request.id))
        dice.shuffle(running)
        while len(running) > 10:
            ticket, id = running.pop()
            ticket = settle(journal, requests[id])
            ticket.when_durable(lambda _, id=id: ended.add(id))  # type: ignore[misc]
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(dice.choice([0, 0, 0.001]))
        copies.append((set(admitted), set(ended), set(requests), crash(path, number)))
    assert await journal.close() == 0

    left = 0
    for admitted, ended, known, file in copies:
        async with opened(file) as copy:
            left += len(await copy.run(lambda connection: list(read(connection))))
            crashed = {request.id for request in (await restore(copy, NOON)).crashed}
            ids = [id for (id,) in await rows(copy, "SELECT id FROM usage")]
            assert len(ids) == len(set(ids))
            assert admitted <= set(ids) <= known
            assert not crashed & ended
            if ids:
                assert (await restore(copy, NOON)).rows[0] == bucket(len(ids))
            [(cost, charged)] = await rows(
                copy,
                """SELECT total(cost_micro),
                   (SELECT -total(amount_micro) FROM statement) FROM usage""",
            )
            free = sum(77 for id in set(ids) - crashed if not requests[id].billed_micro)
            assert cost - free == charged
            for table in ("usage_hour", "usage_sums"):
                sums = f"SELECT total(requests), total(cost_micro) FROM {table}"
                assert await rows(copy, sums) == [(len(ids), cost)]
            assert await rows(copy, "SELECT * FROM running") == []
    assert left


@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
async def test_a_handover_that_failed_doubles_and_loses_nothing(
    path: Path, database: Database, writes: bool
) -> None:
    changes = Changes()
    journal = await Journal.start(database, changes)
    first, second = admission(billed_micro=500), admission()
    assert await outcome(serve(journal, first))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # another command writes just now
    assert await journal.close() == 0
    other.execute("COMMIT")
    other.close()
    async with opened(path) as successor:
        await restore(successor, NOON, alive=True)
        its = await Journal.start(successor, Changes())
        if writes:
            its.note_applied(1, NOON)
        assert await its.close() == 0
    await journal.resume()
    assert await outcome(serve(journal, second))
    async with opened(crash(path)) as copy:
        await restore(copy, NOON)
        ids = await rows(copy, "SELECT id FROM usage ORDER BY number")
        assert ids == [(first.id,), (second.id,)]
    assert await rows(database, "SELECT id FROM usage ORDER BY number") == ids
    assert await rows(database, "SELECT request_id FROM statement") == [(first.id,)]
    await journal.close()


async def test_the_journal_goes_on_after_a_crash(path: Path, journal: Journal) -> None:
    for _ in range(3):
        assert await outcome(journal.open(admission()))
    async with opened(crash(path)) as copy:
        await journalled(copy, admission(), running=[admission()])
        assert len((await restore(copy, NOON)).crashed) == 1
        assert await rows(copy, "SELECT count(*), sum(rule = 'crashed') FROM usage") == [(5, 4)]
        assert await rows(copy, "SELECT sum(requests) FROM usage_sums") == [(5,)]


async def test_batches_that_were_not_restored_are_not_overwritten(
    path: Path, journal: Journal
) -> None:
    request, later = admission(), admission(time=NOON + 1)
    assert await outcome(journal.open(request))
    left = crash(path)
    async with opened(left) as copy:
        other = await Journal.start(copy, Changes())
        assert await outcome(other.open(later))
        async with opened(crash(left)) as second:
            assert (await restore(second, NOON)).crashed == [request, later]
        await other.close()


@pytest.mark.parametrize("written", [False, True], ids=["one-batch", "two-batches"])
async def test_a_request_that_was_admitted_anew_counts_once(
    path: Path, journal: Journal, database: Database, written: bool
) -> None:
    first = admission(reserved=10)
    anew = admission(id=first.id, reserved=20, billed_micro=30)
    replaced = journal.open(first)
    if written:
        await outcome(replaced)
    ticket = journal.open(anew)
    await outcome(ticket)
    async with opened(crash(path)) as copy:
        state = await restore(copy, NOON)
        assert state.crashed == [anew]
        [row] = await rows(copy, "SELECT id, reserved, cost_micro FROM usage")
        assert row == (first.id, 20, 30)
        assert len(await rows(copy, "SELECT * FROM statement")) == 1
    await outcome(settle(journal, anew))
    await until_folded(database)
    assert await rows(database, "SELECT id, reserved FROM usage") == [(first.id, 20)]


async def until_folded(database: Database) -> None:
    async with asyncio.timeout(5):
        while not await rows(database, "SELECT * FROM usage"):  # noqa: ASYNC110 - each asks anew
            await asyncio.sleep(0.02)
