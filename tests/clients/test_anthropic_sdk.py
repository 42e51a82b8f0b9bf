"""The `anthropic` SDK works with the relay as with the API: only URL and key change."""

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool

from tests.clients.conftest import TRUST, Connect
from tests.clients.steering import HI, MODEL, steered, text_of, upstream_requests
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
NOTE: Any = {
    "name": "write_file",
    "description": "Writes a file.",
    "input_schema": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
}


# --- talking ------------------------------------------------------------------------


async def test_a_message(sdk: anthropic.AsyncAnthropic, live: Live) -> None:
    message = await sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
    assert "Hello there" in text_of(message)
    assert message.model == MODEL
    assert message.stop_reason == "end_turn"
    [line] = live.log()
    assert message._request_id == line["id"]  # the id that users report is in the log
    assert (line["input"], line["output"]) == (
        message.usage.input_tokens,
        message.usage.output_tokens,
    )


async def test_everything_works_without_async(live: Live) -> None:
    def talk() -> list[str]:
        with anthropic.Anthropic(
            api_key=live.key, base_url=live.url, max_retries=0, timeout=10
        ) as sdk:
            message = sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
            with sdk.messages.stream(model=MODEL, max_tokens=100, messages=HI) as stream:
                helped = "".join(stream.text_stream)
                final = stream.get_final_message()
            raw = ""
            for event in sdk.messages.create(model=MODEL, max_tokens=100, messages=HI, stream=True):
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    raw += event.delta.text
            counted = sdk.messages.count_tokens(model=MODEL, messages=HI)
            assert counted.input_tokens == message.usage.input_tokens
            assert MODEL in [model.id for model in sdk.models.list()]
            with pytest.raises(anthropic.NotFoundError):
                sdk.messages.create(model="gpt-6", max_tokens=100, messages=HI)
            return [text_of(message), helped, text_of(final), raw]

    said = await asyncio.to_thread(talk)
    assert len(set(said)) == 1
    assert "Hello there" in said[0]


async def test_the_stream_helper_adds_up_to_the_message(sdk: anthropic.AsyncAnthropic) -> None:
    message = await sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
    async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=HI) as stream:
        pieces = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert len(pieces) > 5
    assert "".join(pieces) == text_of(final) == text_of(message)
    assert final.usage.output_tokens == message.usage.output_tokens
    assert str(stream.request_id).startswith("req_")


async def test_a_raw_stream_has_every_event(sdk: anthropic.AsyncAnthropic) -> None:
    stream = await sdk.messages.create(
        model=MODEL, max_tokens=100, messages=HI, stream=True, extra_headers=steered("tokens=3")
    )
    assert [event.type async for event in stream] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_fifty_concurrent_requests_get_their_own_answers(
    sdk: anthropic.AsyncAnthropic,
) -> None:
    async def ask(number: int) -> str:
        messages: Any = [{"role": "user", "content": f"number {number}."}]
        async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=messages) as stream:
            return text_of(await stream.get_final_message())

    said = await asyncio.gather(*(ask(number) for number in range(50)))
    for number, text in enumerate(said):
        assert f"“number {number}.”" in text


# --- tools and thinking -------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
async def test_a_manual_tool_loop_writes_a_file(
    sdk: anthropic.AsyncAnthropic, tmp_path: Path, streamed: bool
) -> None:
    target = tmp_path / "proof.txt"
    messages: list[Any] = [{"role": "user", "content": f"write hello world to {target}"}]
    asked: Any = {"model": MODEL, "max_tokens": 2000, "messages": messages, "tools": [NOTE]}
    asked["thinking"] = {"type": "adaptive"}
    turns = 0
    while True:
        turns += 1
        if streamed:
            async with sdk.messages.stream(**asked) as stream:
                message = await stream.get_final_message()
        else:
            message = await sdk.messages.create(**asked)
        if message.stop_reason != "tool_use":
            break
        call = message.content[-1]
        assert call.type == "tool_use"
        arguments: Any = call.input
        await asyncio.to_thread(Path(arguments["path"]).write_text, arguments["content"])
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "written"}
        messages += [
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result]},
        ]
    assert turns == 2
    assert target.read_text() == "hello world"
    assert text_of(message) == "Done. The tool answered: written"


async def test_the_tool_runner_writes_a_file(sdk: anthropic.AsyncAnthropic, tmp_path: Path) -> None:
    target = tmp_path / "proof.txt"

    @beta_async_tool
    async def write_file(path: str, content: str) -> str:
        """Writes a file.

        Args:
            path: Where.
            content: What.
        """
        await asyncio.to_thread(Path(path).write_text, content)
        return "written by the runner"

    runner = sdk.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=2000,
        tools=[write_file],
        messages=[{"role": "user", "content": f"write hello world to {target}"}],
    )
    final = await runner.until_done()
    assert target.read_text() == "hello world"
    assert text_of(final) == "Done. The tool answered: written by the runner"


