"""`GET /v1/usage`: a key sees its own limits, balance and tokens, and pays nothing for it."""

import json
from datetime import datetime
from typing import Any

from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.gateway.metering import PRICED, plan, settled

LIMITS = ({"requests": 40, "per": "5h"}, {"requests": 200, "per": "7d"})


async def show(relay: Live, key: str | None = None, target: str = "/v1/usage") -> tuple[int, Any]:
    octets = request(key or relay.key, b"", target=target, method="GET")
    async with connected(relay.port) as (reader, writer):
        writer.write(octets)
        status, _, payload = await read_answer(reader)
    return status, json.loads(payload)


async def ask(relay: Live) -> None:
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, BODY))
        assert (await read_answer(reader))[0] == 200


async def test_a_key_sees_what_it_has_used(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*LIMITS))
    await ask(relay)
    [row] = await settled(relay, 1)
    for target in ("/v1/usage", "/usage", "/v1/usage/"):
        status, document = await show(relay, target=target)
        assert status == 200
    hours, week = document["limits"]
    assert (hours["used"], hours["limit"], hours["remaining"]) == (1, 40, 39)
    assert (week["used"], week["limit"], week["remaining"]) == (1, 200, 199)
    assert (hours["kind"], hours["period_seconds"]) == ("requests", 18_000)
    assert datetime.fromisoformat(hours["reset"]).tzinfo is not None
    assert document["balance_usd"] is None
    today = document["today"]
    assert today["requests"] == 1
    assert (today["input_tokens"], today["output_tokens"]) == (row["input"], row["output"])


async def test_showing_the_usage_costs_nothing(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan({"requests": 3, "per": "1m"}))
    for _ in range(10):
        status, document = await show(relay)
        assert (status, document["limits"][0]["remaining"]) == (200, 3)


async def test_a_prepaid_key_sees_its_balance(relay_with: RelayWith) -> None:
    prepaid = [{"id": "free", "name": "Prepaid", "billing": "per-token"}]
    relay = await relay_with(plan=prepaid, model=PRICED)
    assert (await show(relay))[1]["balance_usd"] == 0.0


async def test_another_keys_tokens_are_not_shown(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*LIMITS))
    await ask(relay)
    await settled(relay, 1)
    status, document = await show(relay, await relay.new_key())
    assert (status, document["today"]["requests"]) == (200, 0)


async def test_the_usage_needs_a_key(live: Live) -> None:
    assert (await show(live, "sk-llmapi-nobody"))[0] == 401
