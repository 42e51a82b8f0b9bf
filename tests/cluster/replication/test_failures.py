"""Outages, kills and long absences: nodes go on, and nothing is lost or doubled."""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from relay.cluster.link import EngineAwayError
from relay.store import usage
from relay.store.unfold import prepare, sum_up
from tests.cluster.nodes import Wire
from tests.cluster.postgres import Postgres
from tests.cluster.replication.members import Member, assert_equal, member, settle, until
from tests.cluster.replication.rows import CREDIT, ROWS, USAGE, USER
from tests.cluster.replication.trial import Trial


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
async def test_a_kill_at_any_call_loses_and_doubles_nothing(
    url: str, tmp_path: Path, cut: int, is_done: bool
) -> None:
    trial = Trial(url, tmp_path)
    a, b = await trial.open("a"), await trial.open("b")
    for what in range(10):
        await trial.act(a, what, "usr_0")
        await trial.act(b, what, "usr_0")
    await trial.sync(b, 0)
    await trial.act(b, 4, "usr_1")
    await trial.sync(a, cut, is_done=is_done)
    await trial.kill("a")
    await trial.open("a")
    await trial.assert_complete()
    await trial.kill("a")
    await trial.kill("b")


async def test_changes_are_seen_within_a_second(trio: list[Member]) -> None:
    a, b, c = trio
    await a.run(ROWS["users"])
    taken = []
    for number in range(20):
        plan = f"p{number}"
        await a.run("UPDATE users SET plan = ?", plan)

        async def is_everywhere(plan: str = plan) -> bool:
            found = [await one.rows("SELECT plan FROM users") for one in (b, c)]
            return found == [[(plan,)]] * 2

        taken.append(await until(is_everywhere))
    taken.sort()
    assert taken[14] < 1.0  # the others may have met a busy machine


