"""In steady work a request costs next to no round trips, and waits for none."""

import asyncio
import time

import pytest

from relay.cluster.windows import SharedLimit
from tests.cluster.nodes import HOUR, node_process, running_node
from tests.cluster.postgres import Postgres
from tests.scoreboard import RecordProperty

PLAN = [["key", "requests", 5 * HOUR, 1_200], ["account", "requests", 168 * HOUR, 6_000]]


@pytest.mark.alone
async def test_a_thousand_keys_cost_few_round_trips(
    postgres: Postgres, database: str, record_property: RecordProperty
) -> None:
    """Two nodes, each key of an account of its own used every second and a half on each."""
    keys = [f"k{number}" for number in range(1_000)]
    url = postgres.url(database)
    async with node_process(url, "a") as a, node_process(url, "b") as b:
        for node in (a, b):  # until all have leases
            node.begin("steady", limits=PLAN, keys=keys, rate=700, seconds=3)
        await asyncio.gather(a.answer(), b.answer())
        before = [await node.ask("figures") for node in (a, b)]
        for node in (a, b):
            node.begin("steady", limits=PLAN, keys=keys, rate=700, seconds=4)
        done = await asyncio.gather(a.answer(), b.answer())
        after = [await node.ask("figures") for node in (a, b)]
    calls = sum(one["calls"] - two["calls"] for one, two in zip(after, before, strict=True))
    requests = sum(one["requests"] for one in done)
    assert not any(one["refused"] for one in done)
    ratio = calls / requests
    p50, p99 = (max(one[name] for one in done) for name in ("p50", "p99"))
    record_property("figure", f"{ratio:.3f} round trips a request, p50 {p50:.3f}, p99 {p99:.2f} ms")
    assert ratio < 0.05
    assert p50 <= 0.05


@pytest.mark.alone
async def test_an_admission_from_a_lease_takes_microseconds(
    postgres: Postgres, database: str, record_property: RecordProperty
) -> None:
    plan = (
        SharedLimit("key", "requests", 5 * HOUR, 100_000),
        SharedLimit("key", "tokens", 168 * HOUR, 10_000_000),
    )
    async with running_node(postgres.url(database)) as node:
        await node.limits.reserve("a", "k", plan, 100)
        times: list[float] = []
        while len(times) < 3_000:
            started = time.perf_counter()
            held = node.limits.try_reserve("a", "k", plan, 100)
            times.append(time.perf_counter() - started)
            if held is None:
                held = await node.limits.reserve("a", "k", plan, 100)
            node.limits.settle(held, tokens=10)
        times.sort()
        p50 = times[len(times) // 2] * 1e6
        record_property("figure", f"admission from a lease: p50 {p50:.1f} µs")
        assert p50 <= 50
