"""A simulator that listens on a port of this machine."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from relay.net.deadlines import Deadlines
from relay.net.listener import listen
from relay.net.server import Server
from relay.simulator.app import Simulator

# To make a context takes longer than most of the tests.
TRUST = ssl.create_default_context()


class Running:
    """A simulator and its address."""

    def __init__(self, simulator: Simulator, port: int) -> None:
        self.simulator = simulator
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The journal's entries."""
        return list(self.simulator.journal.report()["requests"])

    @property
    def totals(self) -> dict[str, int]:
        """The journal's sums."""
        return dict(self.simulator.journal.report()["totals"])

    async def until_aborted(self) -> None:
        """Wait until a peer has left."""
        async with asyncio.timeout(5):
            while not self.simulator.journal.aborted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
async def upstream() -> AsyncIterator[Running]:
    timers = Deadlines(asyncio.get_running_loop())
    timers.start()
    simulator = Simulator("test")
    server = Server(simulator.handle, timers)
    port = await listen(server)
    yield Running(simulator, port)
    server.abort()
    await asyncio.sleep(0)
    simulator.pacer.stop()
    timers.stop()


@pytest.fixture
async def client(upstream: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": "sim-key", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(
        base_url=upstream.url, headers=headers, timeout=10, verify=TRUST
    ) as client:
        yield client
