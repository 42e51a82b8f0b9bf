"""The `openai` SDK's `responses` take the relay for the API itself; turns are in their own file."""

import asyncio
import gzip
import json
import re
import time
import zlib
from collections.abc import Callable
from typing import Any

import openai
import pytest
import zstandard
from pydantic import BaseModel

from tests.clients.conftest import ConnectOpenAI, openai_client
from tests.clients.test_anthropic_sdk import put_script, steered, upstream_requests
from tests.clients.test_openai_sdk import HI, MODEL, PAPER, PICTURE_TOKENS, PIXEL, Mood, Place, Trip
from tests.clients.test_openai_sdk import WEATHER as CHAT_WEATHER
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until

PATH = "/v1/responses"
WEATHER: Any = {"type": "function", **CHAT_WEATHER["function"]}
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
MOST_SOON = 0.05  # seconds of silence until there is a sign of life, where a test wants some
METERS = [
    {
        "id": "free",
        "name": "Free",
        "limits": [{"requests": 2, "per": "5h"}, {"requests": 200, "per": "7d"}],
    }
]


async def ask(sdk: openai.AsyncOpenAI, streamed: bool, script: str = "", **asked: Any) -> Any:
    """A response at its end, however it is asked for; a stream is looked at on its way."""
    asked = {"model": MODEL, "extra_headers": steered(script), **asked}
    if not streamed:
        return await sdk.responses.create(**asked)
    async with sdk.responses.stream(**asked) as stream:
        events = [event async for event in stream]
    return ending(events)


