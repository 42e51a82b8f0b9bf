"""The limits that a database has used before it joins count from the first claim of any node."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.cluster.link import EngineAwayError
from relay.cluster.replication.replication import Replication
from relay.cluster.windows import SharedLimit
from relay.store.database import Database, StoreError
from relay.store.replication import use
from relay.store.replication.joining import JoinError
from tests.cluster.nodes import FIVE_HOURS, HOUR, burst, outcome, running_node
from tests.cluster.replication.members import member
from tests.cluster.replication.rows import ROWS

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

FIVE = 5 * HOUR
INSERT = "INSERT INTO bucket VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SMOOTH = 25 * 3_600_000  # of 25 requests, in units of what refills in a millisecond
BALANCE = (SharedLimit("account", "money", 0, 1_000_000),)


def in_hours(hours: float) -> int:
    """A moment, epoch ms."""
    return int((time.time() + hours * HOUR) * 1000)


def window(owner: str = "k", used: int = 25, ends: int | None = None) -> tuple[Any, ...]:
    """The row of a key's 40 requests per 5 hours."""
    ends = in_hours(4) if ends is None else ends
    return ("key", owner, "requests", FIVE, "window", 40, used, ends)


async def served(
    path: Path, *rows: tuple[Any, ...], charged: int = 0, account: str = "usr_1"
) -> None:
    """The database of a relay that has served alone."""
    database = await Database.open(path)

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(ROWS["users"])
        connection.execute("UPDATE users SET id = ?1, email = ?1", (account,))
        connection.executemany(INSERT, rows)
        connection.execute("INSERT INTO balance (user_id, charged) VALUES ('a', ?)", (charged,))

    await database.write(fill)
    await database.close()


async def test_the_first_claim_of_another_node_finds_the_use(url: str, tmp_path: Path) -> None:
    await served(tmp_path / "a.db", window())
    async with member(url, "a", tmp_path / "a.db"), running_node(url, "b") as b:
        assert await burst(b.limits, FIVE_HOURS, 40) == {"admitted": 15, "refused": 25}


@pytest.mark.parametrize(
    ("row", "limit", "left"),
    [
        (("own", "k", "requests", HOUR, "day", 40, 25), ("own", "requests", HOUR, 40), 15),
        (("account", "a", "tokens", FIVE, "window", 9, 8), ("account", "tokens", FIVE, 9), 1),
        (("spending", "a", "money", FIVE, "window", 9, 5), ("spending", "money", FIVE, 9), 4),
        (("key", "k", "requests", HOUR, "smooth", 40, SMOOTH), ("key", "requests", HOUR, 40), 15),
    ],
    ids=["own", "account", "spending", "smooth"],
)  # fmt: skip
async def test_each_kind_of_limit_keeps_its_use(
    url: str, tmp_path: Path, row: tuple[Any, ...], limit: tuple[Any, ...], left: int
) -> None:
    moment = in_hours(0) if row[4] == "smooth" else in_hours(0.5)
    await served(tmp_path / "a.db", (*row, moment))
    plan = (SharedLimit(*limit),)
    async with member(url, "a", tmp_path / "a.db"), running_node(url, "b") as b:
        admitted = 0
        while await outcome(b.limits, plan, tokens=1, cost=1) not in ("refused", "away"):
            admitted += 1
        assert admitted == left


async def test_charges_of_a_balance_are_known_to_all(url: str, tmp_path: Path) -> None:
    await served(tmp_path / "a.db", charged=600_000)
    async with member(url, "a", tmp_path / "a.db"), running_node(url, "b") as b:
        assert await outcome(b.limits, BALANCE, cost=400_001) == "refused"
        assert await outcome(b.limits, BALANCE, cost=400_000) != "refused"


