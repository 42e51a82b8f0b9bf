"""The `anthropic` SDK raises the relay's errors and retries the transient ones."""

import asyncio
import time
from typing import Any

import anthropic
import pytest

from relay.accounts import users
from relay.store.keys import live_keys
from tests.clients.conftest import TRUST, Connect
from tests.clients.steering import HI, MODEL, put_script, steered, text_of, upstream_requests
from tests.fakes.live import EMAIL, Live, RelayWith


@pytest.mark.alone
async def test_a_wrong_key_raises_without_retry(connect: Connect, live: Live) -> None:
    sdk = connect(api_key="sk-llmapi-" + "0" * 43, max_retries=5)
    started = time.monotonic()
    with pytest.raises(anthropic.AuthenticationError, match="not known here") as caught:
        await sdk.messages.create(model=MODEL, max_tokens=10, messages=HI)
    assert time.monotonic() - started < 0.5
    error: Any = caught.value.body
    assert error["error"]["type"] == "authentication_error"
    assert error["request_id"] == caught.value.request_id
    assert len(live.log()) == 1


async def test_a_suspended_account_raises_without_retry(connect: Connect, live: Live) -> None:
    await users.suspend(live.app.database, EMAIL, time.time())
    live.app.keys.replace(await live_keys(live.app.database))
    with pytest.raises(anthropic.PermissionDeniedError, match="suspended"):
        await connect(max_retries=5).messages.create(model=MODEL, max_tokens=10, messages=HI)
    assert len(live.log()) == 1


async def test_an_unknown_model_raises_with_the_known_models(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-haiku-4-5"):
        await sdk.messages.create(model="gpt-6", max_tokens=10, messages=HI)


async def test_an_unknown_path_raises(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="POST /v1/messages"):
        await sdk.messages.batches.list()


async def test_a_body_over_the_limit_raises(relay_with: RelayWith) -> None:
    long: Any = [{"role": "user", "content": "x" * 20_000}]
    relay = await relay_with(server={"limits": {"body": 10_000}})
    async with anthropic.AsyncAnthropic(
        api_key=relay.key,
        base_url=relay.url,
        max_retries=0,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as sdk:
        with pytest.raises(anthropic.RequestTooLargeError, match="10000"):
            await sdk.messages.create(model=MODEL, max_tokens=10, messages=long)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "content"),
        ({"extra_body": {"nonsense": 1}}, "nonsense: Extra inputs are not permitted"),
        ({"extra_body": {"model": 7}}, "model"),
    ],
)
async def test_a_bad_request_raises_with_the_refusals_message(
    sdk: anthropic.AsyncAnthropic, changed: dict[str, Any], message: str
) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 10, "messages": HI, **changed}
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match=message) as caught:
            await sdk.messages.create(**asked, stream=stream)
        assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.RequestTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_an_upstreams_status_raises_the_sdks_error(
    sdk: anthropic.AsyncAnthropic, status: int, error: Any, kind: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        await sdk.messages.create(
            model=MODEL,
            max_tokens=10,
            messages=HI,
            stream=stream,
            extra_headers=steered(f"fault=status;status={status};retry-after=3"),
        )
    assert caught.value.status_code == status
    assert caught.value.type == kind
    assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_errors_of_the_operators_account_stay_hidden(
    sdk: anthropic.AsyncAnthropic, status: int
) -> None:
    with pytest.raises(anthropic.ServiceUnavailableError, match="operator") as caught:
        await sdk.messages.create(
            model=MODEL,
            max_tokens=10,
            messages=HI,
            extra_headers=steered(f"fault=status;status={status}"),
        )
    assert caught.value.type == "overloaded_error"


# --- retries ------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["status=529", "status=500", "status=429;retry-after=0"])
async def test_transient_errors_are_retried_by_the_sdk(
    connect: Connect, live: Live, script: str
) -> None:
    await put_script(live, script, "")
    sdk = connect(max_retries=2)
    message = await sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
    assert "Hello there" in text_of(message)
    assert len(upstream_requests(live)) == 2


async def test_a_lasting_overload_ends_after_the_sdks_retries(connect: Connect, live: Live) -> None:
    await put_script(live, *["status=529;retry-after=0"] * 5)
    with pytest.raises(anthropic.OverloadedError):
        await connect(max_retries=2).messages.create(model=MODEL, max_tokens=10, messages=HI)
    assert len(upstream_requests(live)) == 3  # the relay adds no retries of its own


async def test_an_abandoned_request_ends_at_the_upstream(connect: Connect, live: Live) -> None:
    stream = await connect().messages.create(
        model=MODEL,
        max_tokens=100,
        messages=HI,
        stream=True,
        extra_headers=steered("tokens=1000;pace=50"),
    )
    async for event in stream:
        if event.type == "content_block_delta":
            break
    await stream.close()
    assert live.simulator is not None
    started = time.monotonic()
    while not live.simulator.journal.aborted:
        assert time.monotonic() - started < 2
        await asyncio.sleep(0.005)
    assert live.log()[-1]["outcome"] == "caller left"
