"""The `openai` SDK works with the relay as with the API: only base URL and key change."""

import asyncio
import base64
import json
import time
from enum import Enum
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import ConnectOpenAI, openai_client
from tests.clients.steering import put_script, steered, upstream_requests
from tests.fakes.live import Live, RelayWith

MODEL = "claude-sonnet-4-7"
HI: Any = [{"role": "user", "content": "Hello there"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "strict": True,  # required by the SDK's helpers
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PICTURE_TOKENS = 1500  # of an image or a document at the simulated upstream
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
PAPER = base64.b64encode(b"%PDF-1.4\n" + bytes(60)).decode()


def counts(usage: Any) -> tuple[int, int, int]:
    """The token counts without cache hits, which differ between requests."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


# --- talking ------------------------------------------------------------------------


async def test_a_completion(gpt: openai.AsyncOpenAI, live: Live) -> None:
    answer = await gpt.chat.completions.create(model=MODEL, messages=HI)
    [choice] = answer.choices
    assert "“Hello there”" in (choice.message.content or "")
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert (answer.model, answer.object) == (MODEL, "chat.completion")
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 5
    usage = answer.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    [line] = live.log()
    assert answer._request_id == line["id"]  # the id that users report is in the log
    prompt = line["input"] + line["cache_read"] + line["cache_write"]
    assert (prompt, line["output"]) == (usage.prompt_tokens, usage.completion_tokens)


async def test_everything_works_without_async(live: Live) -> None:
    def talk() -> list[str | None]:
        with openai.OpenAI(
            api_key=live.key, base_url=f"{live.url}/v1", max_retries=0, timeout=10
        ) as sdk:
            chat = sdk.chat.completions
            answer = chat.create(model=MODEL, messages=HI)
            with chat.stream(model=MODEL, messages=HI) as stream:
                for _ in stream:
                    pass
                final = stream.get_final_completion()
            raw = "".join(
                chunk.choices[0].delta.content or ""
                for chunk in chat.create(model=MODEL, messages=HI, stream=True)
            )
            assert MODEL in [model.id for model in sdk.models.list()]
            with pytest.raises(openai.NotFoundError):
                chat.create(model="gpt-6", messages=HI)
            return [answer.choices[0].message.content, final.choices[0].message.content, raw]

    said = await asyncio.to_thread(talk)
    assert len(set(said)) == 1
    assert "Hello there" in (said[0] or "")


async def test_a_raw_stream_is_one_answer_in_chunks(gpt: openai.AsyncOpenAI) -> None:
    answer = await gpt.chat.completions.create(model=MODEL, messages=HI)
    stream = await gpt.chat.completions.create(
        model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in [*chunks, last]}) == 1
    assert last.choices == []
    assert counts(last.usage) == counts(answer.usage)
    choices = [chunk.choices[0] for chunk in chunks]
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    said = "".join(choice.delta.content or "" for choice in choices)
    assert said == answer.choices[0].message.content


async def test_a_stream_has_usage_only_on_request(gpt: openai.AsyncOpenAI) -> None:
    stream = await gpt.chat.completions.create(model=MODEL, messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_the_stream_helper_adds_up_to_the_completion(gpt: openai.AsyncOpenAI) -> None:
    answer = await gpt.chat.completions.create(model=MODEL, messages=HI)
    async with gpt.chat.completions.stream(
        model=MODEL, messages=HI, stream_options={"include_usage": True}
    ) as stream:
        pieces = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert len(pieces) > 5
    assert "".join(pieces) == final.choices[0].message.content == answer.choices[0].message.content
    assert counts(final.usage) == counts(answer.usage)


async def test_twenty_concurrent_requests_get_their_own_answers(gpt: openai.AsyncOpenAI) -> None:
    async def ask(number: int) -> str:
        messages: Any = [{"role": "user", "content": f"number {number}."}]
        async with gpt.chat.completions.stream(model=MODEL, messages=messages) as stream:
            final = await stream.get_final_completion()
        return final.choices[0].message.content or ""

    said = await asyncio.gather(*(ask(number) for number in range(20)))
    for number, text in enumerate(said):
        assert f"“number {number}.”" in text


async def test_the_sdk_lists_the_relays_models(gpt: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in gpt.models.list()] == [
        "claude-opus-4-8",
        "claude-sonnet-4-7",
        "claude-haiku-4-5",
    ]
    model = await gpt.models.retrieve(MODEL)
    assert (model.id, model.object) == (MODEL, "model")
    with pytest.raises(openai.NotFoundError, match="gpt-6"):
        await gpt.models.retrieve("gpt-6")


# --- tools --------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
async def test_a_tool_loop_makes_parallel_calls(gpt: openai.AsyncOpenAI, streamed: bool) -> None:
    messages: list[Any] = [*HI]

    async def turn(script: str, choice: Any) -> Any:
        asked: Any = {
            "model": MODEL,
            "messages": messages,
            "tools": [WEATHER],
            "tool_choice": choice,
            "extra_headers": steered(script),
        }
        if not streamed:
            return (await gpt.chat.completions.create(**asked)).choices[0]
        async with gpt.chat.completions.stream(**asked) as stream:
            return (await stream.get_final_completion()).choices[0]

    ids = set()
    results = 0
    for calls, choice in ((3, "auto"), (2, "required")):
        ended = await turn(f"tool=get_weather;tools={calls}", choice)
        assert (ended.finish_reason, ended.message.content or "") == ("tool_calls", "")
        assert len(ended.message.tool_calls) == calls
        messages.append(ended.message)
        for call in ended.message.tool_calls:
            assert (call.type, call.function.name) == ("function", "get_weather")
            assert json.loads(call.function.arguments) == {"city": "simulated city"}
            results += 1
            result = {"role": "tool", "tool_call_id": call.id, "content": f"rain {results}"}
            messages.append(result)
            ids.add(call.id)
    assert len(ids) == results == 5
    ended = await turn("", "auto")
    assert ended.finish_reason == "stop"
    assert ended.message.content == "Done. The tool answered: rain 5"


async def test_a_call_without_result_goes_on(gpt: openai.AsyncOpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: Any = [*HI, {"role": "assistant", "tool_calls": [call]}, *HI]
    answer = await gpt.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content


# --- structured output --------------------------------------------------------------


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Place(BaseModel):
    name: str
    inhabitants: int | None


class Trip(BaseModel):
    title: str
    start: Place
    stops: list[Place]
    note: str | None
    mood: Mood
    back: Place | None


@pytest.mark.parametrize("model", [MODEL, "claude-haiku-4-5"])
@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
async def test_an_answer_is_parsed_into_a_model(
    gpt: openai.AsyncOpenAI, model: str, streamed: bool
) -> None:
    asked: Any = {"model": model, "messages": HI, "response_format": Place}
    if streamed:
        async with gpt.chat.completions.stream(**asked) as stream:
            place = (await stream.get_final_completion()).choices[0].message.parsed
    else:
        place = (await gpt.chat.completions.parse(**asked)).choices[0].message.parsed
    assert isinstance(place, Place)
    assert place.name == "simulated name"


async def test_a_schema_with_refs_unions_and_nulls_is_parsed(gpt: openai.AsyncOpenAI) -> None:
    answer = await gpt.chat.completions.parse(model=MODEL, messages=HI, response_format=Trip)
    trip = answer.choices[0].message.parsed
    assert trip is not None
    assert trip.start.name == trip.stops[0].name == "simulated name"
    assert (trip.mood, trip.note) == (Mood.GOOD, "simulated note")
    with pytest.raises(openai.LengthFinishReasonError):
        await gpt.chat.completions.parse(
            model=MODEL, messages=HI, response_format=Trip, max_tokens=1
        )


# --- images and documents -----------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PAPER}"},
        },
    ],
    ids=["png", "url", "pdf"],
)
async def test_a_picture_or_a_paper_reaches_the_model(gpt: openai.AsyncOpenAI, part: Any) -> None:
    messages: Any = [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]
    answer = await gpt.chat.completions.create(model=MODEL, messages=messages)
    assert "“What is this?”" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > PICTURE_TOKENS


# --- errors -------------------------------------------------------------------------


async def test_a_wrong_key_raises_at_once(connect_openai: ConnectOpenAI, live: Live) -> None:
    sdk = connect_openai(api_key="sk-llmapi-nobody", max_retries=5)
    with pytest.raises(openai.AuthenticationError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=HI)
    assert (caught.value.code, caught.value.status_code) == ("invalid_api_key", 401)
    [line] = live.log()
    assert caught.value.request_id == line["id"]


async def test_an_unknown_model_raises_with_the_known_models(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="claude-haiku-4-5") as caught:
        await gpt.chat.completions.create(model="gpt-6", messages=HI)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"messages": [{"role": "user", "content": [{"type": "noise"}]}]}, "messages[0].content"),
    ],
)
async def test_a_bad_request_raises_and_names_the_parameter(
    gpt: openai.AsyncOpenAI, live: Live, changed: dict[str, Any], param: str
) -> None:
    asked: Any = {"model": MODEL, "messages": HI, **changed}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await gpt.chat.completions.create(**asked, stream=stream)
        assert caught.value.type == "invalid_request_error"
        assert str(caught.value.param).startswith(param)
    assert upstream_requests(live) == []


async def test_an_upstreams_refusal_raises_with_its_message(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="x-simulate: 'nonsense=1'"):
        await gpt.chat.completions.create(
            model=MODEL, messages=HI, extra_headers=steered("nonsense=1")
        )


@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
async def test_an_exhausted_plan_raises_without_retry(
    relay_with: RelayWith, streamed: bool
) -> None:
    plan = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}]}]
    relay = await relay_with(plan=plan)
    async with openai_client(relay, max_retries=2) as sdk:
        await sdk.chat.completions.create(model=MODEL, messages=HI)
        with pytest.raises(openai.RateLimitError, match="1 request per 5 hours") as caught:
            await sdk.chat.completions.create(model=MODEL, messages=HI, stream=streamed)
        assert (caught.value.type, caught.value.code) == ("insufficient_quota",) * 2
        assert int(caught.value.response.headers["retry-after"]) > 60
        assert [line["status"] for line in relay.log()] == [200, 429]


@pytest.mark.parametrize("fault", ["fault=error;at=9", "fault=cut;at=9", "fault=reset;at=9"])
async def test_a_broken_stream_raises_after_its_content(
    gpt: openai.AsyncOpenAI, fault: str
) -> None:
    stream = await gpt.chat.completions.create(
        model=MODEL, messages=HI, stream=True, extra_headers=steered(f"tokens=20;{fault}")
    )
    said = []

    async def read() -> None:
        async for chunk in stream:
            assert chunk.choices[0].finish_reason is None
            said.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="Overloaded" if "error" in fault else "broke off"):
        await read()
    assert len(said) > 3


async def test_transient_errors_are_retried_by_the_sdk(
    connect_openai: ConnectOpenAI, live: Live
) -> None:
    await put_script(live, "status=529", "")
    sdk = connect_openai(max_retries=2)
    answer = await sdk.chat.completions.create(model=MODEL, messages=HI)
    assert "Hello there" in (answer.choices[0].message.content or "")
    assert len(upstream_requests(live)) == 2