async def test_an_upstream_is_named_with_its_address(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    row = ("key", "upstream x", "requests", FIVE, "window", 40, 25, in_hours(4))
    await served(tmp_path / "a.db", row)
    database = await Database.open(tmp_path / "a.db")
    replication = await Replication.open(database, url, "a", addresses={"x": "http://host"})
    await replication.close()
    await database.close()
    rows = await (await connection.execute("SELECT name FROM relay.quota_window")).fetchall()
    assert rows == [("key/upstream x http://host/requests/18000",)]


async def test_a_window_keeps_its_end(url: str, tmp_path: Path, connection: Connection) -> None:
    await served(tmp_path / "a.db", window(), window("over", ends=in_hours(-0.001)))
    async with member(url, "a", tmp_path / "a.db"):
        query = "SELECT name, ends - relay.now_ms() FROM relay.quota_window"
        rows = await (await connection.execute(query)).fetchall()
    [(name, left)] = rows  # the window that was over is not there
    assert name == "key/k/requests/18000"
    assert 0 <= 4 * HOUR * 1000 - left < 60_000


async def test_use_adds_to_a_window_that_is_open(url: str, tmp_path: Path) -> None:
    """Of upstreams, which all know by their settings."""
    for name in "ab":
        await served(tmp_path / f"{name}.db", window(used=15), account=f"usr_{name}")
    async with running_node(url, "c") as c:
        assert await burst(c.limits, FIVE_HOURS, 5) == {"admitted": 5}
        async with member(url, "a", tmp_path / "a.db"), member(url, "b", tmp_path / "b.db"):
            assert await burst(c.limits, FIVE_HOURS, 40) == {"admitted": 5, "refused": 35}


async def test_a_bonus_goes_on(url: str, tmp_path: Path, connection: Connection) -> None:
    bonus = ("key", "k", "bonus:requests", FIVE, "window", 10, 1, 2**62)
    later = ("key", "idle", "bonus:requests", FIVE, "window", 7, 2, 2**62)
    await served(tmp_path / "a.db", window(used=45), bonus, later)
    async with member(url, "a", tmp_path / "a.db"), running_node(url, "b") as b:
        await connection.execute("SELECT relay.tidy()")  # a bonus that waits is kept
        assert await burst(b.limits, FIVE_HOURS, 10) == {"admitted": 5, "refused": 5}
        assert await burst(b.limits, FIVE_HOURS, 50, key="idle") == {"admitted": 47, "refused": 3}
    query = "SELECT bonus, bonus_windows FROM relay.quota_window ORDER BY name"
    assert await (await connection.execute(query)).fetchall() == [(7, 1), (10, 1)]


async def test_use_is_brought_before_any_row(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    """PostgreSQL goes away in the middle: no other node sees the rows, and a further start counts
    the use once."""
    keys = 1_200  # of which each call brings some
    await served(tmp_path / "a.db", *[window(f"k{number}", 1) for number in range(keys)])
    count = "SELECT count(*), sum(used)::int FROM relay.lease"
    await connection.execute(
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.window_name = 'key/k999/requests/18000' THEN
                   PERFORM pg_terminate_backend(pg_backend_pid());
               END IF;
               RETURN NEW;
           END $$"""
    )
    await connection.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON relay.lease FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    for _ in range(2):
        with pytest.raises(EngineAwayError):
            async with member(url, "a", tmp_path / "a.db"):
                pass
    [(brought, used)] = await (await connection.execute(count)).fetchall()
    assert brought == used
    assert 0 < brought < keys
    rows = await (await connection.execute("SELECT 1 FROM relay.replicated_row")).fetchall()
    assert rows == []
    await connection.execute("DROP TRIGGER fail ON relay.lease")
    for _ in range(2):
        async with member(url, "a", tmp_path / "a.db") as a:
            await a.sync()
            assert await a.database.run(use.next_batch) is None
    assert await (await connection.execute(count)).fetchall() == [(keys, keys)]
    rows = await (await connection.execute("SELECT 1 FROM relay.replicated_row")).fetchall()
    assert rows != []


async def test_use_whose_answer_was_lost_counts_once(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    """PostgreSQL has it, and the node could not note that."""
    await served(tmp_path / "a.db", window())
    database = await Database.open(tmp_path / "a.db")
    await database.write(
        lambda it: it.execute(
            """CREATE TRIGGER full BEFORE DELETE ON outbox WHEN OLD.tbl = 'bucket' BEGIN
               SELECT RAISE(ABORT, 'the disk is full'); END"""
        )
    )
    with pytest.raises(StoreError, match="the disk is full"):
        await Replication.open(database, url, "a")
    await database.write(lambda it: it.execute("DROP TRIGGER full"))
    await database.close()
    async with member(url, "a", tmp_path / "a.db") as a:
        await a.sync()
    rows = await (await connection.execute("SELECT name, used FROM relay.lease")).fetchall()
    assert rows == [("before a", 25)]


async def test_a_refused_join_brings_no_use(
    url: str, tmp_path: Path, connection: Connection
) -> None:
    async with member(url, "b", tmp_path / "b.db") as b:
        await b.run(ROWS["users"].replace("'p'", "'other'"))
        await b.sync()
        await served(tmp_path / "a.db", window())
        with pytest.raises(JoinError):
            async with member(url, "a", tmp_path / "a.db"):
                pass
    assert await (await connection.execute("SELECT 1 FROM relay.quota_window")).fetchall() == []
    # Nor does it hold back what is deleted once all nodes have read it.
    assert await (await connection.execute("SELECT node FROM relay.replica")).fetchall() == [("b",)]
