"""A relay with short deadlines in front of a simulator whose connections can be counted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
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