def ending(events: list[Any]) -> Any:
    """The response in the last of a stream's events, which came in their order and whole."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    items = [
        [event.output_index for event in events if event.type == f"response.output_item.{what}"]
        for what in ("added", "done")
    ]
    assert sorted(items[0]) == sorted(items[1]) == list(range(len(last.response.output)))
    assert last.type == f"response.{last.response.status}"
    return last.response


def plain(response: Any) -> Any:
    """All of a response that does not differ from one request to the next."""
    told = json.loads(response.to_json())
    for name in ("id", "created_at", "completed_at"):
        assert told.pop(name) is not None or told["status"] == "incomplete"
    details = told["usage"].pop("input_tokens_details")  # what the cache had of them
    assert details.keys() == {"cached_tokens", "cache_write_tokens"}
    for number, item in enumerate(told["output"]):
        assert item.pop("id").endswith(f"_{number}")
        item.pop("call_id", None)
    return told


def items(response: Any, kind: str) -> list[Any]:
    return [item for item in response.output if item.type == kind]


# --- talking ------------------------------------------------------------------------


async def test_a_response(gpt: openai.AsyncOpenAI, live: Live) -> None:
    response = await gpt.responses.create(model=MODEL, input="Hello there")
    assert "“Hello there”" in response.output_text
    [message] = response.output
    assert (message.type, message.status) == ("message", "completed")
    assert re.fullmatch(r"resp_\w+", response.id)
    assert message.id == f"msg_{response.id.removeprefix('resp_')}_0"
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert (response.error, response.incomplete_details) == (None, None)
    assert abs(response.created_at - time.time()) < 5
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    usage = response.usage
    assert usage is not None
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    [line] = live.log()
    assert response._request_id == line["id"]  # what a user reports is what the log has
    prompt = line["input"] + line["cache_read"] + line["cache_write"]
    assert (prompt, line["output"]) == (usage.input_tokens, usage.output_tokens)
    type(response).model_validate(json.loads(response.to_json()))


async def test_a_response_repeats_the_requests_parameters(gpt: openai.AsyncOpenAI) -> None:
    asked: Any = {
        "instructions": "Be brief.",
        "max_output_tokens": 500,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": "auto",
        "tools": [WEATHER],
        "truncation": "auto",
    }
    response = await gpt.responses.create(model=MODEL, input=HI, **asked)
    told = json.loads(response.to_json())
    for name, value in asked.items():
        assert told[name] == value, name
    assert told["background"] is False
    assert (told["store"], told["previous_response_id"]) == (False, None)


async def test_everything_works_without_async(live: Live) -> None:
    def talk() -> list[str]:
        with openai.OpenAI(
            api_key=live.key, base_url=f"{live.url}/v1", max_retries=0, timeout=10
        ) as sdk:
            responses = sdk.responses
            whole = responses.create(model=MODEL, input=HI)
            with responses.stream(model=MODEL, input=HI) as stream:
                final = ending(list(stream))
                assert stream.get_final_response().output_text == final.output_text
            raw = list(responses.create(model=MODEL, input=HI, stream=True))
            pieces = "".join(
                event.delta for event in raw if event.type == "response.output_text.delta"
            )
            place = responses.parse(model=MODEL, input=HI, text_format=Place).output_parsed
            assert place is not None
            assert place.name == "simulated name"
            assert responses.input_tokens.count(model=MODEL, input=HI).input_tokens > 0
            with pytest.raises(openai.NotFoundError):
                responses.create(model="gpt-6", input=HI)
            return [whole.output_text, final.output_text, pieces]

    said = await asyncio.to_thread(talk)
    assert len(set(said)) == 1
    assert "Hello there" in said[0]


ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("", {}),
    "calls": ("tool=get_weather;tools=2", {"tools": [WEATHER]}),
    "custom": ("tool=note", {"tools": [{"type": "custom", "name": "note"}]}),
    "thought": ("", {"reasoning": {"effort": "high", "summary": "auto"}}),
    "hidden": ("", {"reasoning": {"effort": "high"}}),
    "thought-calls": (
        "tool=get_weather;tools=2",
        {"tools": [WEATHER], "reasoning": {"effort": "high", "summary": "detailed"}},
    ),
    "refusal": ("stop=refusal", {}),
    "cut": ("", {"max_output_tokens": 3}),
    "schema": (
        "",
        {"text": {"format": {"type": "json_schema", "name": "p", "schema": WEATHER["parameters"]}}},
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_streams_last_response_equals_a_document(
    gpt: openai.AsyncOpenAI, name: str
) -> None:
    script, more = ANSWERS[name]
    asked: Any = {"model": MODEL, "input": HI, "extra_headers": steered(script), **more}
    whole = await gpt.responses.create(**asked)
    raw = await gpt.responses.create(**asked, stream=True)
    events = [event async for event in raw]
    for event in events:
        # The SDK does not look at what it is sent; here its own types do.
        type(event).model_validate(json.loads(event.to_json()))
    final = ending(events)
    assert len({event.response.id for event in events if "response" in event.to_dict()}) == 1
    assert plain(final) == plain(whole)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final.output
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert "".join(pieces(events, "output_text")) == whole.output_text


def pieces(events: list[Any], what: str) -> list[str]:
    return [event.delta for event in events if event.type == f"response.{what}.delta"]


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"cut"}))
async def test_the_stream_helper_adds_up_to_the_response(
    gpt: openai.AsyncOpenAI, name: str
) -> None:
    script, more = ANSWERS[name]
    asked: Any = {"model": MODEL, "input": HI, "extra_headers": steered(script), **more}
    whole = await gpt.responses.create(**asked)
    async with gpt.responses.stream(**asked) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert ending(events) == final
    assert (final.output_text, final.status) == (whole.output_text, "completed")
    assert [item.type for item in final.output] == [item.type for item in whole.output]
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots[-1:] == [whole.output_text] * bool(whole.output_text)
    for kind, what, value in (
        ("function_call", "function_call_arguments", "arguments"),
        ("custom_tool_call", "custom_tool_call_input", "input"),
    ):
        told = "".join(getattr(item, value) for item in items(final, kind))
        assert "".join(pieces(events, what)) == told


async def test_events_reach_the_caller_without_delay(gpt: openai.AsyncOpenAI) -> None:
    came: list[float] = []
    stream = await gpt.responses.create(
        model=MODEL, input=HI, stream=True, extra_headers=steered("tokens=10;pace=50")
    )
    async for event in stream:
        if event.type == "response.output_text.delta":
            came.append(time.monotonic())
    assert len(came) == 10
    assert came[-1] - came[0] > 0.1  # 9 gaps of 20 ms, not one burst at the end


async def test_twenty_concurrent_requests_get_their_own_answers(gpt: openai.AsyncOpenAI) -> None:
    async def talk(number: int) -> str:
        response = await ask(gpt, bool(number % 2), input=f"number {number}.")
        return str(response.output_text)

    said = await asyncio.gather(*(talk(number) for number in range(20)))
    for number, text in enumerate(said):
        assert f"“number {number}.”" in text


async def test_keepalive_events_of_a_silent_stream_are_numbered(
    relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)
    pool = {"grace": MOST_SOON, "keep_alive": MOST_SOON}
    relay = await relay_with(pool=pool)
    async with openai_client(relay) as sdk:
        # the delay is before all the answer, the pace in the middle of it
        asked: Any = {"model": MODEL, "input": HI, "stream": True}
        stream = await sdk.responses.create(
            **asked, extra_headers=steered("delay=0.3;tokens=3;pace=5")
        )
        events = [event async for event in stream]
        async with sdk.responses.stream(
            model=MODEL, input=HI, extra_headers=steered("delay=0.3")
        ) as helper:
            final = await helper.get_final_response()
    response = ending(events)
    signs = [n for n, event in enumerate(events) if event.type == "response.in_progress"]
    words = [n for n, event in enumerate(events) if event.type == "response.output_text.delta"]
    assert len([n for n in signs if n < words[0]]) >= 3
    assert len([n for n in signs if n > words[0]]) >= 3
    assert "".join(pieces(events, "output_text")) == response.output_text
    assert "Hello there" in final.output_text


async def test_an_abandoned_request_ends_at_the_upstream(
    gpt: openai.AsyncOpenAI, live: Live
) -> None:
    stream = await gpt.responses.create(
        model=MODEL, input=HI, stream=True, extra_headers=steered("tokens=1000;pace=50")
    )
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    simulator = live.simulator
    assert simulator is not None
    await until(lambda: simulator.journal.aborted and live.log())
    assert live.log()[-1]["outcome"] == "caller left"


# --- tools --------------------------------------------------------------------------

FIND: Any = {"type": "function", "name": "find", "parameters": WEATHER["parameters"]}
TOOLS: dict[str, tuple[Any, str, str]] = {  # a tool, its function's name, its calls' type
    "function": (WEATHER, "get_weather", "function_call"),
    "custom": ({"type": "custom", "name": "note"}, "note", "custom_tool_call"),
    "grammar": (
        {
            "type": "custom",
            "name": "note",
            "description": "Takes a note.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        "note",
        "custom_tool_call",
    ),
    "namespace": (
        {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FIND]},
        "crm__find",
        "function_call",
    ),
    "local_shell": ({"type": "local_shell"}, "local_shell", "local_shell_call"),
    "shell": ({"type": "shell"}, "shell", "shell_call"),
    "apply_patch": ({"type": "apply_patch"}, "apply_patch", "apply_patch_call"),
}


def called(call: Any) -> Any:
    """What a call asks for."""
    match call.type:
        case "function_call":
            return call.namespace, call.name, json.loads(call.arguments)
        case "custom_tool_call":
            return call.name, call.input
        case "apply_patch_call":
            return call.operation.type, call.operation.path, call.operation.diff
        case _:
            return call.action.to_dict()


CALLED: dict[str, Any] = {
    "function": (None, "get_weather", {"city": "simulated city"}),
    "custom": ("note", "simulated input"),
    "grammar": ("note", "simulated input"),
    "namespace": ("crm", "find", {"city": "simulated city"}),
    "apply_patch": ("create_file", "simulated.txt", "+hello\n"),
}


def result(call: Any, told: str) -> Any:
    """What a tool tells of a call of it."""
    output: dict[str, Any] = {"type": f"{call.type}_output", "call_id": call.call_id}
    match call.type:
        case "local_shell_call":
            return {"type": output["type"], "id": call.call_id, "output": told}
        case "shell_call":
            exited = {"type": "exit", "exit_code": 0}
            return {**output, "output": [{"stdout": told, "stderr": "", "outcome": exited}]}
        case "apply_patch_call":
            return {**output, "status": "completed", "output": told}
    return {**output, "output": told}


@pytest.mark.parametrize("name", TOOLS)
@STREAMED
async def test_each_kind_of_tool_is_called_and_answers(
    gpt: openai.AsyncOpenAI, streamed: bool, name: str
) -> None:
    tool, function, kind = TOOLS[name]
    said: list[Any] = [*HI]
    for turn in range(2):
        response = await ask(gpt, streamed, f"tool={function};tools=2", input=said, tools=[tool])
        assert response.status == "completed"
        calls = response.output
        assert [(call.type, call.status) for call in calls] == [(kind, "completed")] * 2
        assert len({call.call_id for call in calls}) == len({call.id for call in calls}) == 2
        for call in calls:
            assert name not in CALLED or called(call) == CALLED[name]
        said += calls
        said += [result(call, f"rain {turn}") for call in calls]

        response = await ask(gpt, streamed, input=said, tools=[tool])
        assert response.output_text.startswith("Done. The tool answered:")
        assert f"rain {turn}" in response.output_text
        said += [*response.output, *HI]


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    mood: Mood


@STREAMED
async def test_a_pydantic_function_is_called_with_its_model(
    gpt: openai.AsyncOpenAI, streamed: bool
) -> None:
    asked: Any = {
        "model": MODEL,
        "input": HI,
        "tools": [openai.pydantic_function_tool(GetWeather)],
        "tool_choice": "required",
    }
    if streamed:
        async with gpt.responses.stream(**asked) as stream:
            response: Any = await stream.get_final_response()
    else:
        response = await gpt.responses.parse(**asked)
    [call] = response.output
    assert call.name == "GetWeather"
    assert call.parsed_arguments == GetWeather(city="simulated city", mood=Mood.GOOD)
    said: list[Any] = [*HI, *response.output, result(call, "rain")]  # what is parsed goes along
    response = await ask(gpt, streamed, input=said, tools=[WEATHER])
    assert response.output_text == "Done. The tool answered: rain"


@pytest.mark.parametrize(
    ("choice", "script", "calls"),
    [
        ("none", "", 0),
        ("auto", "", 0),
        ("required", "", 1),
        ({"type": "function", "name": "find"}, "", 1),
        ({"type": "allowed_tools", "mode": "required", "tools": [{**FIND}]}, "", 1),
    ],
    ids=["none", "auto", "required", "function", "allowed"],
)
async def test_the_choice_of_a_tool_is_the_callers(
    gpt: openai.AsyncOpenAI, choice: Any, script: str, calls: int
) -> None:
    response = await ask(gpt, False, script, input=HI, tools=[WEATHER, FIND], tool_choice=choice)
    assert len(items(response, "function_call")) == calls
    if isinstance(choice, dict):
        assert response.output[0].name == "find"


async def test_parallel_tool_calls_may_be_switched_off(gpt: openai.AsyncOpenAI) -> None:
    response = await ask(
        gpt,
        False,
        "tool=get_weather;tools=3",
        input=HI,
        tools=[WEATHER],
        parallel_tool_calls=False,
    )
    assert len(response.output) == 1


# --- structured output --------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, "claude-haiku-4-5"])
@STREAMED
async def test_an_answer_is_parsed_into_a_model(
    gpt: openai.AsyncOpenAI, model: str, streamed: bool
) -> None:
    asked: Any = {"model": model, "input": HI, "text_format": Place}
    if streamed:
        async with gpt.responses.stream(**asked) as stream:
            place = (await stream.get_final_response()).output_parsed
    else:
        place = (await gpt.responses.parse(**asked)).output_parsed
    assert isinstance(place, Place)
    assert place.name == "simulated name"


async def test_a_schema_with_refs_unions_and_nulls_is_parsed(
    gpt: openai.AsyncOpenAI,
) -> None:
    trip = (await gpt.responses.parse(model=MODEL, input=HI, text_format=Trip)).output_parsed
    assert trip is not None
    assert trip.start.name == trip.stops[0].name == "simulated name"
    assert (trip.mood, trip.note) == (Mood.GOOD, "simulated note")


# --- what goes in -------------------------------------------------------------------

PICTURE: Any = {
    "type": "input_image",
    "image_url": f"data:image/png;base64,{PIXEL}",
    "detail": "auto",
}
PARTS: dict[str, Any] = {
    "png": PICTURE,
    "url": {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
    "pdf": {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{PAPER}",
    },
    "pdf-url": {"type": "input_file", "file_url": "https://example.com/a.pdf"},
}


@pytest.mark.parametrize("name", PARTS)
async def test_a_picture_or_a_paper_reaches_the_model(gpt: openai.AsyncOpenAI, name: str) -> None:
    content = [PARTS[name], {"type": "input_text", "text": "What is this?"}]
    response = await ask(gpt, False, input=[{"role": "user", "content": content}])
    assert "“What is this?”" in response.output_text
    assert response.usage.input_tokens > PICTURE_TOKENS


async def test_a_tool_may_answer_with_a_picture(gpt: openai.AsyncOpenAI) -> None:
    first = await ask(gpt, False, "tool=get_weather", input=HI, tools=[WEATHER])
    output = {**result(first.output[0], ""), "output": [PICTURE]}
    response = await ask(gpt, False, input=[*HI, *first.output, output], tools=[WEATHER])
    assert response.output_text.startswith("Done.")
    assert response.usage.input_tokens > PICTURE_TOKENS


async def test_instructions_and_first_developer_turns_are_the_system(
    gpt: openai.AsyncOpenAI,
) -> None:
    words = "Be brief and kind. " * 40
    bare = await ask(gpt, False, input=HI)
    system = [{"role": "system", "content": words}]
    developer = [{"type": "message", "role": "developer", "content": [text_part(words)]}]
    for told in (
        await ask(gpt, False, input=HI, instructions=words),
        await ask(gpt, False, input=[*system, *HI]),
        await ask(gpt, False, input=[*developer, *HI]),
    ):
        assert "“Hello there”" in told.output_text
        assert told.usage.input_tokens > bare.usage.input_tokens + 100


def text_part(text: str) -> Any:
    return {"type": "input_text", "text": text}


@pytest.mark.parametrize("model", ["claude-opus-4-8", MODEL, "claude-haiku-4-5"])
@pytest.mark.parametrize("role", ["developer", "system"])
async def test_a_developer_message_may_come_later(
    gpt: openai.AsyncOpenAI, model: str, role: str
) -> None:
    said: list[Any] = [*HI]
    for turn in range(2):
        response = await ask(gpt, False, model=model, input=said)
        said += [
            *response.output,
            {"role": role, "content": f"Aside {turn}."},
            {"role": "user", "content": f"And {turn}?"},
        ]
    response = await ask(gpt, False, model=model, input=said)
    assert "And 1?" in response.output_text
    last = await ask(gpt, False, model=model, input=[*said, {"role": role, "content": "Go on."}])
    assert last.status == "completed"


@STREAMED
async def test_an_answer_above_its_limit_is_incomplete(
    gpt: openai.AsyncOpenAI, streamed: bool
) -> None:
    response = await ask(gpt, streamed, input=HI, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [item.status for item in response.output] == ["incomplete"]
    assert response.usage.output_tokens == 3
    assert response.max_output_tokens == 3


@STREAMED
async def test_a_refusal_is_a_refusal_item(gpt: openai.AsyncOpenAI, streamed: bool) -> None:
    response = await ask(gpt, streamed, "stop=refusal", input=HI)
    assert (response.status, response.output_text) == ("completed", "")
    [message] = response.output
    [part] = message.content
    assert (part.type, message.status) == ("refusal", "completed")
    assert "could do harm" in part.refusal


async def test_counting_agrees_with_usage_and_costs_nothing(relay_with: RelayWith) -> None:
    plan = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}]}]
    asked: Any = {
        "model": MODEL,
        "input": HI,
        "instructions": "Be brief.",
        "tools": [WEATHER],
        "reasoning": {"effort": "high"},
    }
    relay = await relay_with(plan=plan)
    async with openai_client(relay) as sdk:
        counted = [await sdk.responses.input_tokens.count(**asked) for _ in range(2)]
        response = await sdk.responses.create(**asked, max_output_tokens=400)
        again = await sdk.responses.input_tokens.count(**asked)  # though nothing is left
    assert counted[0].object == "response.input_tokens"
    assert response.usage is not None
    numbers = {told.input_tokens for told in (*counted, again)}
    assert numbers == {response.usage.input_tokens}


def zipped(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


def streamed_zipped(body: bytes) -> bytes:
    made = zstandard.ZstdCompressor().compressobj()  # as one does that knows no length
    return bytes(made.compress(body) + made.flush())


@pytest.mark.parametrize(
    ("encoding", "fold"),
    [
        ("gzip", gzip.compress),
        ("zstd", zipped),
        ("zstd", streamed_zipped),
        ("deflate", zlib.compress),
    ],
    ids=["gzip", "zstd", "zstd-stream", "deflate"],
)
async def test_a_body_may_come_compressed(
    live: Live, encoding: str, fold: Callable[[bytes], bytes]
) -> None:
    body = fold(json.dumps({"model": MODEL, "input": HI, "instructions": "x " * 5000}).encode())
    assert len(body) < 1000
    for fields, wanted in ((f"content-encoding: {encoding}\r\n", 200), ("", 400)):
        async with connected(live.port) as (reader, writer):
            writer.write(request(live.key, body, target=PATH, fields=fields))
            status, _, payload = await read_answer(reader)
        assert status == wanted
        assert ("“Hello there”".encode() in payload) is (wanted == 200)


# --- headers that Codex reads -------------------------------------------------------


@STREAMED
async def test_every_answer_has_plan_meters_and_turn_state(
    relay_with: RelayWith, streamed: bool
) -> None:
    relay = await relay_with(plan=METERS)
    async with openai_client(relay) as sdk:
        told = []
        for turn in ("0-abc", None):
            raw = await sdk.responses.with_raw_response.create(
                model=MODEL,
                input=HI,
                stream=streamed,
                extra_headers={"x-codex-turn-state": turn} if turn else {},
            )
            assert raw.headers.get("x-codex-turn-state") == turn
            told.append(raw.headers)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.responses.create(model=MODEL, input=HI, stream=streamed)
        told.append(caught.value.response.headers)
    for group, used, window in (
        ("primary", ["50", "100", "100"], "300"),
        ("secondary", ["0.5", "1", "1"], "10080"),
    ):
        assert [seen[f"x-codex-{group}-used-percent"] for seen in told] == used
        for seen in told:
            assert seen[f"x-codex-{group}-window-minutes"] == window
            assert int(seen[f"x-codex-{group}-reset-at"]) > time.time()


# --- what goes wrong ----------------------------------------------------------------


async def test_a_wrong_key_raises_at_once(connect_openai: ConnectOpenAI, live: Live) -> None:
    sdk = connect_openai(api_key="sk-llmapi-nobody", max_retries=5)
    with pytest.raises(openai.AuthenticationError) as caught:
        await sdk.responses.create(model=MODEL, input=HI)
    assert (caught.value.code, caught.value.status_code) == ("invalid_api_key", 401)
    [line] = live.log()
    assert caught.value.request_id == line["id"]


async def test_an_unknown_model_raises_with_the_known_models(
    gpt: openai.AsyncOpenAI,
) -> None:
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
    assert first.store is False  # nothing is kept here, whatever is asked
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
    events = [event async for event in stream]  # to a clean end: the last of them tells
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