async def test_parallel_tool_calls_get_their_results(sdk: anthropic.AsyncAnthropic) -> None:
    async with sdk.messages.stream(
        model=MODEL,
        max_tokens=2000,
        messages=HI,
        tools=[WEATHER],
        extra_headers=steered("tool=get_weather;tools=3"),
    ) as stream:
        message = await stream.get_final_message()
    calls = [block for block in message.content if block.type == "tool_use"]
    assert len({call.id for call in calls}) == 3
    results: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"rain {index}"}
        for index, call in enumerate(calls)
    ]
    turn: Any = [
        *HI,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    final = await sdk.messages.create(model=MODEL, max_tokens=100, messages=turn, tools=[WEATHER])
    assert "rain 2" in text_of(final)
    del results[1]
    with pytest.raises(anthropic.BadRequestError, match="tool_use"):
        await sdk.messages.create(model=MODEL, max_tokens=100, messages=turn, tools=[WEATHER])


@pytest.mark.parametrize("display", ["summarized", "omitted"])
@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
async def test_thinking_is_replayed_with_its_signature(
    sdk: anthropic.AsyncAnthropic, display: Any, streamed: bool
) -> None:
    asked: Any = {
        "model": MODEL,
        "max_tokens": 2000,
        "thinking": {"type": "adaptive", "display": display},
    }
    if streamed:
        async with sdk.messages.stream(**asked, messages=HI) as stream:
            first = await stream.get_final_message()
    else:
        first = await sdk.messages.create(**asked, messages=HI)
    block = first.content[0]
    assert block.type == "thinking"
    assert bool(block.thinking) == (display == "summarized")
    turn: Any = [*HI, {"role": "assistant", "content": first.content}, *HI]
    second = await sdk.messages.create(**asked, messages=turn)
    assert second.content[-1].type == "text"
    block.signature = block.signature[:-8] + "AAAAAAAA"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await sdk.messages.create(**asked, messages=turn)


# --- counting and models ------------------------------------------------------------


async def test_counting_agrees_with_usage(sdk: anthropic.AsyncAnthropic) -> None:
    counted = await sdk.messages.count_tokens(
        model=MODEL, messages=HI, tools=[WEATHER], system="Be brief."
    )
    message = await sdk.messages.create(
        model=MODEL, max_tokens=10, messages=HI, tools=[WEATHER], system="Be brief."
    )
    assert counted.input_tokens == message.usage.input_tokens > 0


async def test_the_sdk_lists_the_relays_models(sdk: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in sdk.models.list()] == [
        "claude-opus-4-8",
        "claude-sonnet-4-7",
        "claude-haiku-4-5",
    ]
    paged = [model.id async for model in sdk.models.list(limit=1)]  # follows has_more
    assert len(paged) == 3
    model = await sdk.models.retrieve("claude-sonnet-4-7")
    assert (model.id, model.display_name) == (MODEL, "Claude Sonnet 4.7")
    assert (await sdk.models.retrieve("claude-sonnet-4-6")).id == MODEL  # an alias
    with pytest.raises(anthropic.NotFoundError, match="gpt-6"):
        await sdk.models.retrieve("gpt-6")


# --- versions and betas -------------------------------------------------------------


async def test_the_sdk_sends_a_bearer_key_and_the_newest_version(
    sdk: anthropic.AsyncAnthropic, live: Live
) -> None:
    await sdk.messages.create(model=MODEL, max_tokens=10, messages=HI)
    [request] = upstream_requests(live)
    assert request["headers"]["anthropic-version"] == "2026-10-21"
    assert "authorization" not in request["headers"]  # the caller's key stays here
    assert request["headers"]["x-api-key"] != live.key


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@pytest.mark.parametrize("auth", ["x-api-key", "bearer", "both"])
async def test_each_version_passes_with_each_kind_of_key(
    connect: Connect, live: Live, version: str, auth: str
) -> None:
    headers: dict[str, Any] = {"anthropic-version": version}
    if auth == "x-api-key":
        headers |= {"x-api-key": live.key, "authorization": anthropic.Omit()}
    elif auth == "both":  # Claude Code with both of its settings: only one is a key of this relay
        headers |= {"x-api-key": "sk-llmapi-of-something-else"}
    sdk = connect(default_headers=headers)
    message = await sdk.messages.create(model=MODEL, max_tokens=100, messages=HI)
    assert "Hello there" in text_of(message)
    async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=HI) as stream:
        assert text_of(await stream.get_final_message()) == text_of(message)
    for request in upstream_requests(live):
        assert request["headers"]["anthropic-version"] == version
        assert live.key not in str(request)


async def test_system_messages_inside_messages_pass_with_their_beta(
    connect: Connect, live: Live
) -> None:
    turns: Any = [*HI, {"role": "system", "content": "# Environment: a test"}]
    beta = "mid-conversation-tool-changes-2026-07-01"
    sdk = connect(default_headers={"anthropic-version": "2023-06-01"})
    message = await sdk.messages.create(
        model=MODEL, max_tokens=100, messages=turns, extra_headers={"anthropic-beta": beta}
    )
    assert "Hello there" in text_of(message)
    through_beta = await sdk.beta.messages.create(
        model=MODEL, max_tokens=100, messages=turns, betas=[beta]
    )
    assert text_of(through_beta) == text_of(message)
    assert {request["headers"]["anthropic-beta"] for request in upstream_requests(live)} == {beta}
    with pytest.raises(anthropic.BadRequestError, match='Unexpected role "system"'):
        await sdk.messages.create(model=MODEL, max_tokens=100, messages=turns)


async def test_unknown_fields_and_betas_pass(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    async with anthropic.AsyncAnthropic(
        api_key=relay.key,
        base_url=relay.url,
        max_retries=0,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as sdk:
        await sdk.messages.create(
            model=MODEL,
            max_tokens=100,
            messages=HI,
            extra_body={"of_the_future": {"deep": [1, None, "ü"]}},
            extra_headers={"anthropic-beta": "of-2031-01-01", "anthropic-of-the-future": "yes"},
            extra_query={"of": "2031"},
        )
    [seen] = upstream.requests
    assert json.loads(seen.body)["of_the_future"] == {"deep": [1, None, "ü"]}
    assert seen.fields[b"anthropic-beta"] == b"of-2031-01-01"
    assert seen.fields[b"anthropic-of-the-future"] == b"yes"
    assert seen.head.startswith(b"POST /v1/messages?of=2031 HTTP/1.1\r\n")
