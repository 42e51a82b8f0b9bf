"""What is set for a key: models, addresses, limits of its own, rotation, deletion."""

import asyncio
import json
import time
from typing import Any

import pytest

from relay.accounts import keys, users
from relay.accounts.key_rules import rules
from relay.store.keys import live_keys
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.gateway import metering
from tests.gateway.metering import PRICED
from tests.gateway.refused import ask, is_refusal

FREE = metering.plan({"requests": 40, "per": "5h"})


async def restrict(relay: Live, **stated: Any) -> str:
    """Set rules for the first key; returns its id."""
    [key] = await live_keys(relay.app.database)
    await keys.set_rules(relay.app.database, key.key_id, rules(**stated), time.time())
    await relay.reload_keys()
    return key.key_id


async def test_a_refused_model_is_answered_with_those_allowed(live: Live) -> None:
    await restrict(live, models=["claude-opus-*", "claude-haiku-4-5"])
    reply = await ask(live, request(live.key))
    words = ("claude-sonnet-4-7", "claude-opus-*, claude-haiku-4-5")
    assert is_refusal(reply, 403, "permission_error", *words)
    for model in ("claude-opus-4-8", "claude-haiku-4-5"):
        assert (await metering.ask(live, body={**BODY, "model": model}))[0] == 200


async def test_an_alias_is_allowed_with_its_model(live: Live) -> None:
    await restrict(live, models=["claude-sonnet-4-7"])
    assert (await metering.ask(live, body={**BODY, "model": "claude-sonnet-4-6"}))[0] == 200


async def test_an_openai_caller_reads_a_refused_model_in_its_own_shape(live: Live) -> None:
    await restrict(live, models=["claude-opus-*"])
    for target in ("/v1/chat/completions", "/v1/responses"):
        body = {"model": "claude-sonnet-4-7", "input": "hi", "messages": BODY["messages"]}
        status, _, octets = await metering.ask(live, body=body, target=target)
        error = json.loads(octets)["error"]
        assert (status, error["param"], error["code"]) == (403, "model", "permission_denied")
        assert "claude-opus-*" in error["message"]


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (["127.0.0.1"], True),
        (["10.0.0.0/8", "127.0.0.0/8"], True),
        (["192.0.2.0/24"], False),
        (["2001:db8::/32", "::1"], False),
    ],
)
async def test_a_key_is_used_from_its_addresses_alone(
    live: Live, addresses: list[str], allowed: bool
) -> None:
    await restrict(live, addresses=addresses)
    for octets in (request(live.key), request(live.key, b"", method="GET", target="/v1/models")):
        async with connected(live.port) as (reader, writer):
            writer.write(octets)
            status, _, body = await read_answer(reader)
        assert status == (200 if allowed else 403)
        if not allowed:
            assert addresses[0] in body.decode()
            assert "127.0.0.1" in body.decode()


async def test_the_address_behind_a_trusted_proxy_counts(relay_with: RelayWith) -> None:
    relay = await relay_with(server={"trusted_proxies": ["127.0.0.1"]})
    await restrict(relay, addresses=["192.0.2.0/24"])
    for caller, status in (("192.0.2.9", 200), ("198.51.100.1", 403)):
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, fields=f"x-forwarded-for: {caller}\r\n"))
            assert (await read_answer(reader))[0] == status


async def test_a_disabled_key_is_refused_until_it_is_enabled(live: Live) -> None:
    [key] = await live_keys(live.app.database)
    await keys.disable(live.app.database, key.key_id, time.time())
    await live.reload_keys()
    assert is_refusal(await ask(live, request(live.key)), 403, "permission_error", "Enable it")
    await keys.enable(live.app.database, key.key_id, time.time())
    await live.reload_keys()
    assert (await metering.ask(live))[0] == 200


async def test_a_suspension_says_its_reason(live: Live) -> None:
    await users.suspend(live.app.database, EMAIL, time.time(), "invoice 7 is unpaid")
    await live.reload_keys()
    reply = await ask(live, request(live.key))
    assert is_refusal(reply, 403, "permission_error", "suspended: invoice 7 is unpaid. Ask")