async def test_nodes_go_on_without_postgresql(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db") as a, member(url, "b", tmp_path / "b.db") as b:
        await a.run(USER, "usr_1", "a@b")
        await settle(a, b)
        own_postgres.kill()
        with pytest.raises(EngineAwayError):
            await a.sync()
        await a.run("UPDATE users SET plan = 'other'")
        for number in range(5):
            await b.run(CREDIT, "usr_1", 1)
            await a.run(CREDIT, "usr_1", 10)
            await a.run(USAGE, f"req_{number}", 1.0, "usr_1")
        assert await a.rows("SELECT credited FROM balance") == [(50,)]
        assert a.replication is not None
        figures = await a.replication.figures()
        assert (figures.unsent, figures.away_for > 0) == (11, True)
        own_postgres.start()

        async def is_everywhere() -> bool:
            found = [await one.rows("SELECT credited FROM balance") for one in (a, b)]
            return found == [[(55,)]] * 2 and len(await b.rows("SELECT 1 FROM usage")) == 5

        await until(is_everywhere)
        await settle(a, b)
        await assert_equal(a, b)


async def test_an_outage_is_logged_once_and_its_end(
    own_postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db") as a:
        assert a.replication is not None
        once = a.replication.once
        async with once.once("code", "one"):
            pass

        async def is_settled() -> bool:
            return not once.ended()

        await until(is_settled)
        own_postgres.stop()
        await until(logged(caplog, "rows are not shared for now: PostgreSQL is away"))
        own_postgres.start()
        await until(logged(caplog, "rows are shared again"))
        # Its connection was idle through the outage.
        async with once.once("code", "two"):
            pass
        await until(is_settled)
    messages = [record.message for record in caplog.records if "rows are" in record.message]
    assert len(messages) == 2


def logged(caplog: pytest.LogCaptureFixture, text: str) -> Callable[[], Awaitable[bool]]:
    """Asks whether a text is in the log."""

    async def is_logged() -> bool:
        return text in caplog.text

    return is_logged


async def test_a_node_starts_without_postgresql(
    own_postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db"):
        pass
    own_postgres.kill()
    async with member(url, "a", tmp_path / "a.db") as a:
        await a.run(USER, "usr_1", "a@b")
        own_postgres.start()
        async with member(url, "b", tmp_path / "b.db") as b:

            async def has_come() -> bool:
                return bool(await b.rows("SELECT 1 FROM users"))

            await until(has_come)
            await until(logged(caplog, "rows are shared again"))
    assert caplog.text.count("rows are not shared for now") == 1


async def test_a_node_whose_network_was_cut_catches_up(postgres: Postgres, database: str,
                                                       tmp_path: Path) -> None:  # fmt: skip
    async with Wire(postgres.port) as wire:
        far, near = postgres.url(database, wire.port), postgres.url(database)
        async with (
            member(far, "a", tmp_path / "a.db") as a,
            member(near, "b", tmp_path / "b.db") as b,
        ):
            wire.drop()
            await a.run(USER, "usr_1", "a@b")
            await b.run(USER, "usr_2", "b@b")
            wire.restore()

            async def is_everywhere() -> bool:
                return [len(await it.rows("SELECT 1 FROM users")) for it in (a, b)] == [2, 2]

            await until(is_everywhere, 20)


async def test_a_node_that_was_away_for_long_catches_up(url: str, tmp_path: Path) -> None:
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.run(USER, "usr_1", "a@b")
            await settle(a, b)
        for number in range(120):  # several pages, and rows that have changed again and again
            await b.run(USER, f"usr_b{number}", f"{number}@b")
            await b.run(CREDIT, f"usr_b{number % 7}", 1)
            await b.run("UPDATE users SET plan = ?", f"p{number}")
        await b.run("DELETE FROM users WHERE id LIKE 'usr_b1%'")
        await b.sync()
        async with (
            member(url, "a", tmp_path / "a.db") as a,
            member(url, "c", tmp_path / "c.db") as c,
        ):
            await settle(a, b, c)
            await assert_equal(a, b, c)


async def test_a_backup_that_is_put_back_gets_its_own_rows(url: str, tmp_path: Path) -> None:
    async with member(url, "b", tmp_path / "b.db") as b:
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.run(USER, "usr_1", "a@b")
            await a.run(USAGE, "req_1", 1.0, "usr_1")
            await settle(a, b)
        shutil.copy(tmp_path / "a.db", tmp_path / "backup.db")
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.run(CREDIT, "usr_1", 5)
            await a.run(USAGE, "req_2", 2.0, "usr_1")
            await settle(a, b)
        shutil.copy(tmp_path / "backup.db", tmp_path / "a.db")
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.run(CREDIT, "usr_1", 7)
            await a.run(USAGE, "req_3", 3.0, "usr_1")
            await settle(a, b)
            await assert_equal(a, b)
            assert await b.rows("SELECT credited FROM balance") == [(12,)]
            assert len(await b.rows("SELECT 1 FROM usage")) == 3


async def test_rows_that_postgresql_lost_are_sent_again(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db") as a, member(url, "b", tmp_path / "b.db") as b:
        await a.run(USER, "usr_1", "a@b")
        await settle(a, b)
        own_postgres.stop()
        own_postgres.save()
        own_postgres.start()
        await until_synced(a)
        await a.run(CREDIT, "usr_1", 5)
        await a.sync()
        own_postgres.stop()
        own_postgres.put_back()
        own_postgres.start()
        await until_synced(b)
        await until_synced(a)
        await b.run("UPDATE users SET plan = 'other'")

        async def is_everywhere() -> bool:
            sums = [await one.rows("SELECT credited FROM balance") for one in (a, b)]
            plans = [await one.rows("SELECT plan FROM users") for one in (a, b)]
            return sums == [[(5,)]] * 2 and plans == [[("other",)]] * 2

        await until(is_everywhere)
        await settle(a, b)
        await assert_equal(a, b)


async def until_synced(one: Member) -> None:
    """PostgreSQL is there again for a node."""

    async def is_synced() -> bool:
        try:
            await one.sync()
        except EngineAwayError:
            return False
        return True

    await until(is_synced)


async def test_sums_count_each_request_of_all_nodes_once(trio: list[Member]) -> None:
    for turn in range(3):
        for place, one in enumerate(trio):
            for number in range(20):
                await one.run(USAGE, f"req_{turn}_{place}_{number}", 3600.0 * number, "usr_1")
        await settle(*trio)
        for one in trio:  # as the unfolder does each second
            await one.database.run(prepare)
            while await one.database.run(sum_up, writes=True):
                pass
    found = [await usage.sums(one.database, "day") for one in trio]
    assert found[0] == found[1] == found[2]
    assert (found[0][0].requests, found[0][0].cost_micro) == (180, 900)
    months = [await one.rows("SELECT requests, cost_micro FROM usage_month") for one in trio]
    assert months == [[(180, 900)]] * 3
    days = [await one.rows("SELECT sum(requests) FROM upstream_day") for one in trio]
    assert days == [[(180,)]] * 3


async def test_a_row_that_cannot_be_taken_is_held(trio: list[Member]) -> None:
    a, b, _ = trio
    await asyncio.gather(a.run(USER, "usr_a", "same@x"), b.run(USER, "usr_b", "same@x"))
    await settle(*trio)
    assert a.replication is not None
    assert (await a.replication.figures()).held == 1
    await b.run("UPDATE users SET email = 'other@x' WHERE id = 'usr_b'")
    await settle(*trio)
    await assert_equal(*trio)
    assert await a.rows("SELECT email FROM users ORDER BY 1") == [("other@x",), ("same@x",)]


async def test_deletions_are_forgotten_once_all_have_them(
    trio: list[Member], url: str, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    for statement in (ROWS["users"], ROWS["pause"], "DELETE FROM pause"):
        await trio[0].run(statement)
    await settle(*trio)
    await connection.execute("UPDATE relay.replicated_row SET at = 0")
    await connection.execute("UPDATE relay.replica SET seen = (SELECT seq FROM relay.replication)")
    await connection.execute("SELECT relay.tidy_rows(1000)")
    rows = await connection.execute("SELECT tbl FROM relay.replicated_row")
    assert await rows.fetchall() == [("users",)]


async def test_a_change_by_another_process_is_shared(trio: list[Member], tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute(USER, ("usr_1", "cli@x"))
        other.commit()

    async def has_come() -> bool:
        return bool(await trio[2].rows("SELECT 1 FROM users"))

    assert await until(has_come) < 1.0


async def test_a_change_made_meanwhile_outlives_an_older_one(url: str, tmp_path: Path) -> None:
    trial = Trial(url, tmp_path)
    a, b = await trial.open("a"), await trial.open("b")
    await a.run(USER, "usr_1", "a@b")
    await settle(a, b)
    await b.run("UPDATE users SET plan = 'older', password_hash = 'other'")
    await b.sync()
    assert a.replication is not None
    read = a.replication._read

    async def change_and_read() -> bool:
        # After all of before was sent, and before the other node's change is read.
        a.replication._read = read  # type: ignore[union-attr, method-assign]
        await a.run("UPDATE users SET plan = 'mine'")
        return await read()

    a.replication._read = change_and_read  # type: ignore[assignment, method-assign]
    await settle(a, b)
    await assert_equal(a, b)
    assert await b.rows("SELECT plan, password_hash FROM users") == [("mine", "other")]
    await trial.kill("a")
    await trial.kill("b")
