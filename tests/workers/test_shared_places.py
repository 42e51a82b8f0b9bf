"""`max_concurrency` is exact over all processes, and no place stays idle while a request waits."""

import asyncio
import time
from collections import Counter

import pytest

from relay.errors import RelayError
from relay.pool.leases import Lease
from relay.pool.places import UNBOUNDED
from relay.pool.vendor_errors import Scope, Verdict
from tests.workers.pools import Cluster, Options, Process, cluster, within

ONE: Options = {"a": {"max_concurrency": 1}}
EIGHT: Options = {"a": {"max_concurrency": 8}}


def in_flight(made: Cluster, name: str = "a") -> int:
    return sum(one[name].in_flight for one in made.processes)


def places(made: Cluster, name: str = "a") -> int:
    return sum(one[name].places for one in made.processes)


async def leases(process: Process, number: int, caller: str = "k") -> list[Lease]:
    return [await process.lease(caller) for _ in range(number)]


@pytest.mark.parametrize("number", [0, 1])
async def test_a_place_that_another_holds_idle_comes_at_once(number: int) -> None:
    async with cluster(ONE) as made:
        holder, other = made.workers[number], made.processes[number]
        waits = []
        for _ in range(9):  # the machine may be busy meanwhile
            holder.upstreams.release(await holder.lease())
            assert holder["a"].places == 1
            began = time.monotonic()
            lease = await other.lease()
            waits.append(time.monotonic() - began)
            assert (holder["a"].places, other["a"].places) == (0, 1)
            other.upstreams.release(lease)
        assert sorted(waits)[4] < 0.01


async def test_a_place_in_use_comes_when_its_request_ends() -> None:
    async with cluster(ONE) as made:
        holder, other = made.workers
        lease = await holder.lease()
        waiting = asyncio.create_task(other.lease())
        await made.settled()
        assert (waiting.done(), in_flight(made)) == (False, 1)
        holder.upstreams.release(lease)
        other.upstreams.release(await waiting)
        assert (holder["a"].places, other["a"].places) == (0, 1)


async def test_no_message_is_sent_while_places_suffice() -> None:
    async with cluster({"a": {"max_concurrency": 64}}) as made:
        worker = made.workers[0]
        for one in await leases(worker, 12):
            worker.upstreams.release(one)
        await made.settled()
        made.sent()
        for _ in range(100):
            lease = worker.upstreams.take(worker.request())
            assert lease is not None
            worker.upstreams.release(lease)
        await made.settled()
        assert made.sent() == {}


async def test_all_processes_together_never_exceed_the_cap() -> None:
    async with cluster(EIGHT, workers=3) as made:
        most = 0

        async def call(process: Process, caller: str) -> None:
            nonlocal most
            for _ in range(30):
                lease = await process.lease(caller)
                most = max(most, in_flight(made))
                assert places(made) <= 8
                await asyncio.sleep(0.0005)
                process.upstreams.release(lease)

        async with asyncio.TaskGroup() as group:
            for number in range(24):
                group.create_task(call(made.processes[number % 4], f"k{number % 5}"))
        assert (most, in_flight(made)) == (8, 0)


async def test_callers_of_all_processes_take_turns() -> None:
    async with cluster(ONE) as made:
        first = await made.owner.lease("busy")
        order: list[str] = []

        async def call(process: Process, caller: str) -> None:
            lease = await process.lease(caller)
            order.append(caller)
            await asyncio.sleep(0.001)
            process.upstreams.release(lease)

        async with asyncio.TaskGroup() as group:
            for _ in range(10):  # one caller fills the queues of two processes
                group.create_task(call(made.owner, "busy"))
                group.create_task(call(made.workers[0], "busy"))
            await made.settled()
            for caller in ("ann", "ben"):
                for _ in range(3):
                    group.create_task(call(made.workers[1], caller))
            await made.settled()
            made.owner.upstreams.release(first)
        assert Counter(order) == {"busy": 20, "ann": 3, "ben": 3}
        early = Counter(order[:10])
        assert (early["ann"], early["ben"]) == (3, 3)


