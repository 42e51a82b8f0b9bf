"""A prepaid balance: credited, held, charged, and never overdrawn by concurrent requests."""

import asyncio
import json
import re
import time
from collections import Counter
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, request
from tests.fakes.live import RelayWith
from tests.fakes.upstream import Seen, UpstreamWith
from tests.gateway.metering import (
    CACHED,
    COST,
    PAID,
    PRICED,
    all_at_once,
    ask,
    beside,
    credit,
    crowd,
    pay,
    settled,
)
from tests.quota.rows import balance_of


async def test_a_credit_is_in_force_within_a_second(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    status, fields, body = await ask(relay)
    assert status == 402
    assert json.loads(body)["error"]["type"] == "billing_error"
    assert "balance of this account is used up" in json.loads(body)["error"]["message"]
    assert fields[b"x-should-retry"] == b"false"
    assert b"retry-after" not in fields
    await pay(relay, 1_000_000)
    started = time.monotonic()
    async with asyncio.timeout(1):
        while (await ask(relay))[0] != 200:  # noqa: ASYNC110 - each asks anew
            await asyncio.sleep(0.01)
    print(f"paid in after {time.monotonic() - started:.2f} s")


async def test_concurrent_requests_cannot_overdraw_a_balance(relay_with: RelayWith) -> None:
    paid = 10 * COST + COST // 2
    relay = await relay_with(plan=PAID, model=PRICED)
    await credit(relay, paid)
    octets = request(relay.key, fields="x-simulate: delay=0.3;tokens=100\r\n")
    async with crowd(relay, 100) as pairs:
        given = await all_at_once(pairs, octets)
    assert Counter(status for status, _, _ in given) == {200: 10, 429: 90}
    for status, fields, body in given:
        if status == 429:  # held for running requests, so possibly free soon
            assert fields[b"retry-after"] == b"5"
            assert b"held for requests that are running" in body
    answered = 10
    while (status := (await ask(relay, script="tokens=100"))[0]) == 200:
        answered += 1
    assert status == 402
    rows = await settled(relay, answered)
    with beside(relay) as connection:
        lines = list(connection.execute("SELECT * FROM statement ORDER BY id"))
        [row] = connection.execute("SELECT credited, charged, micro FROM balance")
    assert tuple(row) == (paid, sum(row["cost_micro"] for row in rows), row["micro"])
    assert row["micro"] == balance_of(relay.app.ledger, lines[0]["user_id"])
    assert 0 <= row["micro"] < COST
    assert lines[0]["amount_micro"] == paid
    charges = {line["request_id"]: -line["amount_micro"] for line in lines[1:]}
    assert charges == {row["id"]: row["cost_micro"] for row in rows}
    after = 0
    for line in lines:
        after += line["amount_micro"]
        assert line["balance_after"] == after >= 0


async def test_a_failed_request_is_not_charged(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    await credit(relay, COST)
    for script in ("status=529", "status=400", "fault=close"):
        assert (await ask(relay, script=script))[0] in (529, 400, 502)
    await settled(relay, 3)
    assert (await ask(relay))[0] == 200  # the balance is untouched
    with beside(relay) as connection:
        [[charges]] = connection.execute("SELECT count(*) FROM statement WHERE kind='charge'")
    assert charges <= 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({**BODY, "max_tokens": 1}, "日本語のとても長い文章です。" * 500),
        (CACHED, "x"),
        ({**BODY, "max_tokens": 1}, "y" * 40_000),
    ],
    ids=["dense", "cached", "long"],
)
async def test_the_amount_held_covers_the_cost(
    relay_with: RelayWith, body: dict[str, Any], text: str
) -> None:
    body = {**body, "messages": [{"role": "user", "content": text}]}
    octets = json.dumps(body, ensure_ascii=False).encode()
    relay = await relay_with(plan=PAID, model=PRICED)
    await credit(relay, 1)
    status, _, refusal = await ask(relay, body=octets)
    stated = re.search(rb"which may cost \$([0-9.]+);", refusal)
    assert status == 402
    assert stated is not None, refusal
    held = round(float(stated[1]) * 1_000_000)
    await credit(relay, held - 1)
    assert (await ask(relay, body=octets))[0] == 200  # the balance covers just this one
    row = (await settled(relay, 1))[0]
    assert 0 < row["cost_micro"] <= held
    await credit(relay, row["cost_micro"])
    assert (await ask(relay, body=octets))[0] == 200  # nothing is held after the first


LINKED = {**BODY, "max_tokens": 1, "messages": [{"role": "user", "content": [
    {"type": "document", "source": {"type": "url", "url": "https://example.com/long.pdf"}},
]}]}  # fmt: skip


async def test_a_linked_document_is_priced_as_a_full_context(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    await credit(relay, 100_000)
    status, _, body = await ask(relay, body=LINKED)
    assert (status, b"which may cost $" in body) == (402, True)


@pytest.mark.parametrize("count", [-1_000_000, 10**15, 2**70])
async def test_impossible_token_counts_change_no_balance(
    upstream_with: UpstreamWith, relay_with: RelayWith, count: int
) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        usage = {"input_tokens": count, "output_tokens": count}
        message = {"type": "message", "model": "m", "content": [], "usage": usage}
        writer.write(answers.sized(json.dumps(message).encode()))

    upstream = await upstream_with(odd)
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 10 * COST)
    assert (await ask(relay))[0] == 200
    [row] = await settled(relay, 1)
    assert (row["rule"], row["input"], row["output"]) == ("reserved", None, None)
    assert 0 < row["cost_micro"] <= COST
    with beside(relay) as connection:
        [[micro]] = connection.execute("SELECT micro FROM balance")
        [[user]] = connection.execute("SELECT id FROM users")
    assert micro == 10 * COST - row["cost_micro"] == balance_of(relay.app.ledger, user)
