"""A thousand callers that hardly send anything are closed in time, cost little, and harm nobody.

The relay is a process of its own. Its limits of time are shorter than the shipped ones.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.attacks.honest import HonestCaller, distant_upstream, percentile
from tests.attacks.relay_process import RelayProcess, relay_process
from tests.attacks.uploads import head
from tests.fakes.live import upstream_row
from tests.scoreboard import RecordProperty

CALLERS = 1000
KEYS = 20  # a key may have so many unfinished uploads
HEAD_SECONDS = BODY_SECONDS = 2
LATE_SECONDS = 1
DRIP_SECONDS = 0.5
GAP_SECONDS = 0.05
BODY_KIB = 16
IDLE_KIB = 6


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    server = {
        "timeouts": {"head": HEAD_SECONDS, "body": BODY_SECONDS},
        "limits": {"connections_per_address": 0},
    }
    plans = [{"id": "free", "max_keys": 100}]
    with (
        distant_upstream() as url,
        relay_process([upstream_row("one", url)], server=server, plan=plans) as process,
    ):
        yield process


class SlowCaller:
    """Sends `first`, then an octet now and then. `closed_after`: in seconds, from `first` on."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self.closed_after = 0.0

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(self._first)
        began = time.monotonic()
        dripping = asyncio.create_task(self._drip(writer))
        with contextlib.suppress(OSError):
            await reader.read(-1)
        self.closed_after = time.monotonic() - began
        dripping.cancel()
        writer.transport.abort()

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(DRIP_SECONDS)
            writer.write(b"x")


async def beside_slow_callers(relay: RelayProcess, callers: list[SlowCaller]) -> list[float]:
    """The gaps of an honest caller's stream while the others are served."""
    honest = HonestCaller(relay.port, relay.key)
    honest.start()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run(relay.port))
    assert await asyncio.to_thread(honest.ask) == 200
    assert honest.reads
    honest.stop()
    return honest.gaps


@pytest.mark.alone
async def test_slow_heads_are_closed_in_time(
    relay: RelayProcess, record_property: RecordProperty
) -> None:
    callers = [SlowCaller(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ") for _ in range(CALLERS)]
    gaps = await beside_slow_callers(relay, callers)
    times = [caller.closed_after for caller in callers]
    gap = percentile(gaps, 0.99)
    record_property("figure", f"closed after {max(times):.1f} s of 2, p99 {gap * 1000:.0f} ms")
    assert HEAD_SECONDS - 0.1 <= min(times) <= max(times) <= HEAD_SECONDS + LATE_SECONDS
    assert gap <= GAP_SECONDS


@pytest.mark.alone
async def test_slow_bodies_are_closed_in_time(
    relay: RelayProcess, record_property: RecordProperty
) -> None:
    keys = [relay.new_key() for _ in range(KEYS)]
    callers = [SlowCaller(head(keys[n % KEYS], length=100_000)) for n in range(CALLERS)]
    before = relay.memory()
    largest = before

    async def watch() -> None:
        nonlocal largest
        while True:
            await asyncio.sleep(0.2)
            largest = max(largest, await asyncio.to_thread(relay.memory))

    watching = asyncio.create_task(watch())
    gaps = await beside_slow_callers(relay, callers)
    watching.cancel()
    times = [caller.closed_after for caller in callers]
    each = (largest - before) / CALLERS / 1024
    gap = percentile(gaps, 0.99)
    record_property(
        "figure",
        f"{each:.1f} KiB each, closed after {max(times):.1f} s of 2, p99 {gap * 1000:.0f} ms",
    )
    assert max(times) <= 2 * BODY_SECONDS + LATE_SECONDS
    assert each <= BODY_KIB
    assert gap <= GAP_SECONDS


@pytest.mark.alone
def test_idle_callers_cost_6_kib_each(relay: RelayProcess, record_property: RecordProperty) -> None:
    before = relay.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(CALLERS):
            stack.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
        each = (relay.memory() - before) / CALLERS / 1024
    record_property("figure", f"{each:.1f} KiB each over HTTP/1.1")
    assert each <= IDLE_KIB
