"""Three processes and one PostgreSQL admit exactly as many requests as a limit has left."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from relay.cluster.windows import Held, SharedLimit
from tests.cluster.nodes import HOUR, NodeProcess, node_process, outcome, running_node
from tests.cluster.postgres import Postgres
from tests.fakes.until import until

CROWD = 1000
FIVE_HOURS = ["key", "requests", 5 * HOUR, 40]
TOKENS = ["key", "tokens", 5 * HOUR, 1_000]


@pytest.fixture
async def three(postgres: Postgres, database: str) -> AsyncIterator[list[NodeProcess]]:
    async with AsyncExitStack() as stack:
        opened = [node_process(postgres.url(database), name) for name in "abc"]
        yield await asyncio.gather(*[stack.enter_async_context(one) for one in opened])


async def at_once(nodes: list[NodeProcess], **burst: Any) -> Counter[str]:
    """A burst at each node at the same time; the sum of their counts."""
    for node in nodes:
        node.begin("burst", **burst)
    counts: Counter[str] = Counter()
    for node in nodes:
        counts.update(await node.answer())
    return counts


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.thorough)])
async def test_a_crowd_on_three_nodes_uses_exactly_what_is_left(
    three: list[NodeProcess], rounds: int
) -> None:
    calls = 0
    for number in range(rounds):
        counts = await at_once(three, limits=[FIVE_HOURS], keys=[f"k{number}"], count=CROWD)
        assert counts == {"admitted": 40, "refused": 3 * CROWD - 40}
        figures = [await node.ask("figures") for node in three]
        sum_of_calls = sum(one["calls"] for one in figures)
        calls, spent = sum_of_calls, sum_of_calls - calls
        assert spent <= 80  # round trips for a window that is used up at once


async def test_of_two_stacked_limits_the_smaller_one_counts(three: list[NodeProcess]) -> None:
    plan = [FIVE_HOURS, ["account", "requests", 168 * HOUR, 50]]
    counts = await at_once(three, limits=plan, keys=["k"], count=10)
    assert counts == {"admitted": 30}
    counts = await at_once(three, limits=plan, keys=["k"], count=CROWD)
    assert counts == {"admitted": 10, "refused": 3 * CROWD - 10}
    # The requests that the key's limit refused took nothing from the account's.
    counts = await at_once(three, limits=plan, keys=["other"], count=CROWD)
    assert counts == {"admitted": 10, "refused": 3 * CROWD - 10}


async def test_keys_of_one_account_share_its_limit(three: list[NodeProcess]) -> None:
    plan = [["account", "requests", 5 * HOUR, 40], ["key", "requests", 168 * HOUR, 30]]
    counts = await at_once(three, limits=plan, keys=["k1", "k2", "k3"], count=CROWD)
    assert counts == {"admitted": 40, "refused": 3 * CROWD - 40}


async def test_tokens_are_shared_to_the_last_one(three: list[NodeProcess]) -> None:
    plan = [["key", "tokens", 5 * HOUR, 10_000]]
    counts = await at_once(three, limits=plan, keys=["k"], count=200, tokens=250)
    assert counts == {"admitted": 40, "refused": 560}
    assert [await node.ask("refund") for node in three] != [0, 0, 0]
    counts = await at_once(three, limits=plan, keys=["k"], count=20, tokens=500)
    assert counts == {"admitted": 20, "refused": 40}


async def test_windows_that_begin_and_end_meanwhile_stay_exact(three: list[NodeProcess]) -> None:
    for node in three:
        node.begin("steady", limits=[["key", "requests", 1, 40]], keys=["k"], rate=300, seconds=3.3)
    await asyncio.gather(*[node.answer() for node in three])
    admitted: Counter[int] = Counter()
    for node in three:
        admitted.update({int(epoch): it for epoch, it in (await node.ask("epochs")).items()})
    # The last window has not ended; the load was many times what fits into each.
    assert len(admitted) >= 3
    assert set(list(admitted.values())[:-1]) == {40}
    assert max(admitted.values()) <= 40


# A process that does not run for a while, on a busy machine, finds answers that have come long ago.


async def test_a_stall_is_no_silence_of_the_engine(
    postgres: Postgres, database: str, connection: psycopg.AsyncConnection[tuple[Any, ...]]
) -> None:
    async with node_process(postgres.url(database), "a") as node:
        await node.ask("burst", limits=[TOKENS], keys=["k"], count=1, tokens=10)
        async with connection.transaction():
            await connection.execute("SELECT FROM relay.quota_window FOR UPDATE")
            node.begin("burst", limits=[TOKENS], keys=["k"], count=1, tokens=900)
            async with asyncio.timeout(5):
                while not await has_waiting_claim(connection):
                    pass
            node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.3)  # longer than a node waits for the engine
        node.process.send_signal(signal.SIGCONT)
        assert await node.answer() == {"admitted": 1}
        assert (await node.ask("figures"))["outages"] == 0


async def has_waiting_claim(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> bool:
    """Whether a call waits for a lock."""
    cursor = await connection.execute(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database() AND query LIKE '%relay.acquire%'"
    )
    return await cursor.fetchone() is not None


async def test_a_stall_is_no_silence_of_other_nodes(postgres: Postgres, database: str) -> None:
    """Another node has answered a recall, and nobody has looked yet."""
    limits = (SharedLimit("key", "tokens", 5 * HOUR, 1_000),)
    async with running_node(postgres.url(database)) as node:
        assert isinstance(await outcome(node.limits, limits, tokens=10), Held)
        with psycopg.connect(postgres.socket_url(database), autocommit=True) as connection:
            connection.execute(
                "INSERT INTO relay.lease SELECT name, 'other/1', 1, 0, 900, relay.now_ms() + 10000,"
                " false FROM relay.quota_window"
            )
            asking = asyncio.create_task(outcome(node.limits, limits, tokens=900))
            await until(lambda: any(draw.recalls for draw in node.limits.draws.values()))
            connection.execute("UPDATE relay.lease SET ceiling = 0 WHERE name = 'other/1'")
            time.sleep(0.5)  # noqa: ASYNC251 - the whole process stands still
        assert isinstance(await asking, Held)
