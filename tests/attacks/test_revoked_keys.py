"""A key that ends while its request is on its way, or waits, is good for nothing more."""

import asyncio
import time

import pytest

from relay.accounts import keys, users
from relay.store.keys import live_keys
from tests.attacks.honest import callers
from tests.attacks.uploads import (
    PATHS,
    asked,
    chunk,
    head,
    other_key,
    padded,
    refusal,
    several,
)
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.pool import PoolWith
from tests.fakes.until import until

PLANS = [{"id": "free", "max_keys": 10}, {"id": "tiny", "max_keys": 10, "max_concurrency": 1}]


async def change(relay: Live, what: str) -> None:
    """What an operator does to the first account."""
    database, now = relay.app.database, time.time()
    if what == "revoked":
        ada = (await users.find(database, EMAIL)).id
        for key in [key for key in await live_keys(database) if key.user_id == ada]:
            await keys.revoke(database, key.key_id, now)
    elif what == "suspended":
        await users.suspend(database, EMAIL, now)
    elif what == "plan":
        await users.set_plan(database, relay.settings, EMAIL, "tiny")
    await relay.reload_keys()


ENDS = {"revoked": 401, "suspended": 403, "expired": 401, "plan": 200}


async def key_that_is(relay: Live, what: str) -> str:
    """A key that ends within 0.4 s, if that is what is to happen."""
    if what != "expired":
        return relay.key
    now = time.time()
    return await relay.new_key(expires="1m", now=now - 59.6)


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_key_is_looked_up_again_once_its_body_is_complete(
    relay_with: RelayWith, target: str, framing: str, what: str
) -> None:
    relay = await relay_with(plan=PLANS)
    key = await key_that_is(relay, what)
    body = padded(500, target)
    async with connected(relay.port) as (reader, writer):
        if framing == "length":
            first, rest = body[:100], body[100:]
            start = head(key, target=target, length=len(body)) + first
        else:
            start = head(key, target=target) + chunk(body[:100])
            rest = chunk(body[100:]) + b"0\r\n\r\n"
        writer.write(start)
        await asyncio.sleep(0.5 if what == "expired" else 0.05)
        await change(relay, what)
        writer.write(rest)
        status, _, _ = await read_answer(reader)
    assert status == ENDS[what]
    state = relay.app.keys.find({b"x-api-key": key.encode()})
    if what == "plan":
        assert state is not None
        assert state.plan == "tiny"


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("target", [*PATHS, "/v1/messages/count_tokens"])
async def test_a_key_is_looked_up_again_when_its_turn_comes(
    pool_with: PoolWith, target: str, what: str
) -> None:
    pool = await pool_with({"a": {"max_concurrency": 1}}, plan=PLANS)
    relay = pool.relay
    key = await key_that_is(relay, what)
    other = await other_key(relay)
    pool["a"].hold()
    async with several(relay.port, 2) as (first, second):
        first[1].write(request(other))
        await until(lambda: pool["a"].held)
        second[1].write(request(key, asked(target), target=target))
        await until(lambda: relay.app.upstreams.waiting)
        await asyncio.sleep(0.5 if what == "expired" else 0)
        await change(relay, what)
        pool["a"].let(2)
        assert (await read_answer(first[0]))[0] == 200
        assert (await read_answer(second[0]))[0] == ENDS[what]
        if ENDS[what] != 200:
            assert len(pool["a"].came) == 1
    assert pool.upstream("a").in_flight == 0
    relay.app.ledger.sweep(time.time())
    in_flight = sum(state.in_flight for state in relay.app.ledger._key_states.values())
    assert in_flight == len(callers)  # the stream of an honest caller beside, if there is one


async def test_a_new_plan_may_refuse_a_request_whose_turn_comes(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {"max_concurrency": 2}}, plan=PLANS)
    relay = pool.relay
    pool["a"].hold()
    async with several(relay.port, 3) as streams:
        for _, writer in streams:
            writer.write(request(relay.key))
            await asyncio.sleep(0.03)
        assert relay.app.upstreams.waiting == 1
        await change(relay, "plan")  # one request at a time
        pool["a"].let(1)
        status, _, _ = await refusal(streams[2])
        assert status == 429
        pool["a"].let(2)
        for reader, _ in streams[:2]:
            assert (await read_answer(reader))[0] == 200
    assert pool.upstream("a").in_flight == 0
    async with connected(relay.port) as (reader, writer):
        pool["a"].let(1)
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 200
