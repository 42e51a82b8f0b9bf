"""What an upstream states on one node holds on all; what nodes guess, once two agree."""

import time
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from relay.pool.outages import Level
from relay.pool.vendor_errors import Scope
from tests.cluster.nodes import Wire
from tests.cluster.pools import NodePool, running_pool
from tests.cluster.postgres import Postgres
from tests.fakes.pool import MODEL
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

Connection = psycopg.AsyncConnection[Any]
FREE, DOUBTFUL, OUT = Level.FREE, Level.DOUBTFUL, Level.OUT
LONG = 30  # seconds: after a cut, an attempt to connect may take 2 s and the pause after it 2 s


@pytest.fixture
async def nodes(postgres: Postgres, database: str) -> Any:
    """Starts nodes, which stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(number: int) -> list[NodePool]:
            url = postgres.url(database)
            return [await stack.enter_async_context(running_pool(url)) for _ in range(number)]

        yield start


async def marked(first: NodePool, *others: NodePool) -> None:
    """Wait until the others know all that the first has found so far: a statement about d comes
    after it."""
    assert others
    first.fail("d")
    await until(lambda: all(one.level("d") is OUT for one in others), within=LONG)
    first["d"].clear()
    await until(lambda: all(one.level("d") is FREE for one in others), within=LONG)


async def test_a_stated_cooldown_holds_on_all_nodes(
    nodes: Any, record_property: RecordProperty
) -> None:
    one, two, three = await nodes(3)
    await marked(one, two, three)
    started = time.monotonic()
    one.fail("a", seconds=60)
    await until(lambda: two.level("a") is OUT and three.level("a") is OUT, within=LONG)
    record_property("figure", f"a cooldown after {(time.monotonic() - started) * 1000:.0f} ms")
    assert 55 < two.left("a") <= 60
    assert two.level("b") is FREE
    assert two.health("a").describe(MODEL, two.pool.now()).startswith("429: limit reached")


async def test_a_verdict_keeps_its_scope_on_other_nodes(nodes: Any) -> None:
    one, two = await nodes(2)
    one.fail("a", scope=Scope.MODEL)
    one.fail("b", sure=False, caller="ann")
    await until(lambda: two.level("a") is OUT and two.level("b") is OUT, within=LONG)
    assert two.level("a", "another-model") is FREE
    assert two.level("b", caller="ben") is FREE


async def test_a_second_account_elsewhere_confirms_it(nodes: Any) -> None:
    one, two = await nodes(2)
    one.fail("a", sure=False, caller="ann")
    await until(lambda: two.level("a", caller="ann") is OUT, within=LONG)
    two.fail("a", sure=False, caller="ben")
    assert two.level("a", caller="cat") is OUT
    await until(lambda: one.level("a", caller="cat") is OUT, within=LONG)


async def test_a_guess_holds_once_two_nodes_agree(nodes: Any) -> None:
    one, two, three = await nodes(3)
    one.fail("a", stated=False, scope=Scope.MODEL, seconds=300)
    await marked(one, two, three)
    assert (two.level("a"), three.level("a")) == (FREE, FREE)
    two.fail("a", stated=False, scope=Scope.MODEL, seconds=30)
    await until(lambda: three.level("a") is DOUBTFUL, within=LONG)
    assert 0 < three.health("a").model_outages[MODEL].until - three.pool.now() <= 30
    assert three.level("a", "another-model") is FREE


async def test_different_guesses_are_no_agreement(nodes: Any) -> None:
    one, two, three = await nodes(3)
    one.fail("a", stated=False, scope=Scope.MODEL)
    two.fail("a", stated=False, scope=Scope.CREDENTIAL)
    one.fail("b", stated=False, scope=Scope.CREDENTIAL, sure=False, caller="ann")
    one.fail("b", stated=False, scope=Scope.CREDENTIAL, sure=False, caller="ann")
    await marked(two, one, three)
    await marked(one, two, three)
    assert (three.level("a"), three.level("b", caller="ann")) == (FREE, FREE)


async def test_a_guess_that_an_answer_disproved_is_none(nodes: Any) -> None:
    one, two, three = await nodes(3)
    one.fail("a", stated=False)
    await marked(one, two, three)
    one.health("a").succeeded(MODEL)
    await marked(one, two, three)
    two.fail("a", stated=False)
    await marked(two, one, three)
    assert (one.level("a"), two.level("a"), three.level("a")) == (FREE, DOUBTFUL, FREE)


async def test_two_accounts_on_two_nodes_are_any_account(nodes: Any) -> None:
    one, two, three = await nodes(3)
    one.fail("a", stated=False, sure=False, caller="ann")
    two.fail("a", stated=False, sure=False, caller="ben")
    await until(lambda: three.level("a", caller="cat") is DOUBTFUL, within=LONG)


async def test_a_failing_upstream_is_probed_by_each_node(nodes: Any) -> None:
    one, two, three = await nodes(3)
    for node in (one, two):
        for caller in ("ann", "ben", "ann"):
            node.fail("a", stated=False, scope=Scope.FAILURE, caller=caller, sure=False)
    await until(lambda: three.level("a") is DOUBTFUL, within=LONG)
    health = three.health("a")
    assert health.failing
    assert (health.probe_model, health.probe_at <= three.pool.now() + 10) == (MODEL, True)


async def test_an_operators_clear_counts_everywhere(nodes: Any) -> None:
    one, two = await nodes(2)
    one.fail("a")
    two.fail("b", stated=False)
    await until(lambda: two.level("a") is OUT, within=LONG)
    two["a"].clear()
    assert two.level("a") is FREE
    await until(lambda: one.level("a") is FREE, within=LONG)
    one["b"].clear()
    await until(lambda: two.level("b") is FREE, within=LONG)
    [three] = await nodes(1)
    await marked(one, two, three)
    assert three.level("a") is FREE


async def test_a_node_that_starts_reads_what_holds(nodes: Any) -> None:
    one, two = await nodes(2)
    one.fail("a", seconds=60)
    one.fail("b", stated=False)
    await marked(one, two)
    [three] = await nodes(1)
    await until(lambda: three.level("a") is OUT, within=LONG)
    assert three.level("b") is FREE


async def test_another_credential_is_another_account(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    other = NodePool({"a": {"api_key": "another"}, "b": {}, "d": {}})
    async with running_pool(url) as one, running_pool(url, pool=other) as two:
        one.fail("a")
        await marked(one, two)
        assert two.level("a") is FREE


async def test_a_cooldown_is_no_longer_than_a_node_wants(postgres: Postgres, database: str) -> None:
    url = postgres.url(database)
    async with running_pool(url) as one, running_pool(url) as two:
        one.fail("a", seconds=7200)
        await until(lambda: two.level("a") is OUT, within=LONG)
        assert one.left("a") > 7000
        assert two.left("a") <= 3600  # `pool.longest_cooldown`


async def test_what_a_cut_kept_away_is_made_up_for(postgres: Postgres, database: str) -> None:
    async with (
        Wire(postgres.port) as wire,
        running_pool(postgres.url(database, wire.port)) as cut,
        running_pool(postgres.url(database)) as other,
        running_pool(postgres.url(database)) as third,
    ):
        cut.fail("c")
        other.fail("b", seconds=300)
        await until(lambda: other.level("c") is OUT and cut.level("b") is OUT, within=LONG)
        wire.drop()
        other.fail("a")
        other["b"].clear()
        cut.fail("c", seconds=1200)
        await marked(other, third)
        assert (cut.level("a"), cut.level("b"), cut.level("c")) == (FREE, OUT, OUT)
        wire.restore()
        await until(lambda: cut.level("a") is OUT and cut.level("b") is FREE, within=LONG)
        await until(lambda: other.left("c") > 900, within=LONG)


async def test_a_clear_voids_what_was_not_sent_yet(postgres: Postgres, database: str) -> None:
    async with (
        Wire(postgres.port) as wire,
        running_pool(postgres.url(database, wire.port)) as cut,
        running_pool(postgres.url(database)) as other,
        running_pool(postgres.url(database)) as third,
    ):
        await marked(cut, other)
        wire.drop()
        cut.fail("a")
        other["a"].clear()
        await marked(other, third)
        wire.restore()
        await until(lambda: cut.level("a") is FREE, within=LONG)
        await marked(cut, other)
        assert other.level("a") is FREE


async def test_nothing_is_said_twice(nodes: Any, connection: Connection) -> None:
    one, two = await nodes(2)
    for _ in range(20):
        one.fail("a")
    await until(lambda: two.level("a") is OUT, within=LONG)
    for _ in range(20):
        two.fail("a")
    await marked(one, two)
    cursor = await connection.execute("SELECT count(*) FROM relay.change WHERE id LIKE 'a %'")
    assert await cursor.fetchone() == (1,)


async def test_states_that_are_over_are_deleted(nodes: Any, connection: Connection) -> None:
    one, two = await nodes(2)
    one.fail("a")
    one.fail("b", stated=False)
    await marked(one, two)
    await connection.execute("UPDATE relay.upstream_state SET until = 1")
    await connection.execute("UPDATE relay.upstream_guess SET until = 1")
    await connection.execute("SELECT relay.tidy_upstreams()")
    cursor = await connection.execute(
        "SELECT (SELECT count(*) FROM relay.upstream_state),"
        " (SELECT count(*) FROM relay.upstream_guess)"
    )
    assert await cursor.fetchone() == (0, 0)
