"""The states of upstreams and the moves of conversations, on a connection of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from relay.cluster.link import Connection
from relay.cluster.session_moves import SessionMovesPart
from relay.cluster.state_sync import Part
from relay.cluster.upstream_states import UpstreamStatesPart
from relay.pool.affinity import Bindings
from relay.pool.node_outages import NodeOutages
from relay.pool.outages import Level
from relay.pool.session_moves import SessionMoves
from tests.cluster.pools import NodePool
from tests.cluster.postgres import Postgres

LOCK = "SELECT pg_advisory_xact_lock(hashtext('relay.change'))"
MOVE = (
    "INSERT INTO relay.session_move SELECT 'k', %s, 'b', 'x', false, true,"
    " relay.now_ms() + 60000, relay.now_ms(), 'someone', %s"
)


class Machine:
    """A node's pool and its conversations, which `sync` carries."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.pool = NodePool()
        self.bindings = Bindings(300.0)
        self.connection = connection
        self.outages = NodeOutages(self.pool.pool, lambda: None)
        self.moves = SessionMoves(self.bindings, lambda: None)
        self.parts: dict[str, Part] = {
            "upstream": UpstreamStatesPart(name, f"{name}/1", self.outages),
            "session": SessionMovesPart(f"{name}/1", self.moves),
        }

    def begin(self, kind: str) -> None:
        """Something is to be sent."""
        if kind == "upstream":
            self.pool.fail("a")
        else:
            self.hold(b"1")

    def hold(self, key: bytes) -> None:
        self.bindings.hold(("k", key), "b", "x", asyncio.get_running_loop().time(), moved=True)

    def knows(self, kind: str) -> bool:
        if kind == "upstream":
            return self.pool.level("a") is Level.OUT
        return self.bindings.get(("k", b"1")) is not None

    async def sync(self, kind: str) -> None:
        await self.parts[kind].sync(self.connection)


@pytest.fixture
async def machine(postgres: Postgres, database: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens machines, whose statements may take so many milliseconds."""
    opened: list[Connection] = []

    async def start(name: str, milliseconds: int = 0) -> Machine:
        connection: Connection = await psycopg.AsyncConnection.connect(
            postgres.socket_url(database),
            autocommit=True,
            options=f"-c statement_timeout={milliseconds}",
        )
        opened.append(connection)
        return Machine(name, connection)

    yield start
    for connection in opened:
        await connection.close()


@pytest.mark.parametrize("kind", ["upstream", "session"])
async def test_a_slow_database_loses_nothing(
    machine: Any, connection: Connection, kind: str
) -> None:
    one, two = await machine("one", 60), await machine("two")
    await one.sync(kind)
    one.begin(kind)
    async with connection.transaction():
        await connection.execute(LOCK)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await one.sync(kind)
    await one.connection.execute("SET statement_timeout = 0")
    await one.sync(kind)
    await two.sync(kind)
    assert two.knows(kind)


async def test_a_report_of_long_ago_confirms_nothing(machine: Any) -> None:
    one, two = await machine("one"), await machine("two")
    one.pool.fail("a", sure=False, caller="ann")
    one.outages.put_back([it._replace(age=60_000) for it in one.outages.take_reports()])
    await one.sync("upstream")
    await two.sync("upstream")
    assert two.pool.level("a", caller="ann") is Level.OUT
    two.pool.fail("a", sure=False, caller="ben")
    assert two.pool.level("a", caller="cat") is Level.FREE


async def test_data_that_is_refused_is_not_sent_again(machine: Any) -> None:
    one, two = await machine("one"), await machine("two")
    await one.sync("session")
    one.bindings.hold(("k\0", b"1"), "b", "x", asyncio.get_running_loop().time(), moved=True)
    with pytest.raises(psycopg.DataError):
        await one.sync("session")
    one.begin("session")
    await one.sync("session")
    await two.sync("session")
    assert two.knows("session")


async def test_a_database_that_is_a_replica_loses_nothing(machine: Any) -> None:
    one, two = await machine("one"), await machine("two")
    one.begin("session")
    await one.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await one.sync("session")
    await one.connection.execute("SET default_transaction_read_only = off")
    await one.sync("session")
    await two.sync("session")
    assert two.knows("session")


async def test_tidying_waits_for_no_rows(machine: Any, connection: Connection) -> None:
    other = (await machine("other", 5_000)).connection
    await connection.execute(MOVE, [b"1", 1])
    await connection.execute(MOVE, [b"2", 1])
    await connection.execute("UPDATE relay.session_move SET until = 1")
    count = "SELECT count(*) FROM relay.session_move"
    async with connection.transaction():
        await connection.execute("UPDATE relay.session_move SET seq = 2 WHERE key = %s", [b"2"])
        await other.execute("SELECT relay.tidy_upstreams()")
        assert await (await other.execute(count)).fetchone() == (1,)
    await other.execute("SELECT relay.tidy_upstreams()")
    assert await (await other.execute(count)).fetchone() == (0,)


@pytest.mark.parametrize("kind", ["upstream", "session"])
async def test_a_loss_during_a_read_is_made_up_for(
    machine: Any, connection: Connection, kind: str
) -> None:
    one, two = await machine("one"), await machine("two")
    table = "upstream_state" if kind == "upstream" else "session_move"
    await one.sync(kind)
    two.pool.fail("b")
    two.hold(b"2")
    await two.sync(kind)
    await connection.execute(f"UPDATE relay.{table} SET seq = 9")
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE relay.{table}")
        reading = asyncio.create_task(one.sync(kind))
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        while (await (await connection.execute(waits)).fetchone()) != (True,):  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        one.parts[kind].read_all()
    await reading
    two.begin(kind)  # of a database that was put back to an earlier state
    await two.sync(kind)
    await connection.execute(f"UPDATE relay.{table} SET seq = 2 WHERE seq < 9")
    await one.sync(kind)
    assert one.knows(kind)
