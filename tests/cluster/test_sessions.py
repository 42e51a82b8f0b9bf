"""Relays that share a ledger send a conversation to the same upstream, and follow its moves."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from relay.app import App
from relay.pool.affinity import Bindings
from relay.pool.outages import Level
from relay.pool.session_moves import SessionMoves
from tests.cluster.nodes import Wire, running_node
from tests.cluster.postgres import Postgres
from tests.fakes.caller import request
from tests.fakes.pool import MODEL, Line, Node, Pool, answering, refusing, running_pool
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER

NAMES = ("a", "b", "c")


class Relays:
    """Two relays, in front of the same three upstreams."""

    def __init__(self, pool: Pool, other: App, lines: list[Line]) -> None:
        self.nodes = pool.nodes
        self.apps = (pool.relay.app, other)
        self._key = pool.relay.key
        self._lines = lines

    async def turn(self, relay: int, number: int) -> str:
        """One turn of a conversation at a relay; the name of the upstream that answers."""
        before = {name: _answered(node) for name, node in self.nodes.items()}
        fields = f"session-id: {number}\r\n"
        reply = await self._lines[relay].ask(request(self._key, None, fields=fields))
        assert reply.status == 200, reply.payload
        [name] = [it for it, node in self.nodes.items() if _answered(node) > before[it]]
        return name

    def level(self, relay: int, name: str) -> Level:
        upstream = self.apps[relay].upstreams.named(name)
        assert upstream is not None
        return upstream.health.level(MODEL, self.apps[relay].upstreams.now())


def _answered(node: Node) -> int:
    return len(node.came) if node.instead is _ANSWER else 0


_ANSWER = answering(JSON_ANSWER)


@pytest.fixture
async def relays(postgres: Postgres, database: str, tmp_path: Path) -> AsyncIterator[Relays]:
    async with AsyncExitStack() as stack:
        folder = tmp_path / "other"
        folder.mkdir()
        ledger = {"url": postgres.url(database), "node": "one"}
        options: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
        pool = await stack.enter_async_context(running_pool(tmp_path, options, ledger=ledger))
        for node in pool.nodes.values():
            node.instead = _ANSWER
        settings, replace = pool.relay.settings, msgspec.structs.replace
        other = await App.start(
            replace(
                settings,
                database=replace(settings.database, path=str(folder / "relay.db")),
                ledger=replace(settings.ledger, node="two"),
            ),
            log_fd=stack.enter_context((folder / "log").open("ab")).fileno(),
        )
        stack.push_async_callback(other.stop, 0)
        key = {b"x-api-key": pool.relay.key.encode()}
        await until(lambda: other.keys.find(key) is not None, within=10)
        ports = [pool.relay.port, int(other.addresses[0].rpartition(":")[2])]
        lines = [await Line.open(port) for port in ports]
        for line in lines:
            stack.callback(line.close)
        yield Relays(pool, other, lines)


async def test_all_relays_choose_alike(relays: Relays) -> None:
    first = [await relays.turn(number % 2, number) for number in range(16)]
    second = [await relays.turn(1 - number % 2, number) for number in range(16)]
    assert first == second
    assert set(first) == set(NAMES)


async def test_a_move_is_followed_by_the_other_relay(relays: Relays) -> None:
    home = await relays.turn(0, 1)
    assert await relays.turn(1, 1) == home
    relays.nodes[home].instead = refusing(429, retry_after="600", x_should_retry="false")
    moved = await relays.turn(0, 1)
    assert moved != home
    one, two = relays.apps
    [conversation] = one.bindings.conversations()

    def held() -> str:
        binding = two.bindings.get(conversation)
        return "" if binding is None else binding.upstream

    await until(lambda: held() == moved, within=5)
    relays.nodes[home].instead = _ANSWER
    upstream = one.upstreams.named(home)
    assert upstream is not None
    upstream.clear()
    await until(lambda: relays.level(1, home) is Level.FREE, within=5)
    assert await relays.turn(1, 1) == moved
    assert await relays.turn(0, 1) == moved


async def test_a_move_is_known_after_a_cut_and_a_start(postgres: Postgres, database: str) -> None:
    def shared(node: Any) -> Bindings:
        bindings = Bindings(300.0)
        node.share_sessions(SessionMoves(bindings, node.state_sync.wake))
        return bindings

    def knows(bindings: Bindings, key: bytes) -> bool:
        binding = bindings.get(("k", key))
        return binding is not None and binding.upstream == "b"

    async with (
        Wire(postgres.port) as wire,
        running_node(postgres.url(database, wire.port), "cut") as cut,
        running_node(postgres.url(database), "other") as other,
    ):
        one, two = shared(cut), shared(other)
        two.hold(("k", b"\0\xff"), "b", "x", time.monotonic(), moved=True)
        await until(lambda: knows(one, b"\0\xff"), within=5)
        wire.drop()
        one.hold(("k", b"1"), "b", "x", time.monotonic(), moved=True)
        two.hold(("k", b"2"), "b", "x", time.monotonic(), moved=True)
        async with running_node(postgres.url(database), "third") as third:
            three = shared(third)
            await until(lambda: knows(three, b"\0\xff") and knows(three, b"2"), within=5)
            assert not knows(three, b"1")
        wire.restore()
        await until(lambda: knows(one, b"2") and knows(two, b"1"), within=8)


async def test_many_moves_are_read_in_pages(
    postgres: Postgres, database: str, connection: psycopg.AsyncConnection[Any]
) -> None:
    await connection.execute(
        "INSERT INTO relay.session_move SELECT 'k', decode(lpad(to_hex(n), 8, '0'), 'hex'), 'b',"
        " 'x', false, true, relay.now_ms() + 60000, relay.now_ms(), 'someone', n / 300 + 1"
        " FROM generate_series(1, 5000) n"
    )
    async with running_node(postgres.url(database)) as node:
        bindings = Bindings(300.0)
        node.share_sessions(SessionMoves(bindings, node.state_sync.wake))
        await until(lambda: len(bindings) == 5000, within=10)
