"""The `anthropic` SDK works with the simulator as with the real API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2  # the HTTP library of the SDK
import pytest

from .conftest import TRUST, Running
from .samples import WEATHER

MODEL = "claude-sonnet-4-7"
HI: Any = [{"role": "user", "content": "Hello there"}]


def write_file(path: Any, content: Any) -> None:
    """The tool of the loop."""
    Path(path).write_text(content)


@pytest.fixture
async def sdk(upstream: Running) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        api_key="sim-key",
        base_url=upstream.url,
        max_retries=0,
        timeout=10,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as client:
        yield client


def scripted(script: str) -> dict[str, str]:
    return {"x-simulate": script}


async def test_a_message(sdk: anthropic.AsyncAnthropic) -> None:
    message = await sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
    assert message.content[0].type == "text"
    assert "Hello there" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0
    assert message.id.startswith("msg_01")
    assert str(message._request_id).startswith("req_01")


async def test_the_blocking_sdk_gets_a_message_and_a_stream(upstream: Running) -> None:
    def talk() -> tuple[str, str]:
        with anthropic.Anthropic(
            api_key="sim-key", base_url=upstream.url, max_retries=0, timeout=10
        ) as sdk:
            message = sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
            with sdk.messages.stream(model=MODEL, max_tokens=100, messages=HI) as stream:
                text = "".join(stream.text_stream)
            assert message.content[0].type == "text"
            return message.content[0].text, text

    created, streamed = await asyncio.to_thread(talk)
    assert created == streamed


async def test_the_stream_helper_adds_up_to_the_message(sdk: anthropic.AsyncAnthropic) -> None:
    async with sdk.messages.stream(
        model=MODEL, max_tokens=2000, messages=HI, thinking={"type": "adaptive"}
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_message()
    assert {"thinking", "signature", "text", "message_stop"} <= kinds
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.usage.output_tokens > 20


async def test_the_raw_stream_has_every_event(sdk: anthropic.AsyncAnthropic) -> None:
    stream = await sdk.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=HI,
        stream=True,
        extra_headers=scripted("tokens=3"),
    )
    assert [event.type async for event in stream] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_a_tool_loop_writes_a_file(sdk: anthropic.AsyncAnthropic, tmp_path: Path) -> None:
    target = tmp_path / "proof.txt"
    messages: list[Any] = [{"role": "user", "content": f"write hello world to {target}"}]
    tools: list[Any] = [
        {
            "name": "write_file",
            "input_schema": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
                "required": ["path", "content"],
            },
        }
    ]
    turns = 0
    while True:
        turns += 1
        async with sdk.messages.stream(
            model=MODEL,
            max_tokens=2000,
            messages=messages,
            tools=tools,
            thinking={"type": "adaptive"},
        ) as stream:
            message = await stream.get_final_message()
        if message.stop_reason != "tool_use":
            break
        call = message.content[-1]
        assert call.type == "tool_use"
        write_file(**call.input)
        messages += [
            {"role": "assistant", "content": message.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "written"}],
            },
        ]
    assert turns == 2
    assert target.read_text() == "hello world"
    assert message.content[-1].type == "text"
    assert message.content[-1].text == "Done. The tool answered: written"


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_thinking_is_replayed_unchanged_or_refused(
    sdk: anthropic.AsyncAnthropic, display: Any
) -> None:
    async def ask(content: Any) -> anthropic.types.Message:
        return await sdk.messages.create(
            model=MODEL,
            max_tokens=2000,
            messages=[*HI, {"role": "assistant", "content": content}, *HI],
            thinking={"type": "adaptive", "display": display},
        )

    first = await sdk.messages.create(
        model=MODEL,
        max_tokens=2000,
        messages=HI,
        thinking={"type": "adaptive", "display": display},
    )
    block = first.content[0]
    assert block.type == "thinking"
    assert bool(block.thinking) == (display == "summarized")
    await ask(first.content)
    block.thinking += "!"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await ask(first.content)


async def test_parallel_tools(sdk: anthropic.AsyncAnthropic) -> None:
    tools: Any = [WEATHER]
    async with sdk.messages.stream(
        model=MODEL,
        max_tokens=2000,
        messages=HI,
        tools=tools,
        extra_headers=scripted("tool=get_weather;tools=2"),
    ) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["tool_use", "tool_use"]


async def test_counting_agrees_with_usage(sdk: anthropic.AsyncAnthropic) -> None:
    counted = await sdk.messages.count_tokens(model=MODEL, messages=HI)
    message = await sdk.messages.create(model=MODEL, max_tokens=10, messages=HI)
    assert counted.input_tokens == message.usage.input_tokens


async def test_models(sdk: anthropic.AsyncAnthropic) -> None:
    ids = [model.id async for model in sdk.models.list(limit=1000)]
    assert {"claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5"} <= set(ids)
    model = await sdk.models.retrieve("claude-haiku-4-5")
    assert (model.display_name, model.max_tokens) == ("Claude Haiku 4.5", 64000)
    with pytest.raises(anthropic.NotFoundError, match="model: nothing"):
        await sdk.models.retrieve("nothing")


async def test_a_wrong_key(upstream: Running) -> None:
    async with anthropic.AsyncAnthropic(
        api_key="sim-bad-key", base_url=upstream.url, max_retries=0
    ) as sdk:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            await sdk.messages.create(model=MODEL, max_tokens=10, messages=HI)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (413, anthropic.RequestTooLargeError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.OverloadedError),
    ],
)
async def test_each_status_has_its_own_error_in_the_sdk(
    sdk: anthropic.AsyncAnthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        await sdk.messages.create(
            model=MODEL,
            max_tokens=10,
            messages=HI,
            extra_headers=scripted(f"fault=status;status={status};retry-after=3"),
        )
    assert caught.value.response.headers["retry-after"] == "3"


async def stream_with(sdk: anthropic.AsyncAnthropic, script: str) -> str:
    async with sdk.messages.stream(
        model=MODEL, max_tokens=100, messages=HI, extra_headers=scripted(script)
    ) as stream:
        return "".join([piece async for piece in stream.text_stream])


@pytest.mark.parametrize("fault", ["cut", "reset", "truncated-chunk", "no-final-chunk"])
async def test_a_stream_that_is_cut_raises(sdk: anthropic.AsyncAnthropic, fault: str) -> None:
    # Once a stream has started, the SDK passes on the error of its HTTP library.
    with pytest.raises((httpx2.TransportError, anthropic.APIConnectionError)):
        await stream_with(sdk, f"tokens=20;fault={fault};at=9")


async def test_an_error_event_raises(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await stream_with(sdk, "tokens=20;fault=error;at=9")


async def test_a_stream_in_tiny_pieces_is_complete(sdk: anthropic.AsyncAnthropic) -> None:
    complete = await stream_with(sdk, "tokens=20")
    for script in ("split=7", "fault=drip", "fault=storm", "fault=gzip", "pace=400"):
        assert await stream_with(sdk, "tokens=20;" + script) == complete
