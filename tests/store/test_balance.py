import asyncio
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from relay.store import balance
from relay.store.change_watch import watch
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.keys import LiveKey, NewKey, create_key, live_keys
from relay.store.users import create_user
from tests.fakes.until import until
from tests.store.entries import NOON, Changes, admission, journalled, outcome, rows, serve

CREDITS = """
    import asyncio, sys
    from relay.store import balance
    from relay.store.database import Database

    async def main(path, user):
        database = await Database.open(path)
        for _ in range(40):
            await balance.credit(database, user, 1_000, "by hand", 1.0)
        await database.close()

    asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_balance_is_the_sum_of_its_statement(database: Database) -> None:
    await balance.credit(database, "usr_1", 1_000, "first", NOON)
    await balance.credit(database, "usr_2", 9, "another's", NOON)
    request, free, costless = admission(billed_micro=500), admission(), admission(billed_micro=500)
    await journalled(database, request, free)
    await journalled(database, costless, cost_micro=0, rule="refunded")
    await balance.credit(database, "usr_1", -400, "a slip of the keyboard", NOON)
    entries = await balance.statement(database, "usr_1")
    assert [(e.kind, e.amount_micro, e.balance_after, e.request_id) for e in entries] == [
        ("credit", -400, 523, None),
        ("charge", -77, 923, request.id),
        ("credit", 1_000, 1_000, None),
    ]
    balances = "SELECT user_id, credited, charged, micro FROM balance ORDER BY user_id"
    assert await rows(database, balances) == [("usr_1", 600, 77, 523), ("usr_2", 9, 0, 9)]


async def test_a_statement_is_read_page_by_page(database: Database) -> None:
    for amount in range(1, 8):
        await balance.credit(database, "usr_1", amount, "", NOON)
    first = await balance.statement(database, "usr_1", limit=4)
    rest = await balance.statement(database, "usr_1", limit=4, before=first[-1].id)
    assert [entry.amount_micro for entry in (*first, *rest)] == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "amount", [0, balance.MAX_CREDIT_MICRO + 1, -balance.MAX_CREDIT_MICRO - 1, 2**70]
)
async def test_a_credit_of_zero_or_too_much_is_refused(database: Database, amount: int) -> None:
    with pytest.raises(ValueError, match="a credit is"):
        await balance.credit(database, "usr_1", amount, "", NOON)
    assert await rows(database, "SELECT * FROM balance") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE statement SET note = 'better'",
        "UPDATE statement SET amount_micro = 5000, balance_after = 5000",
        "DELETE FROM statement",
        "REPLACE INTO statement VALUES (1, 'usr_1', 0.0, 'credit', 5, 1005, NULL, '', '', NULL)",
        "REPLACE INTO statement VALUES (9,'usr_1',0.0,'charge',-1,922,'req_paid','','',NULL)",
        "INSERT INTO statement VALUES (NULL, 'usr_1', 0.0, 'credit', 5, 1000, NULL, '', '', NULL)",
        "INSERT INTO statement VALUES (NULL,'usr_1',0.0,'charge',5,928,'req_x','','',NULL)",
        "INSERT INTO statement VALUES (NULL, 'usr_1', 0.0, 'charge', -5, 918, NULL, '', '', NULL)",
        "INSERT INTO statement VALUES (NULL, 'usr_1', 0.0, 'gift', 5, 928, NULL, '', '', NULL)",
    ],
)
async def test_the_database_refuses_to_forge_a_statement(
    database: Database, statement: str
) -> None:
    await balance.credit(database, "usr_1", 1_000, "", NOON)
    await journalled(database, admission(id="req_paid", billed_micro=500))
    before = await rows(database, "SELECT * FROM statement")
    with pytest.raises(StoreError):
        await database.write(lambda c: c.execute(statement))
    assert await rows(database, "SELECT * FROM statement") == before
    assert await rows(database, "SELECT user_id, micro FROM balance") == [("usr_1", 923)]


async def test_credits_by_another_process_meet_charges_of_a_server(
    database: Database, tmp_path: Path
) -> None:
    user = await create_user(database, email="a@b.c", plan="p", is_admin=False, now=1.0)
    assert user is not None
    await create_key(database, NewKey(user, "", b"d" * 32, ""), max_keys=1, now=1.0)
    calls: list[list[LiveKey]] = []

    async def read() -> None:
        calls.append(await live_keys(database))

    watching = asyncio.create_task(watch(database, 0.05, read))
    journal = await Journal.start(database, Changes())
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(CREDITS), str(tmp_path / "relay.db"), user.id,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    ended = asyncio.create_task(command.communicate())
    charged = 0
    while not ended.done():
        request = admission(user_id=user.id, billed_micro=500)
        assert await outcome(serve(journal, request))
        charged += 77
    assert (await ended)[1] == b""
    await until(lambda: calls and calls[-1][0].credited == 40_000, within=1)
    watching.cancel()
    assert await journal.close() == 0
    totals = "SELECT user_id, credited, charged FROM balance"
    assert await rows(database, totals) == [(user.id, 40_000, charged)]
    entries = sorted(await balance.statement(database, user.id, limit=10**6), key=lambda e: e.id)
    running = 0
    for entry in entries:
        running += entry.amount_micro
        assert entry.balance_after == running
    with sqlite3.connect(tmp_path / "relay.db") as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()
