"""After a restart of PostgreSQL only nodes that were alive at its last moment are waited for."""

import asyncio

import psycopg
import pytest

from tests.cluster.nodes import running_node
from tests.cluster.postgres import Postgres
from tests.cluster.relays import Fleet
from tests.durability.process import relay
from tests.fakes.until import until

Connection = psycopg.AsyncConnection[tuple[object, ...]]
SECOND = 1_000
DAY = 86_400 * SECOND

IS_FROZEN = "SELECT relay.is_frozen(relay.present_engine())"


async def add_nodes(connection: Connection, **ages: int) -> None:
    """Nodes that have used something, by the milliseconds since they were seen."""
    for name, age in ages.items():
        await connection.execute("SELECT relay.poll(%s, 'boot', NULL)", [name])
        await connection.execute(
            "UPDATE relay.node SET seen = relay.now_ms() - %s WHERE name = %s", [age, name]
        )


async def restart(connection: Connection) -> None:
    """Another start of the server, as its functions see it."""
    await connection.execute("UPDATE relay.engine SET start = 'an earlier one', incarnation = 1")
    await connection.execute("UPDATE relay.node SET incarnation = 1")


async def has_frozen(connection: Connection) -> bool:
    cursor = await connection.execute(IS_FROZEN)
    row = await cursor.fetchone()
    assert row is not None
    return bool(row[0])


async def report(connection: Connection, *names: str) -> None:
    """These nodes report all of their use."""
    for name in names:
        await connection.execute(
            "SELECT relay.poll(%s, 'boot', (relay.present_engine()).incarnation)", [name]
        )


async def test_a_node_that_was_silent_is_not_waited_for(connection: Connection) -> None:
    await add_nodes(connection, dead=60 * SECOND, alive=500)
    await restart(connection)
    assert await has_frozen(connection)
    await report(connection, "alive")
    assert not await has_frozen(connection)


async def test_all_that_were_alive_are_waited_for(connection: Connection) -> None:
    await add_nodes(connection, a=500, b=14 * SECOND, c=200)
    await restart(connection)
    for name in "ab":
        await report(connection, name)
        assert await has_frozen(connection)
    await report(connection, "c")
    assert not await has_frozen(connection)


async def test_an_earlier_state_waits_for_its_nodes(connection: Connection) -> None:
    """A backup of two days ago: nodes were alive when it was made."""
    await add_nodes(connection, a=2 * DAY, b=2 * DAY + SECOND, dead=2 * DAY + 60 * SECOND)
    await restart(connection)
    await report(connection, "a")
    assert await has_frozen(connection)
    await report(connection, "b")
    assert not await has_frozen(connection)


async def test_a_clock_that_was_ahead_hides_no_node(connection: Connection) -> None:
    """A node that died before the server's clock was put back is no measure of the others."""
    await add_nodes(connection, dead=-3600 * SECOND, a=500, b=700)
    await restart(connection)
    await report(connection, "a", "dead")
    assert await has_frozen(connection)
    await report(connection, "b")
    assert not await has_frozen(connection)


async def test_a_dead_node_delays_nobody_after_a_restart(own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with (
        running_node(url) as node,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await until(lambda: node.limits.reported() is not None)
        before = node.limits.reported()
        await add_nodes(connection, dead=60 * SECOND)
        own_postgres.kill()
        own_postgres.start()
        await until(lambda: node.limits.reported() not in (None, before), within=20)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as again:
            await report(again, "a")
            cursor = await again.execute(
                "SELECT count(*) FROM relay.engine e JOIN relay.node n ON n.seen > e.waits_from"
                " WHERE n.incarnation <> e.incarnation"
            )
            assert await cursor.fetchone() == (0,)


async def test_a_refused_start_leaves_no_node(
    fleet: Fleet, postgres: Postgres, database: str, connection: Connection
) -> None:
    [folder] = fleet.spread(postgres.url(database), 1)

    async def names() -> list[tuple[object, ...]]:
        cursor = await connection.execute("SELECT name FROM relay.node")
        return await cursor.fetchall()

    async def is_cut() -> bool:
        """Whether a connection that joins has been ended."""
        cursor = await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'relay n0 shares' AND datname = current_database()"
        )
        return bool(await cursor.fetchall())

    async with await psycopg.AsyncConnection.connect(postgres.url(database)) as other:
        # It cannot join before it has said that it is alive.
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('relay.replica'))")
        starting = asyncio.create_task(asyncio.to_thread(relay, folder, "serve"))
        async with asyncio.timeout(20):
            while await names() != [("n0",)] or not await is_cut():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
        done = await starting
    assert done.returncode != 0
    assert "a new node needs PostgreSQL to join" in done.stderr
    assert await names() == []


@pytest.mark.parametrize("leaves", [True, False])
async def test_tidying_keeps_nodes_that_did_not_leave(connection: Connection, leaves: bool) -> None:
    """So that an operator sees which ones stopped and which ones were lost."""
    await connection.execute("SELECT relay.join_replica('a')")
    await add_nodes(connection, a=3 * DAY, forgotten=3 * DAY)
    if leaves:
        await connection.execute("SELECT relay.leave('a', 'boot')")
    await connection.execute("SELECT relay.tidy()")
    cursor = await connection.execute("SELECT name FROM relay.node")
    assert await cursor.fetchall() == ([] if leaves else [("a",)])
