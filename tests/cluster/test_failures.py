"""Whatever fails, no limit is exceeded: every row of the failure table, with real processes.

Leases live for a second here, by the one function that says how long.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.cluster.node import ClusterNode, engine_figures
from relay.cluster.windows import SharedLimit
from tests.cluster.conftest import TEMPLATE
from tests.cluster.namespaces import new_namespace
from tests.cluster.nodes import (
    FIVE_HOURS,
    HOUR,
    Wire,
    burst,
    node_process,
    outcome,
    running_node,
)
from tests.cluster.postgres import Postgres
from tests.fakes.until import until

LEASE = 1_000  # milliseconds
GRACE = LEASE // 5
LARGE = (SharedLimit("key", "requests", 5 * HOUR, 400),)
SIZE = LARGE[0].size
AS_JSON = [list(LARGE[0])]


def shorten_leases(postgres: Postgres, database: str) -> None:
    with psycopg.connect(postgres.url(database), autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION relay.lease_time() RETURNS bigint LANGUAGE sql IMMUTABLE"
            f" AS $$ SELECT {LEASE}::bigint $$"
        )


@pytest.fixture
def shared(postgres: Postgres, database: str) -> str:
    """The URL of a database with short leases."""
    shorten_leases(postgres, database)
    return postgres.url(database)


@pytest.fixture
def own(own_postgres: Postgres) -> str:
    """The same, on a server that the test may stop."""
    database = own_postgres.new_database(TEMPLATE)
    shorten_leases(own_postgres, database)
    return database


@pytest.fixture
async def watch(shared: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(shared, autocommit=True) as connection:
        yield connection


async def is_lost(watch: psycopg.AsyncConnection[Any]) -> bool:
    """Whether a lease has run out, grace included."""
    cursor = await watch.execute(
        "SELECT count(*) FROM relay.lease"
        " WHERE expires + relay.lease_time() / 5 < relay.now_ms() AND ceiling > used"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def until_lost(watch: psycopg.AsyncConnection[Any]) -> None:
    async with asyncio.timeout(10):
        while not await is_lost(watch):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.02)


async def use_some(node: ClusterNode) -> int:
    """Requests until the lease has something left; their number."""
    counts = await burst(node.limits, LARGE, 100)
    used = counts["admitted"]
    while node.view().unused < 3:
        assert await outcome(node.limits, LARGE) not in ("refused", "away")
        used += 1
    return used


# --- nodes ----------------------------------------------------------------------------


async def test_a_killed_node_loses_nothing_if_it_keeps_its_disk(
    shared: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    async with node_process(shared, "a", journal=journal) as a:
        counts = await a.ask("burst", limits=AS_JSON, keys=["k"], count=100)
        assert counts == {"admitted": 100}
        assert (await a.ask("figures"))["unused"] > 0
        await a.kill()
    async with node_process(shared, "a", journal=journal), running_node(shared, "b") as b:
        await asyncio.sleep(0.3)  # it reports without a request
        admitted = 100
        async with asyncio.timeout(5):
            while admitted < SIZE:
                admitted += (await burst(b.limits, LARGE, SIZE))["admitted"]
                await asyncio.sleep(0.1)
        assert admitted == SIZE


async def test_a_node_that_never_returns_costs_its_lease_at_most(
    shared: str, watch: psycopg.AsyncConnection[Any]
) -> None:
    async with node_process(shared, "a") as a:
        counts = await a.ask("burst", limits=AS_JSON, keys=["k"], count=100)
        unused = (await a.ask("figures"))["unused"]
        assert 0 < unused <= SIZE // 20
        await a.kill()
    await until_lost(watch)
    async with running_node(shared, "b") as b:
        counts = Counter(counts) + await burst(b.limits, LARGE, SIZE)
        assert counts["admitted"] == SIZE - unused
        assert (await engine_figures(shared)).lost == 1


async def test_a_node_that_hung_stops_at_the_end_of_its_lease(
    shared: str, watch: psycopg.AsyncConnection[Any]
) -> None:
    async with node_process(shared, "a") as a, running_node(shared, "b") as b:
        counts = Counter(await a.ask("burst", limits=AS_JSON, keys=["k"], count=100))
        a.process.send_signal(signal.SIGSTOP)
        a.begin("burst", limits=AS_JSON, keys=["k"], count=50)
        await until_lost(watch)
        counts += await burst(b.limits, LARGE, SIZE)
        a.process.send_signal(signal.SIGCONT)
        counts += Counter(await a.answer())
        # Its late report corrects what had counted as used. A busy machine may answer the recall of
        # its leases so late that requests are refused for a second.
        async with asyncio.timeout(20):
            while counts["admitted"] < SIZE:
                counts += await burst(b.limits, LARGE, SIZE)
                await asyncio.sleep(0.1)
        counts += await burst(b.limits, LARGE, SIZE)
        assert counts["admitted"] == SIZE


async def test_the_wall_clock_of_a_node_changes_nothing(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(shared) as node:
        used = await use_some(node)
        for wall in (0.0, 2e9, -5.0):
            monkeypatch.setattr(time, "time", lambda wall=wall: wall)
            assert await outcome(node.limits, LARGE) != "refused"
            used += 1
            [state] = node.limits.view("a", "k", LARGE)
            assert 0 <= 5 * HOUR * 1000 - state.reset_in < 60_000
        assert (await burst(node.limits, LARGE, SIZE))["admitted"] == SIZE - used


async def test_a_window_at_its_end_costs_few_round_trips(shared: str) -> None:
    async with running_node(shared, "a") as a, running_node(shared, "b") as b:
        await until(lambda: a.limits.nodes == b.limits.nodes == 2)
        done = await asyncio.gather(*[burst(it.limits, FIVE_HOURS, 500) for it in (a, b)])
        assert sum(one["admitted"] for one in done) == 40
        assert a.figures.calls + b.figures.calls <= 60


# --- the engine -----------------------------------------------------------------------


async def test_leases_go_on_while_the_engine_is_away(own_postgres: Postgres, own: str) -> None:
    async with running_node(own_postgres.url(own)) as node:
        used = await use_some(node)
        left = node.view().unused
        own_postgres.kill()
        admitted = 0
        while node.limits.try_reserve("a", "k", LARGE) is not None:
            admitted += 1
        assert admitted >= left  # a claim may have been answered in the last moment
        assert await outcome(node.limits, LARGE) == "away"
        calls = node.figures.calls
        assert await burst(node.limits, LARGE, 100) == {"away": 100}
        assert node.figures.calls <= calls + 1  # it is known by now: nobody waits for a call
        await until(lambda: node.figures.outages == 1)
        assert node.view().away_for > 0
        own_postgres.start()
        await until(lambda: node.view().away_for == 0)
        counts = await burst(node.limits, LARGE, SIZE)
        assert counts["admitted"] == SIZE - used - admitted


async def test_local_shares_are_bounded_and_counted_later(own_postgres: Postgres, own: str) -> None:
    url = own_postgres.url(own)
    async with (
        running_node(url, "a", on_outage="local") as a,
        running_node(url, "b", on_outage="local") as b,
    ):
        await until(lambda: a.limits.nodes == b.limits.nodes == 2)
        before = sum([await use_some(a), await use_some(b)])
        leases = a.view().unused + b.view().unused
        own_postgres.kill()
        counts = Counter[str]()
        for node in (a, b):
            counts += await burst(node.limits, LARGE, SIZE)
            counts += await burst(node.limits, LARGE, SIZE)
            assert node.figures.admitted_locally == SIZE // 2
        assert SIZE <= counts["admitted"] <= SIZE + leases
        own_postgres.start()
        await until(lambda: a.view().away_for == b.view().away_for == 0)
        # The window is open, so what was admitted meanwhile counts in it.
        assert before + counts["admitted"] >= SIZE
        await until(lambda: all(known(node) for node in (a, b)))
        for node in (a, b):
            assert await outcome(node.limits, LARGE) == "refused"


def known(node: ClusterNode) -> bool:
    return all(it.reported == it.leased.used for it in node.limits.windows.values())


async def test_a_crash_of_the_engine_in_a_burst_stays_exact(
    own_postgres: Postgres, own: str
) -> None:
    url = own_postgres.url(own)
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        bursts = [asyncio.create_task(burst(it.limits, LARGE, SIZE)) for it in (a, b)]
        await until(lambda: a.figures.admitted + b.figures.admitted > 50)
        own_postgres.kill()
        done = await asyncio.gather(*bursts)
        own_postgres.start()
        await until(lambda: a.view().away_for == b.view().away_for == 0)
        admitted = sum(one["admitted"] for one in done)
        async with asyncio.timeout(10):  # until all have reported to the new incarnation
            while admitted < SIZE:
                for node in (a, b):
                    admitted += (await burst(node.limits, LARGE, 100))["admitted"]
                await asyncio.sleep(0.05)
        for node in (a, b):
            admitted += (await burst(node.limits, LARGE, 100))["admitted"]
        assert admitted == SIZE


async def test_a_restarted_engine_hears_of_thousands_of_windows(
    own_postgres: Postgres, own: str
) -> None:
    async with running_node(own_postgres.url(own)) as node:
        keys = [f"k{number}" for number in range(2_000)]
        await asyncio.gather(*[outcome(node.limits, LARGE, key) for key in keys])
        before = node.limits.reported()
        own_postgres.kill()
        own_postgres.start()
        await until(lambda: node.limits.reported() != before, within=10)
        started = time.monotonic()
        assert await outcome(node.limits, LARGE, "another") not in ("refused", "away")
        assert time.monotonic() - started < 4  # nothing is frozen any more, which takes 5 s


async def test_an_engine_that_lost_its_last_commits_hears_of_them(
    own_postgres: Postgres, own: str
) -> None:
    """As after a failover to a replica that was behind: an earlier state of its disk."""
    url = own_postgres.url(own)
    async with running_node(url, "a") as a, running_node(url, "b") as b:
        await until(lambda: a.limits.nodes == b.limits.nodes == 2)
        used = await use_some(a)
        own_postgres.stop()
        own_postgres.save()
        own_postgres.start()
        await until(lambda: a.view().away_for == b.view().away_for == 0)
        async with asyncio.timeout(8):
            while (counts := await burst(a.limits, LARGE, 150)) == {"away": 150}:
                pass
            while (more := await burst(b.limits, LARGE, 50)) == {"away": 50}:
                pass
        used += counts["admitted"] + more["admitted"]
        own_postgres.kill()
        own_postgres.put_back()
        own_postgres.start()
        await until(lambda: a.view().away_for == b.view().away_for == 0)
        async with asyncio.timeout(10):
            while used < SIZE:
                for node in (b, a):
                    used += (await burst(node.limits, LARGE, 100))["admitted"]
                await asyncio.sleep(0.05)
        for node in (a, b):
            used += (await burst(node.limits, LARGE, 100))["admitted"]
        assert used == SIZE


# --- the network ----------------------------------------------------------------------


async def test_a_node_that_is_cut_off_exceeds_nothing(
    shared: str, postgres: Postgres, watch: psycopg.AsyncConnection[Any]
) -> None:
    database = shared.rpartition("/")[2]
    async with (
        Wire(postgres.port) as wire,
        running_node(postgres.url(database, wire.port), "a") as a,
        running_node(shared, "b") as b,
    ):
        used = await use_some(a)
        wire.drop()
        left = a.view().unused
        taken = [a.limits.try_reserve("a", "k", LARGE) for _ in range(2)]
        assert None not in taken
        await until_lost(watch)
        assert a.limits.try_reserve("a", "k", LARGE) is None  # its lease has ended before
        counts = await burst(b.limits, LARGE, SIZE)
        assert counts["admitted"] == SIZE - used - left  # the lost lease counts as used
        assert await outcome(a.limits, LARGE) == "away"
        wire.restore()
        await until(lambda: a.view().away_for == 0, within=10)
        async with asyncio.timeout(5):  # its late report gives back what it had not used
            total = used + 2 + counts["admitted"]
            while total < SIZE:
                total += (await burst(b.limits, LARGE, 10))["admitted"]
                await asyncio.sleep(0.1)
        assert (await burst(b.limits, LARGE, 10))["admitted"] == 0


async def test_a_node_without_a_network_exceeds_nothing(
    shared: str, postgres: Postgres, watch: psycopg.AsyncConnection[Any]
) -> None:
    """In a namespace of its own: the kernel loses the packets, and no connection ends."""
    database = shared.rpartition("/")[2]
    with new_namespace() as namespace:
        async with (
            Wire(postgres.port, namespace.here) as wire,
            node_process(
                postgres.url(database, wire.port, namespace.here), "a", command=namespace.command
            ) as a,
            running_node(shared, "b") as b,
        ):
            admitted = Counter(await a.ask("burst", limits=AS_JSON, keys=["k"], count=100))
            assert admitted == {"admitted": 100}
            left = (await a.ask("figures"))["unused"]
            namespace.cut()
            await until_lost(watch)
            alone = await burst(b.limits, LARGE, SIZE)
            assert alone["admitted"] == SIZE - 100 - left  # the lost lease counts as used
            assert await a.ask("burst", limits=AS_JSON, keys=["k"], count=20) == {"away": 20}
            namespace.restore()
            total = 100 + alone["admitted"]
            async with asyncio.timeout(15):  # its late report gives back what it had not used
                while total < SIZE:
                    total += (await burst(b.limits, LARGE, 10))["admitted"]
                    counts = await a.ask("burst", limits=AS_JSON, keys=["k"], count=1)
                    total += counts.get("admitted", 0)
            assert (await burst(b.limits, LARGE, 10))["admitted"] == 0
            assert (await a.ask("burst", limits=AS_JSON, keys=["k"], count=10)) == {"refused": 10}


async def test_a_lost_reply_counts_once(shared: str, postgres: Postgres) -> None:
    database = shared.rpartition("/")[2]
    async with (
        Wire(postgres.port) as wire,
        running_node(postgres.url(database, wire.port), "a") as a,
    ):
        used = await use_some(a)
        while a.limits.try_reserve("a", "k", LARGE) is not None:
            used += 1
        wire.drop(only_replies=True)
        waiting = asyncio.create_task(burst(a.limits, LARGE, 50))
        await until(lambda: a.figures.failed_calls > 0)
        wire.restore()
        counts = await waiting
        await until(lambda: a.view().away_for == 0, within=10)
        counts += await burst(a.limits, LARGE, SIZE)
        assert used + counts["admitted"] == SIZE


async def test_an_engine_that_only_reads_is_away(
    own_postgres: Postgres, own: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a replica is that was not promoted yet."""
    with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as admin:
        async with running_node(own_postgres.url(own)) as node:
            await use_some(node)
            admin.execute(f"ALTER DATABASE {own} SET default_transaction_read_only = on".encode())
            own_postgres.stop()
            own_postgres.start()
            await until(lambda: node.view().away_for > 0)
            while node.limits.try_reserve("a", "k", LARGE) is not None:
                pass
            assert await outcome(node.limits, LARGE) == "away"
            await until(lambda: "the database can only be read" in caplog.text)
            assert node.figures.outages == 1
