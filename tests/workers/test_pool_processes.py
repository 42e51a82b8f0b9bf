"""Three processes with one pool, as upstreams and callers see them."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from relay.net.exchange import Exchange
from tests.durability.process import Running, serving
from tests.fakes.caller import BODY, request
from tests.fakes.pool import Line, Node, Reply, refusing
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

from .processes import workers_of

CAP = 3
CALLERS, EACH = 24, 12


class Busy:
    """Answers each request after a while. `most` is the largest number of them at a time."""

    def __init__(self, node: Node, seconds: float) -> None:
        self._node = node
        self._seconds = seconds
        self._present = self.most = 0

    async def answer(self, exchange: Exchange) -> None:
        self._present += 1
        self.most = max(self.most, self._present)
        await asyncio.sleep(self._seconds)
        self._present -= 1
        await self._node.simulator.handle(exchange)


@contextlib.asynccontextmanager
async def running(folder: Path, *settings: str) -> AsyncIterator[tuple[Running, list[Node]]]:
    """A relay with an upstream for each of `settings`, lines of its section."""
    path = folder / "relay.toml"
    head, _, rest = path.read_text().partition("[[upstream]]")
    _, _, models = rest.partition("[[model]]")
    async with contextlib.AsyncExitStack() as stack:
        nodes = [Node(f"node{number}") for number in range(len(settings))]
        sections = ""
        for node, more in zip(nodes, settings, strict=True):
            await node.open()
            stack.callback(node.kill)
            sections += (
                f'[[upstream]]\nname = "{node.name}"\napi_key = "sim-key"\n'
                f'base_url = "http://127.0.0.1:{node.port}"\n{more}\n'
            )
        path.write_text(f"{head}{sections}[[model]]{models}")
        server = stack.enter_context(serving(folder))
        assert len(workers_of(server)) == 2
        yield server, nodes


async def ask(port: int, key: str, body: dict[str, Any] = BODY) -> Reply:
    """Send a request over a connection of its own, which any process may accept."""
    line = await Line.open(port)
    try:
        return await line.ask(request(key, json.dumps(body).encode()))
    finally:
        line.close()


async def ask_all(port: int, key: str) -> Counter[int]:
    """Many callers at once; the statuses of their answers."""
    statuses: Counter[int] = Counter()

    async def call() -> None:
        for _ in range(EACH):
            statuses[(await ask(port, key)).status] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())
    return statuses


async def test_max_concurrency_is_exact_over_processes(
    several: tuple[Path, str], record_property: RecordProperty
) -> None:
    folder, key = several
    async with running(folder, f"max_concurrency = {CAP}") as (server, [node]):
        busy = Busy(node, 0.004)
        node.instead = busy.answer
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await ask_all(server.port, key) == {200: CALLERS * EACH}
        seconds = loop.time() - began
    assert busy.most == CAP
    rate = CALLERS * EACH / seconds
    record_property("figure", f"3 processes, {CAP} places: never more, {rate:.0f} requests/s")


async def test_places_of_a_killed_process_are_used_again(several: tuple[Path, str]) -> None:
    folder, key = several
    async with running(folder, "max_concurrency = 2") as (server, [node]):
        node.hold()
        held = [asyncio.create_task(ask(server.port, key)) for _ in range(2)]
        await until(lambda: node.held == 2)
        for pid in workers_of(server):
            os.kill(pid, signal.SIGKILL)
        node.let(10)
        for one in held:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await one
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*(ask(server.port, key) for _ in range(6)))
        assert {one.status for one in replies} == {200}


async def test_a_conversation_stays_with_its_upstream(several: tuple[Path, str]) -> None:
    folder, key = several
    turns = 6
    async with running(folder, "", "") as (server, nodes):
        for number in range(12):
            messages = [{"role": "user", "content": f"conversation {number}"}]
            before = [len(node.came) for node in nodes]
            for turn in range(turns):
                body = {**BODY, "messages": messages}
                assert (await ask(server.port, key, body)).status == 200
                messages = [
                    *messages,
                    {"role": "assistant", "content": f"answer {turn}"},
                    {"role": "user", "content": f"turn {turn}"},
                ]
                await asyncio.sleep(0.02)  # as long as a caller needs at least
            came = [len(node.came) - first for node, first in zip(nodes, before, strict=True)]
            assert sorted(came) == [0, turns]
        assert all(node.came for node in nodes)


async def test_a_stated_outage_holds_in_all_processes(several: tuple[Path, str]) -> None:
    folder, key = several
    async with running(folder, "", "priority = 1") as (server, [first, second]):
        first.instead = refusing(429, retry_after="60")
        assert (await ask(server.port, key)).status == 200
        await asyncio.sleep(0.02)
        for number in range(30):
            body = {**BODY, "messages": [{"role": "user", "content": f"{number}"}]}
            assert (await ask(server.port, key, body)).status == 200
        assert (len(first.came), len(second.came)) == (1, 31)
