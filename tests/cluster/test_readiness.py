"""A load balancer finds out by /readyz that a relay refuses what has a limit."""

import asyncio
import time

from tests.cluster.nodes import Wire, running_node
from tests.cluster.postgres import Postgres
from tests.fakes.caller import connected, read_answer
from tests.fakes.live import Live, RelayWith


async def readiness(relay: Live) -> tuple[int, bytes]:
    async with connected(relay.port) as (reader, writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        status, _, body = await read_answer(reader)
    return status, body


async def until_ready(relay: Live, status: int) -> bytes:
    """Wait until /readyz has this status; its body."""
    async with asyncio.timeout(60):
        while (found := await readiness(relay))[0] != status:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.1)
    return found[1]


async def test_a_relay_without_its_ledger_is_not_ready(
    relay_with: RelayWith, postgres: Postgres, database: str
) -> None:
    async with Wire(postgres.port) as wire:
        url = postgres.url(database, wire.port)
        relay = await relay_with(ledger={"url": url, "node": "a"})
        async with running_node(url, "b", "local") as other:
            assert await readiness(relay) == (200, b"ready\n")
            dropped = time.monotonic()
            wire.drop()
            body = await until_ready(relay, 503)
            assert body == b"not ready: the shared ledger (PostgreSQL) is away\n"
            assert time.monotonic() - dropped > 9  # leases may live on until then
            assert other.view().away_for > 9
            assert not other.refuses()  # it admits by itself
            wire.restore()
            await until_ready(relay, 200)
