"""An exhausted plan stops real clients at once, with the reason and the reset."""

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import anthropic
import pytest

from tests.clients import test_claude_code
from tests.clients.conftest import TRUST
from tests.clients.test_claude_code import Claude
from tests.fakes.live import MODELS, Live, RelayWith

claude = test_claude_code.claude

MODEL = "claude-sonnet-4-7"
HI: Any = [{"role": "user", "content": "Hello there"}]
ONE = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}], "max_keys": 10}]
WEEK = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "7d"}], "max_keys": 10}]
PAID = [{"id": "paid", "name": "Paid", "billing": "per-token"}]
PRICE = {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}
PRICED = [{**model, "price": PRICE} for model in MODELS]


def sdk(relay: Live) -> anthropic.AsyncAnthropic:
    """The client with its defaults: two retries."""
    return anthropic.AsyncAnthropic(
        api_key=relay.key,
        base_url=relay.url,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    )


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_exhausted_window_raises_at_once(relay_with: RelayWith, streamed: bool) -> None:
    relay = await relay_with(plan=ONE)
    async with sdk(relay) as client:
        await client.messages.create(model=MODEL, max_tokens=100, messages=HI)
        started = time.monotonic()
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model=MODEL, max_tokens=100, messages=HI, stream=streamed)
        assert time.monotonic() - started < 0.5
        headers = caught.value.response.headers
        assert headers["x-should-retry"] == "false"
        reset = datetime.fromisoformat(headers["x-ratelimit-reset"])
        wait = (reset - datetime.now(UTC)).total_seconds()
        assert wait - 1 < int(headers["retry-after"]) < wait + 2
        assert "1 request per 5 hours" in caught.value.message
        assert f"resets at {reset:%Y-%m-%d %H:}" in caught.value.message
        assert [line["status"] for line in relay.log()] == [200, 429]  # without a retry


@pytest.mark.alone
async def test_an_empty_balance_raises_at_once(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    async with sdk(relay) as client:
        started = time.monotonic()
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model=MODEL, max_tokens=100, messages=HI)
        assert time.monotonic() - started < 0.5
        assert caught.value.status_code == 402
        assert "balance of this account is used up" in caught.value.message
        assert [line["status"] for line in relay.log()] == [402]


async def test_the_sdk_waits_for_a_limit_per_minute(relay_with: RelayWith) -> None:
    plan = [{"id": "free", "limits": [{"requests": 1, "per": "1s"}]}]
    relay = await relay_with(plan=plan)
    async with sdk(relay) as client:
        for _ in range(2):
            await client.messages.create(model=MODEL, max_tokens=100, messages=HI)
        assert [line["status"] for line in relay.log()] == [200, 429, 200]


@pytest.mark.node
@pytest.mark.parametrize(
    "plan", [pytest.param(ONE, id="5h"), pytest.param(WEEK, id="7d", marks=pytest.mark.clients)]
)
async def test_an_exhausted_window_stops_claude_code_with_its_reset(
    relay_with: RelayWith, claude: Claude, plan: list[dict[str, Any]]
) -> None:
    relay = await relay_with(plan=plan)
    async with sdk(relay) as client:
        await client.messages.create(model=MODEL, max_tokens=100, messages=HI)
        ended = await claude(relay, "Say hello", "--output-format", "json")
        statuses = [line["status"] for line in relay.log()]
    print(f"{ended.seconds:.1f} s: {ended.out} {ended.err}")
    assert ended.status != 0
    assert ended.seconds < 5
    result = json.loads(ended.out)
    assert result["is_error"]
    assert re.search(r"resets at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", result["result"])
    assert statuses == [200, 429]


@pytest.mark.node
async def test_an_empty_balance_stops_claude_code_at_once(
    relay_with: RelayWith, claude: Claude
) -> None:
    relay = await relay_with(plan=PAID, model=PRICED)
    ended = await claude(relay, "Say hello")
    statuses = [line["status"] for line in relay.log()]
    print(f"{ended.seconds:.1f} s: {ended.out} {ended.err}")
    assert ended.status != 0
    assert ended.seconds < 5
    assert "balance" in ended.out
    assert statuses == [402]
