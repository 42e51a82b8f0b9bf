"""A relay with short deadlines in front of a simulator whose connections can be counted."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.net.deadlines import TICK, Deadlines
from relay.net.http1 import Server
from relay.net.upstream.connection_pool import ConnectionPool
from relay.simulator.app import Simulator
from tests.fakes.live import Live, running_relay

DEADLINE = 0.5  # seconds, of each wait for the upstream; the clock is half as fine
QUOTA = 100_000  # requests; more than any test here asks
PLAN = [{"id": "free", "limits": [{"requests": QUOTA, "per": "5h"}], "max_keys": 10}]
IN_TIME = DEADLINE + 2 * TICK + 0.5  # a sweep for the clock, one to fire, and a busy machine


@dataclass
class Setup:
    """The relay under test and what stands behind it."""

    relay: Live
    simulator: Simulator
    upstream: Server

    @property
    def pool(self) -> ConnectionPool:
        return self.relay.app.upstreams[0].pool

    @property
    def idle(self) -> int:
        """Upstream connections that wait for the next request."""
        return int(repr(self.pool).partition("idle=")[2].partition(" ")[0])

    async def settled(self) -> None:
        """Nobody is connected to the relay, and it only to what its pool holds, or this fails."""
        await until(lambda: not self.relay.app.server.connections)
        await until(lambda: len(self.upstream.connections) == self.idle)


async def until(true: Callable[[], bool], wait: float = 2.0) -> None:
    """Wait for something that no event tells of."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < wait, "it did not come true in time"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Accept connections that `serve` has all to itself; the port."""
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
        await asyncio.sleep(0)  # for the transports to be gone


@contextlib.asynccontextmanager
async def starting(folder: Path, deadline: float) -> AsyncIterator[Setup]:
    """Run both; afterwards nothing may be left open."""
    timers = Deadlines(asyncio.get_running_loop())
    simulator = Simulator()
    upstream = Server(simulator.handle, timers)
    port = await upstream.listen()
    timers.start()
    times = {"connect": deadline, "first_byte": deadline, "silence": deadline}
    async with running_relay(
        folder, f"http://127.0.0.1:{port}", upstream_options={"timeouts": times}, plan=PLAN
    ) as relay:
        yield Setup(relay, simulator, upstream)
    await until(lambda: not upstream.connections)  # the relay has let go of everything
    await upstream.drain(0)
    simulator.pacer.stop()
    timers.stop()


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """The relay and the simulator."""
    async with starting(tmp_path, DEADLINE) as setup:
        yield setup
