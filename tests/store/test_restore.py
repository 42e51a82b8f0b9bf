from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store import balance
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.restore import restore
from tests.store.entries import (
    NOON,
    Changes,
    bucket,
    journalled,
    opening,
    outcome,
    rows,
    settlement,
)  # fmt: skip


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


async def test_a_first_start_finds_nothing(database: Database) -> None:
    state = await restore(database, NOON)
    assert (state.rows, state.credited, state.crashed) == ([], {}, [])


async def test_limits_come_back_as_they_were_told(database: Database) -> None:
    told = [bucket(3), bucket(400, kind="tokens"), bucket(5, owner="key_2")]
    changes = Changes()
    changes.rows = list(told)
    journal = await Journal.start(database, changes)
    assert await outcome(journal.open(opening()))
    await journal.close()
    assert sorted((await restore(database, NOON)).rows) == sorted(told)


async def test_a_request_that_a_crash_interrupted_counts_as_reserved(database: Database) -> None:
    whole, running, billed = opening(), opening(time=NOON + 1), opening(billed=True)
    await journalled(database, whole, running, billed, settlement(whole.id))
    state = await restore(database, NOON + 60)
    assert [(request.id, request.tokens) for request in state.crashed] == [
        (billed.id, 1000),
        (running.id, 1000),
    ]
    found = "SELECT id, settled_at, cost_micro, input, rule FROM usage WHERE rule = 'crashed'"
    assert sorted(await rows(database, found)) == sorted(
        [
            (running.id, NOON + 60, 500, None, "crashed"),
            (billed.id, NOON + 60, 500, None, "crashed"),
        ]
    )
    [entry] = await balance.statement(database, "usr_1")
    assert (entry.amount_micro, entry.request_id) == (-500, billed.id)
    assert entry.note == "settled by rule: crashed"
    assert await rows(database, "SELECT requests, estimated, input FROM usage_hour") == [
        (3, 2000, 10)
    ]
    assert (await restore(database, NOON + 120)).crashed == []


async def test_money_comes_back_as_what_was_paid_in_and_what_was_charged(
    database: Database,
) -> None:
    await balance.credit(database, "usr_1", 5_000_000, "paid", NOON)
    request = opening(billed=True)
    await journalled(database, request, settlement(request.id))
    state = await restore(database, NOON)
    assert state.credited == {"usr_1": 5_000_000}
    assert state.rows == [("account", "usr_1", "money", 0, "charged", 0, 77, 0)]