async def test_another_upstream_serves_once_all_places_are_taken() -> None:
    upstreams: Options = {"a": {"max_concurrency": 1}, "b": {"priority": 1}}
    async with cluster(upstreams) as made:
        lease = await made.workers[0].lease()
        other = await made.workers[1].lease()
        assert [one.target.upstream.name for one in (lease, other)] == ["a", "b"]
        made.workers[0].upstreams.release(lease)
        await asyncio.sleep(0.03)
        again = await made.workers[1].lease()
        assert again.target.upstream.name == "a"


@pytest.mark.parametrize("pool", [{"wait": 0.0}, {"queue": 0}])
async def test_without_a_queue_a_place_on_its_way_is_no_refusal(pool: dict[str, float]) -> None:
    async with cluster(ONE, pool=pool) as made:
        holder, other = made.workers
        holder.upstreams.release(await holder.lease())
        lease = await other.lease()
        with pytest.raises(RelayError):
            await holder.lease()
        other.upstreams.release(lease)


async def test_the_places_of_a_worker_that_died_come_back() -> None:
    async with cluster(EIGHT) as made:
        await leases(made.workers[0], 8)
        waiting = asyncio.create_task(made.workers[1].lease())
        await made.settled()
        assert not waiting.done()
        made.kill(0)
        await asyncio.wait_for(waiting, 1)
        await leases(made.owner, 7)
        assert in_flight(made) == 8


async def test_a_request_waits_for_no_place_of_an_upstream_that_is_out() -> None:
    async with cluster({**ONE, "b": {"max_concurrency": 1}}) as made:
        now = made.owner.upstreams.now()
        out = Verdict(Scope.ACCOUNT, now + 60, True, "429")
        made.owner["a"].health.failed(out, "m", now, "k")
        await made.settled()
        lease = await made.workers[0].lease()
        assert lease.target.upstream.name == "b"
        waiting = asyncio.create_task(made.workers[1].lease())
        await made.settled()
        assert places(made, "a") == 0
        waiting.cancel()


async def test_a_new_cap_holds_for_requests_in_flight() -> None:
    async with cluster({"a": {}}) as made:
        held = [await one.lease() for one in made.processes]
        assert [one["a"].places for one in made.processes] == [UNBOUNDED] * 3
        for one in reversed(made.processes):
            one.reload({"a": {"max_concurrency": 4}})
        await made.settled()
        fourth = await made.workers[1].lease()
        fifth = asyncio.create_task(made.owner.lease())
        await made.settled()
        assert (fifth.done(), in_flight(made), places(made)) == (False, 4, 4)
        for one in made.processes:
            one.reload({"a": {}})
        await asyncio.wait_for(fifth, 1)
        for process, lease in zip(made.processes, held, strict=True):
            process.upstreams.release(lease)
        made.workers[1].upstreams.release(fourth)
        made.owner.upstreams.release(await fifth)
        for one in made.processes:
            one.reload({"a": {"max_concurrency": 2}})
        await made.settled()
        assert await leases(made.workers[0], 2)


async def test_a_smaller_cap_is_reached_as_requests_end() -> None:
    async with cluster(EIGHT) as made:
        worker = made.workers[0]
        held = await leases(worker, 8)
        for one in made.processes:
            one.reload({"a": {"max_concurrency": 2}})
        for lease in held[:6]:
            worker.upstreams.release(lease)
        await made.settled()
        assert places(made) == 2
        waiting = asyncio.create_task(made.owner.lease())
        await made.settled()
        assert not waiting.done()
        worker.upstreams.release(held[6])
        await within(1, waiting.done)


async def test_a_request_waits_until_the_owner_knows_its_upstream() -> None:
    async with cluster({"b": {}}) as made:
        worker = made.workers[0]
        worker.reload(ONE)
        waiting = asyncio.create_task(worker.lease())
        await made.settled()
        assert not waiting.done()
        made.owner.reload(ONE)
        await within(0.1, waiting.done)
