"""No caller takes all places of the queue, and what is free takes none from others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.attacks.uploads import asked, other_key, refusal
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live
from tests.fakes.pool import Pool, PoolWith
from tests.fakes.until import until

COUNT = "/v1/messages/count_tokens"


class Callers:
    """Requests on connections of their own."""

    def __init__(self, relay: Live, stack: contextlib.AsyncExitStack) -> None:
        self._relay = relay
        self._stack = stack

    async def send(
        self, key: str, target: str = "/v1/messages"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stream = await self._stack.enter_async_context(connected(self._relay.port))
        stream[1].write(request(key, asked(target), target=target))
        await asyncio.sleep(0.01)
        return stream


@contextlib.asynccontextmanager
async def busy(pool_with: PoolWith, queue: int) -> AsyncIterator[tuple[Pool, Callers]]:
    """A pool whose only place is taken."""
    pool = await pool_with({"a": {"max_concurrency": 1}}, pool={"queue": queue})
    pool["a"].hold()
    async with contextlib.AsyncExitStack() as stack:
        callers = Callers(pool.relay, stack)
        await callers.send(await other_key(pool.relay, "holds@example.com"))
        await until(lambda: pool["a"].held)
        yield pool, callers


@pytest.mark.parametrize("target", ["/v1/messages", COUNT])
async def test_one_key_has_half_of_the_queue(pool_with: PoolWith, target: str) -> None:
    """70 requests that only count tokens filled a queue of 50."""
    async with busy(pool_with, 10) as (pool, callers):
        relay = pool.relay
        streams = [await callers.send(relay.key, target) for _ in range(14)]
        assert relay.app.upstreams.waiting == 5
        for stream in streams[5:]:
            status, fields, message = await refusal(stream)
            assert (status, fields[b"retry-after"]) == (429, b"1")
            assert "its share" in message
        honest = await callers.send(await other_key(relay))
        assert relay.app.upstreams.waiting == 6
        pool["a"].let(7)
        assert (await read_answer(honest[0]))[0] == 200


async def test_counting_does_not_wait_while_others_do(pool_with: PoolWith) -> None:
    async with busy(pool_with, 10) as (pool, callers):
        relay = pool.relay
        other = await other_key(relay)
        first = await callers.send(other)
        counting = await callers.send(relay.key, COUNT)
        assert (await refusal(counting))[0] == 503
        own = await callers.send(other, COUNT)  # nobody else waits
        assert relay.app.upstreams.waiting == 2
        pool["a"].let(3)
        assert [(await read_answer(one[0]))[0] for one in (first, own)] == [200, 200]


async def test_counting_gives_its_place_to_a_request(pool_with: PoolWith) -> None:
    async with busy(pool_with, 2) as (pool, callers):
        relay = pool.relay
        counting = await callers.send(relay.key, COUNT)
        keys = [await other_key(relay, f"{name}@example.com") for name in ("ada2", "ben", "cy")]
        honest = [await callers.send(key) for key in keys]
        assert (await refusal(counting))[0] == 503
        assert relay.app.upstreams.waiting == 2
        assert (await refusal(honest[2]))[0] == 503  # each has one place, and there are no more
        pool["a"].let(3)
        assert [(await read_answer(one[0]))[0] for one in honest[:2]] == [200, 200]


async def test_a_full_queue_has_a_place_for_another_caller(
    pool_with: PoolWith,
) -> None:
    async with busy(pool_with, 6) as (pool, callers):
        relay = pool.relay
        greedy = [relay.key, await other_key(relay)]
        taken = [await callers.send(key) for _ in range(3) for key in greedy]
        assert relay.app.upstreams.waiting == 6
        third = await other_key(relay, "third@example.com")
        honest = await callers.send(third)
        assert relay.app.upstreams.waiting == 6
        again = await callers.send(third)
        assert (await refusal(again))[0] == 503  # a second one takes no place from others
        pool["a"].let(7)
        assert (await read_answer(honest[0]))[0] == 200
        statuses = [(await read_answer(reader))[0] for reader, _ in taken]
        assert sorted(statuses) == [200] * 5 + [503]
        assert 503 in statuses[-2:]  # the latest of one of them
