"""A relay with short deadlines in front of a simulator whose connections can be counted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.net.deadlines import TICK, Deadlines
from relay.net.listener import listen
from relay.net.server import Server
from relay.simulator.app import Simulator
from tests.fakes.live import Live, running_relay
from tests.fakes.until import until

DEADLINE = 0.5  # seconds, of each upstream timeout; the clock ticks every 0.25 s
QUOTA = 100_000  # requests; more than any test here sends
PLAN = [{"id": "free", "limits": [{"requests": QUOTA, "per": "5h"}], "max_keys": 10}]
IN_TIME = DEADLINE + 2 * TICK + 0.5  # one tick to arm, one to fire, and a busy machine


@dataclass
class Setup:
    """The relay under test and its upstream."""

    relay: Live
    simulator: Simulator
    upstream: Server

    async def settled(self) -> None:
        """Wait until no caller is connected, and the upstream only to idle connections.

        Raises:
            TimeoutError: a connection was left open.
        """
        await until(lambda: not self.relay.app.server.connections, within=2)
        await until(lambda: self.relay.keeps_idle(len(self.upstream.connections)), within=2)


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Accept connections for `serve`; the port."""
    served: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close


@contextlib.asynccontextmanager
async def starting(folder: Path, deadline: float) -> AsyncIterator[Setup]:
    """Run relay and simulator; check that nothing is left open afterwards."""
    timers = Deadlines(asyncio.get_running_loop())
    simulator = Simulator()
    upstream = Server(simulator.handle, timers)
    port = await listen(upstream)
    timers.start()
    times = {"connect": deadline, "first_byte": deadline, "silence": deadline}
    async with running_relay(
        folder, f"http://127.0.0.1:{port}", upstream_options={"timeouts": times}, plan=PLAN
    ) as relay:
        yield Setup(relay, simulator, upstream)
    await until(lambda: not upstream.connections, within=2)
    await upstream.drain(0)
    simulator.pacer.stop()
    timers.stop()


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """The relay and the simulator."""
    async with starting(tmp_path, DEADLINE) as setup:
        yield setup
