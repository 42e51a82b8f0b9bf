"""Health, costs and quotas are the same in all processes within milliseconds, also after a reload
and in a new worker."""

import asyncio
import time

import pytest

from relay.pool.outages import Level
from relay.pool.vendor_errors import Scope, Verdict
from tests.workers.pools import MODEL, Cluster, Options, cluster, within

TWO: Options = {"a": {}, "b": {"priority": 1}}
CAPPED: Options = {"a": {"cost_cap": {"day": 10.0}}}


def levels(made: Cluster, caller: str = "k", name: str = "a") -> list[Level]:
    now = made.owner.upstreams.now()
    return [one[name].health.level(MODEL, now, caller=caller) for one in made.processes]


def quota_is_gone(made: Cluster, *, sure: bool = True) -> Verdict:
    return Verdict(Scope.ACCOUNT, made.owner.upstreams.now() + 60, True, "429", sure=sure)


@pytest.mark.parametrize("finder", [0, 1, 2])
async def test_an_outage_holds_everywhere_within_milliseconds(finder: int) -> None:
    async with cluster(TWO) as made:
        health = made.processes[finder]["a"].health
        health.failed(quota_is_gone(made), MODEL, made.owner.upstreams.now(), "k")
        assert health.level(MODEL, made.owner.upstreams.now()) is Level.OUT
        await within(0.1, lambda: levels(made) == [Level.OUT] * 3)
        assert {one["a"].health.errors["account"] for one in made.processes} == {1}


async def test_two_callers_in_two_processes_confirm_an_outage() -> None:
    async with cluster(TWO) as made:
        first, second = made.workers
        now = made.owner.upstreams.now()
        first["a"].health.failed(quota_is_gone(made, sure=False), MODEL, now, "ann")
        await made.settled()
        assert levels(made, "ann") == [Level.OUT] * 3
        assert levels(made, "cem") == [Level.FREE] * 3
        second["a"].health.failed(quota_is_gone(made, sure=False), MODEL, now, "ben")
        await made.settled()
        assert levels(made, "cem") == [Level.OUT] * 3


async def test_failures_in_a_row_are_counted_over_all_processes() -> None:
    async with cluster(TWO) as made:
        now = made.owner.upstreams.now()
        broken = Verdict(Scope.FAILURE, 0.0, False, "connection refused")
        for number, process in enumerate(made.processes):
            process["a"].health.failed(broken, MODEL, now, "k")
            await made.settled()
            assert {one["a"].health.failures for one in made.processes} == {number + 1}
        assert levels(made) == [Level.DOUBTFUL] * 3
        assert made.owner["a"].health.probe_at < now + 60
        made.owner["a"].health.probe_answered()
        await made.settled()
        assert levels(made) == [Level.FREE] * 3


async def test_a_completed_answer_in_any_process_ends_a_row() -> None:
    async with cluster(TWO) as made:
        broken = Verdict(Scope.FAILURE, 0.0, False, "503")
        made.owner["a"].health.failed(broken, MODEL, made.owner.upstreams.now(), "k")
        await made.settled()
        made.workers[1]["a"].health.completed()
        await made.settled()
        assert {one["a"].health.failures for one in made.processes} == {0}


async def test_the_operator_acts_on_all_processes() -> None:
    async with cluster(TWO) as made:
        health = made.owner["a"].health
        health.pause()
        await within(0.1, lambda: levels(made) == [Level.OUT] * 3)
        health.failed(quota_is_gone(made), MODEL, made.owner.upstreams.now(), "k")
        health.resume()
        await within(0.1, lambda: not any(one["a"].health.paused for one in made.processes))
        health.clear()
        await within(0.1, lambda: levels(made) == [Level.FREE] * 3)


async def test_a_waiting_request_is_served_once_its_outage_ends() -> None:
    async with cluster({"a": {}}) as made:
        now = made.owner.upstreams.now()
        soon = Verdict(Scope.ACCOUNT, now + 5, True, "429")
        made.workers[0]["a"].health.failed(soon, MODEL, now, "k")
        await made.settled()
        waiting = asyncio.create_task(made.workers[1].lease())
        await made.settled()
        assert not waiting.done()
        made.owner["a"].health.clear()
        await within(0.1, waiting.done)


async def test_a_new_worker_knows_the_present_state() -> None:
    async with cluster(CAPPED, workers=0) as made:
        now = made.owner.upstreams.now()
        made.owner["a"].health.failed(quota_is_gone(made), MODEL, now, "k")
        made.owner["a"].spending.add(7, now)
        made.owner["a"].quota_left = 12
        worker = await made.join()
        assert levels(made) == [Level.OUT] * 2
        assert (worker["a"].spending.day, worker["a"].quota_left) == (7, 12)


@pytest.mark.parametrize("owner_first", [True, False])
async def test_a_new_upstream_starts_equal_everywhere(owner_first: bool) -> None:
    async with cluster({"b": {}}) as made:
        order = made.processes if owner_first else made.processes[::-1]
        for number, process in enumerate(order):
            process.reload(TWO)
            if number == 0:
                verdict = quota_is_gone(made)
                process["a"].health.failed(verdict, MODEL, made.owner.upstreams.now(), "k")
                await made.settled()
        await made.settled()
        assert levels(made) == [Level.OUT] * 3 if owner_first else [Level.FREE] * 3
        made.owner["a"].health.pause()
        await made.settled()
        assert levels(made) == [Level.OUT] * 3


async def test_costs_of_all_processes_reach_the_cap_within_250_ms() -> None:
    async with cluster(CAPPED) as made:
        for process in made.processes:
            process.upstreams.release(await process.lease(), cost=4_000_000)
        now = made.owner.upstreams.now()
        assert [one["a"].spending.ready_at(now) for one in made.processes] == [now] * 3
        await within(
            0.25, lambda: {one["a"].spending.day for one in made.processes} == {12_000_000}
        )
        assert all(one["a"].spending.ready_at(now) > now for one in made.processes)
        assert {one["a"].spending.month for one in made.processes} == {12_000_000}
        made.sent()
        await asyncio.sleep(0.25)
        assert made.sent() == {}


async def test_costs_are_sent_in_batches() -> None:
    async with cluster(CAPPED) as made:
        worker = made.workers[0]
        made.sent()
        for _ in range(200):
            worker.upstreams.release(await worker.lease(), cost=1)
        await within(0.25, lambda: made.workers[1]["a"].spending.day == 200)
        assert made.sent()["costs"] <= 4


async def test_the_quota_that_is_left_reaches_all() -> None:
    async with cluster(TWO) as made:
        made.owner["a"].quota_left = 5
        await within(0.25, lambda: [one["a"].quota_left for one in made.processes] == [5] * 3)


async def test_requests_of_healthy_upstreams_send_nothing() -> None:
    async with cluster(TWO) as made:
        made.sent()
        began = time.monotonic()
        for process in made.processes * 50:
            lease = await process.lease()
            lease.target.upstream.health.succeeded(MODEL, "k")
            process.upstreams.release(lease)
        await made.settled()
        assert made.sent() == {}, time.monotonic() - began
