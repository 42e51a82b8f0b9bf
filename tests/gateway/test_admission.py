"""A plan admits exactly as many requests as it has left."""

import asyncio
import math
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from relay.quota.plans import COUNTS_PER_MINUTE
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import RelayWith
from tests.gateway.metering import (
    COUNT,
    FREE,
    HOURS,
    STREAM,
    all_at_once,
    ask,
    crowd,
    left,
    moment,
    plan,
    refusal,
    settled,
)

CROWD = 1000


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.thorough)])
async def test_concurrent_requests_use_exactly_the_remaining_quota(
    relay_with: RelayWith, rounds: int
) -> None:
    relay = await relay_with(plan=plan(*FREE))
    async with crowd(relay, CROWD) as pairs:
        started = time.monotonic()
        for _ in range(rounds):
            key = await relay.new_key()
            before = time.time()
            given = await all_at_once(pairs, request(key))
            after = time.time()
            assert Counter(status for status, _, _ in given) == {200: 40, 429: 960}
            [reset] = {fields[b"x-ratelimit-reset"] for _, fields, _ in given}
            assert before - 0.002 <= moment(reset) - HOURS <= after
            named = datetime.fromtimestamp(math.ceil(moment(reset)), UTC)
            day, _, hour = f"{named:%Y-%m-%d %H:%M:%S}".partition(" ")
            for answer in given:
                if answer[0] != 429:
                    continue
                _, message = refusal(answer)
                assert f"40 requests per 5 hours. It resets at {day} {hour} UTC, in " in message
                assert answer[1][b"x-ratelimit-remaining"] == b"0"
                wait = int(answer[1][b"retry-after"])
                assert moment(reset) - after <= wait <= moment(reset) - before + 1
        took = time.monotonic() - started
        await settled(relay, 40 * rounds)  # refused requests leave no row
        assert relay.simulator is not None
        assert relay.simulator.journal.requests == 40 * rounds
    print(f"{rounds} rounds of {CROWD} at once in {took:.1f} s")


async def test_two_limits_admit_as_many_as_the_smaller_allows(relay_with: RelayWith) -> None:
    limits = [{"requests": 40, "per": "5h"}, {"requests": 50, "per": "7d"}]
    relay = await relay_with(plan=plan(*limits))
    async with crowd(relay, 200) as pairs:
        given = await all_at_once(pairs[:30], request(relay.key))
        assert Counter(status for status, _, _ in given) == {200: 30}
        given = await all_at_once(pairs, request(relay.key))
        assert Counter(status for status, _, _ in given) == {200: 10, 429: 190}
        for answer in given:
            if answer[0] == 429:  # only the smaller limit is exhausted
                assert "40 requests per 5 hours" in refusal(answer)[1]
                assert answer[1][b"anthropic-ratelimit-unified-7d-utilization"] == b"0.8"


async def test_a_refusal_names_the_limit_that_resets_last(relay_with: RelayWith) -> None:
    limits = [{"requests": 4, "per": "5h"}, {"requests": 4, "per": "7d"}]
    relay = await relay_with(plan=plan(*limits))
    for _ in range(4):
        assert (await ask(relay))[0] == 200
    answer = await ask(relay)
    reset, message = refusal(answer)
    assert "4 requests per week" in message
    assert answer[1][b"anthropic-ratelimit-unified-representative-claim"] == b"seven_day"
    assert reset == pytest.approx(time.time() + 7 * 86_400, abs=3)


async def test_keys_of_an_account_share_the_accounts_quota(relay_with: RelayWith) -> None:
    shared = plan({"requests": 40, "per": "5h"}, enforce="account")
    relay = await relay_with(plan=shared)
    async with crowd(relay, 300) as pairs:
        mine = [request(relay.key), *[request(await relay.new_key()) for _ in range(4)]]
        given = await all_at_once(pairs, *mine)
        assert Counter(status for status, _, _ in given) == {200: 40, 429: 260}
        for answer in given:
            if answer[0] == 429:
                assert "shared by all keys of this account" in refusal(answer)[1]
        other = "eve@example.com"
        await relay.create_user(other)
        key = await relay.new_key(other)
        assert left((await ask(relay, key))[1]) == 39  # another account has its own


async def test_the_plan_caps_concurrent_requests(relay_with: RelayWith) -> None:
    at_once = plan({"requests": 100, "per": "5h"}, max_concurrency=5)
    relay = await relay_with(plan=at_once)
    async with crowd(relay, 50) as pairs:
        given = await all_at_once(pairs, request(relay.key, fields="x-simulate: delay=0.2\r\n"))
        assert Counter(status for status, _, _ in given) == {200: 5, 429: 45}
        for status, fields, body in given:
            if status == 429:  # transient: clients retry by themselves
                assert b"x-should-retry" not in fields
                assert fields[b"retry-after"] == b"5"
                assert b"5 requests at once per key" in body
                assert fields[b"anthropic-ratelimit-unified-status"] == b"allowed"
        status, fields, _ = await ask(relay)  # an ended request frees its place
        assert (status, left(fields)) == (200, 94)


async def test_a_limit_per_minute_asks_for_a_retry_and_refills(relay_with: RelayWith) -> None:
    limits = [{"requests": 100, "per": "5h"}, {"requests": 2, "per": "2s"}]
    relay = await relay_with(plan=plan(*limits))
    for _ in range(2):
        assert (await ask(relay))[0] == 200
    status, fields, body = await ask(relay)
    assert (status, fields[b"retry-after"]) == (429, b"1")
    assert b"x-should-retry" not in fields
    assert b"Please try again in 1s" in body
    assert left(fields) == 98
    await asyncio.sleep(1)
    assert (await ask(relay))[0] == 200


async def test_counting_tokens_is_free_and_has_its_own_rate_limit(relay_with: RelayWith) -> None:
    octets = request(None, COUNT, target="/v1/messages/count_tokens")
    relay = await relay_with(plan=plan({"requests": 1, "per": "5h"}))
    octets = request(relay.key, COUNT, target="/v1/messages/count_tokens")
    assert (await ask(relay))[0] == 200  # uses the plan's only request
    async with crowd(relay, COUNTS_PER_MINUTE + 100) as pairs:
        given = await all_at_once(pairs, octets)
    count = Counter(status for status, _, _ in given)
    assert COUNTS_PER_MINUTE <= count[200] < COUNTS_PER_MINUTE + 60
    assert count[200] + count[429] == len(given)
    for status, fields, body in given:
        assert left(fields) == 0  # unchanged by counting
        if status == 429:
            assert b"Too many requests to count tokens" in body
            assert 1 <= int(fields[b"retry-after"]) <= 2
            assert b"x-should-retry" not in fields
    assert len(await settled(relay, 1)) == 1


async def test_the_remaining_quota_never_grows_within_a_window(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*FREE))
    seen, ends = [], set()
    async with connected(relay.port) as (reader, writer):
        for number in range(45):
            body = STREAM if number % 3 else BODY
            writer.write(request(relay.key, body))
            _, fields, _ = await read_answer(reader)
            seen.append(left(fields))
            ends.add(fields[b"x-ratelimit-reset"])
    assert seen == [*range(39, -1, -1), 0, 0, 0, 0, 0]
    assert len(ends) == 1
