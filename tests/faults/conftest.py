"""A relay with short deadlines in front of a simulator whose connections can be counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.net.pool import Pool
from relay.net.server import Server
from relay.net.timers import TICK, Timers
from relay.simulator.app import Simulator
from tests.fakes.live import Live, running_relay

DEADLINE = 0.5  # seconds, of each wait for the upstream
IN_TIME = DEADLINE + 2 * TICK + 0.5  # a sweep for the clock, one to fire, and a busy machine


@dataclass
class Setup:
    """The relay under test and what stands behind it."""

    relay: Live
    simulator: Simulator
    upstream: Server

    @property
    def pool(self) -> Pool:
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


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """Run both; afterwards nothing may be left open."""
    timers = Timers(asyncio.get_running_loop())
    simulator = Simulator()
    upstream = Server(simulator.handle, timers)
    port = await upstream.listen()
    timers.start()
    times = {"connect": DEADLINE, "first_byte": DEADLINE, "silence": DEADLINE}
    async with running_relay(
        tmp_path, f"http://127.0.0.1:{port}", upstream_options={"timeouts": times}
    ) as relay:
        yield Setup(relay, simulator, upstream)
    await until(lambda: not upstream.connections)  # the relay has let go of everything
    await upstream.drain(0)
    simulator.pacer.stop()
    timers.stop()