async def test_both_keys_of_a_rotation_work_for_its_grace(live: Live) -> None:
    [key] = await live_keys(live.app.database)
    now = time.time()
    first = await keys.rotate(live.app.database, live.settings, key.key_id, grace="1h", now=now)
    await live.reload_keys()
    for text in (live.key, first.key.reveal()):
        assert (await metering.ask(live, text))[0] == 200
    rows = await metering.settled(live, 2)
    assert {row["key_id"] for row in rows} == {key.key_id}
    ended = await keys.rotate(live.app.database, live.settings, key.key_id, grace="1s", now=now - 2)
    await live.reload_keys()
    assert (await metering.ask(live, live.key))[0] == 401  # of the rotation before: ended
    assert (await metering.ask(live, first.key.reveal()))[0] == 401  # its grace is over
    assert (await metering.ask(live, ended.key.reveal()))[0] == 200


async def test_a_rotation_keeps_the_use_of_limits(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=FREE)
    await metering.ask(relay)
    [key] = await live_keys(relay.app.database)
    issued = await keys.rotate(
        relay.app.database, relay.settings, key.key_id, grace="0", now=time.time()
    )
    await relay.reload_keys()
    _, fields, _ = await metering.ask(relay, issued.key.reveal())
    assert metering.left(fields) == 38


async def test_a_deleted_key_is_refused_within_a_second(live: Live) -> None:
    [key] = await live_keys(live.app.database)
    assert (await metering.ask(live))[0] == 200
    await keys.delete(live.app.database, key.key_id, time.time())
    async with asyncio.timeout(1):
        while (await metering.ask(live))[0] == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    [row] = (await metering.settled(live, len(live.log()) - 1))[:1]
    assert row["key_id"] == key.key_id


async def test_own_limits_stand_beside_those_of_the_plan(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=FREE)
    await restrict(relay, limits=["requests=3/1d"])
    answers = [await metering.ask(relay) for _ in range(5)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
    _, fields, body = answers[-1]
    assert "The limit of this key is reached: 3 requests per day." in body.decode()
    assert fields[b"x-should-retry"] == b"false"
    assert metering.left(fields) == 37  # nothing was taken from the plan


async def test_a_crowd_gets_exactly_what_the_key_may(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=FREE)
    await restrict(relay, limits=["requests=7/1d"])
    async with metering.crowd(relay, 60) as pairs:
        answers = await metering.all_at_once(pairs, request(relay.key))
    assert sorted(status for status, _, _ in answers) == [200] * 7 + [429] * 53
    _, fields, _ = await metering.ask(relay)
    assert metering.left(fields) == 33


async def test_money_of_a_key_is_settled_by_the_cost(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=FREE, model=PRICED)
    key_id = await restrict(relay, limits=["money=1/1d"])
    await metering.ask(relay)
    [row] = await metering.settled(relay, 1)
    [bucket] = relay.app.ledger.counters_of("own", key_id).buckets
    assert bucket.used_units(int(time.time() * 1000)) == row["cost_micro"] > 0
    await restrict(relay, limits=["money=0.0001/1d"])
    assert (await metering.ask(relay))[0] == 429  # it is used up
    [account] = [row["user_id"]]
    assert relay.app.ledger.balance(account).charged == 0  # the plan bills nothing


async def test_a_key_has_its_own_number_of_requests_at_once(relay_with: RelayWith) -> None:
    relay = await relay_with()
    await restrict(relay, max_concurrency=1)
    async with connected(relay.port) as (reader, writer):
        writer.write(
            request(relay.key, metering.STREAM, fields="x-simulate: tokens=50;pace=20\r\n")
        )
        await reader.readuntil(b"message_start")
        status, _, body = await metering.ask(relay)
        assert status == 429
        assert b"This key allows 1 request at once. Please" in body


async def test_own_limits_survive_a_restart_of_their_state(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=FREE)
    key_id = await restrict(relay, limits=["requests=3/1d"])
    await metering.ask(relay)

    def kept() -> bool:
        with metering.beside(relay) as connection:
            row = connection.execute("SELECT used FROM bucket WHERE owner = ? AND scope = 'own'",
                                     (key_id,)).fetchone()  # fmt: skip
            return row is not None and row["used"] == 1

    await until(kept)
