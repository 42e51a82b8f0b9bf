"""Errors of the Responses API as the `openai` SDK raises them."""

import time
from typing import Any

import openai
import pytest

from tests.clients.conftest import ConnectOpenAI, openai_client
from tests.clients.responses import PICTURE, STREAMED, WEATHER, pieces
from tests.clients.steering import put_script, steered, upstream_requests
from tests.clients.test_openai_sdk import HI, MODEL
from tests.fakes.live import Live, RelayWith


async def test_a_wrong_key_raises_at_once(connect_openai: ConnectOpenAI, live: Live) -> None:
    sdk = connect_openai(api_key="sk-llmapi-nobody", max_retries=5)
    with pytest.raises(openai.AuthenticationError) as caught:
        await sdk.responses.create(model=MODEL, input=HI)
    assert (caught.value.code, caught.value.status_code) == ("invalid_api_key", 401)
    [line] = live.log()
    assert caught.value.request_id == line["id"]


async def test_an_unknown_model_raises_with_the_known_models(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="claude-haiku-4-5") as caught:
        await gpt.responses.create(model="gpt-6", input=HI)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0]"),
        ({"tools": [WEATHER, {"type": "mcp", "server_label": "a"}]}, "tools[1]"),
        ({"tool_choice": {"type": "file_search"}, "tools": [WEATHER]}, "tool_choice"),
        ({"input": [{"role": "user", "content": [{"type": "noise"}]}]}, "input"),
        ({"input": [*HI, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"input": [{"role": "user", "content": [{**PICTURE, "image_url": "ftp://a"}]}]}, "input"),
    ],
)
async def test_a_bad_request_raises_and_names_the_parameter(
    gpt: openai.AsyncOpenAI, live: Live, changed: dict[str, Any], param: str
) -> None:
    asked: Any = {"model": MODEL, "input": HI, **changed}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await gpt.responses.create(**asked, stream=stream)
        assert caught.value.type == "invalid_request_error"
        assert str(caught.value.param).startswith(param)
    assert upstream_requests(live) == []


@STREAMED
async def test_an_unstored_response_cannot_be_continued(
    gpt: openai.AsyncOpenAI, live: Live, streamed: bool
) -> None:
    first = await gpt.responses.create(model=MODEL, input=HI, store=True)
    assert first.to_dict()["store"] is False  # this relay stores nothing
    with pytest.raises(openai.BadRequestError) as caught:
        await gpt.responses.create(
            model=MODEL, input="And?", previous_response_id=first.id, stream=streamed
        )
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"
    assert len(upstream_requests(live)) == 1


async def test_an_upstreams_refusal_raises_with_its_message(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="x-simulate: 'nonsense=1'"):
        await gpt.responses.create(model=MODEL, input=HI, extra_headers=steered("nonsense=1"))


@STREAMED
async def test_an_exhausted_plan_raises_without_retry(
    relay_with: RelayWith, streamed: bool
) -> None:
    plan = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}]}]
    relay = await relay_with(plan=plan)
    async with openai_client(relay, max_retries=2) as sdk:
        await sdk.responses.create(model=MODEL, input=HI)
        with pytest.raises(openai.RateLimitError, match="1 request per 5 hours") as caught:
            await sdk.responses.create(model=MODEL, input=HI, stream=streamed)
        error: Any = caught.value.body
        assert error["type"] == "usage_limit_reached"
        wait = int(caught.value.response.headers["retry-after"])
        assert wait > 60
        assert abs(error["resets_at"] - time.time() - wait) < 3
        assert [line["status"] for line in relay.log()] == [200, 429]


@pytest.mark.parametrize("fault", ["fault=error;at=9", "fault=cut;at=9", "fault=reset;at=9"])
async def test_a_broken_stream_ends_with_an_error(gpt: openai.AsyncOpenAI, fault: str) -> None:
    stream = await gpt.responses.create(
        model=MODEL, input=HI, stream=True, extra_headers=steered(f"tokens=20;{fault}")
    )
    events = [event async for event in stream]  # ends cleanly, with an error as its last event
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last: Any = events[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.code == "server_error"
    assert ("Overloaded" if "error" in fault else "broke off") in last.response.error.message
    assert len(pieces(events, "output_text")) > 3
    kinds = {event.type for event in events}
    assert kinds.isdisjoint({"response.completed", "response.incomplete", "error"})


async def test_transient_errors_are_retried_by_the_sdk(
    connect_openai: ConnectOpenAI, live: Live
) -> None:
    await put_script(live, "status=529", "")
    sdk = connect_openai(max_retries=2)
    response = await sdk.responses.create(model=MODEL, input=HI)
    assert "Hello there" in response.output_text
    assert len(upstream_requests(live)) == 2
