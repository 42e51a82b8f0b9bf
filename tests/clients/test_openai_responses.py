"""The `openai` SDK's `responses` work with the relay as with the API."""

import asyncio
import json
import re
import time
from typing import Any

import openai
import pytest

from tests.clients.conftest import openai_client
from tests.clients.responses import STREAMED, WEATHER, ask, ending, items, pieces, plain
from tests.clients.steering import steered
from tests.clients.test_openai_sdk import HI, MODEL, Place
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until

KEEP_ALIVE = 0.05  # seconds of silence before a sign of life, in tests of these
METERS = [
    {
        "id": "free",
        "name": "Free",
        "limits": [{"requests": 2, "per": "5h"}, {"requests": 200, "per": "7d"}],
    }
]


# --- talking ------------------------------------------------------------------------


async def test_a_response(gpt: openai.AsyncOpenAI, live: Live) -> None:
    response = await gpt.responses.create(model=MODEL, input="Hello there")
    assert "“Hello there”" in response.output_text
    [message] = response.output
    assert message.type == "message"
    assert message.status == "completed"
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
    assert response._request_id == line["id"]  # the id that users report is in the log
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
    document = json.loads(response.to_json())
    for name, value in asked.items():
        assert document[name] == value, name
    assert document["background"] is False
    assert (document["store"], document["previous_response_id"]) == (False, None)


async def test_everything_works_without_async(live: Live) -> None:
    def talk() -> list[str]:
        with openai.OpenAI(
            api_key=live.key, base_url=f"{live.url}/v1", max_retries=0, timeout=10
        ) as sdk:
            responses = sdk.responses
            answer = responses.create(model=MODEL, input=HI)
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
            return [answer.output_text, final.output_text, pieces]

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
    answer = await gpt.responses.create(**asked)
    raw = await gpt.responses.create(**asked, stream=True)
    events = [event async for event in raw]
    for event in events:
        # The SDK does not validate its input; its own types do here.
        type(event).model_validate(json.loads(event.to_json()))
    final = ending(events)
    assert len({event.response.id for event in events if "response" in event.to_dict()}) == 1
    assert plain(final) == plain(answer)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final.output
    assert final.usage.output_tokens == answer.usage.output_tokens
    assert "".join(pieces(events, "output_text")) == answer.output_text


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"cut"}))
async def test_the_stream_helper_adds_up_to_the_response(
    gpt: openai.AsyncOpenAI, name: str
) -> None:
    script, more = ANSWERS[name]
    asked: Any = {"model": MODEL, "input": HI, "extra_headers": steered(script), **more}
    answer = await gpt.responses.create(**asked)
    async with gpt.responses.stream(**asked) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert ending(events) == final
    assert (final.output_text, final.status) == (answer.output_text, "completed")
    assert [item.type for item in final.output] == [item.type for item in answer.output]
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots[-1:] == [answer.output_text] * bool(answer.output_text)
    for kind, what, value in (
        ("function_call", "function_call_arguments", "arguments"),
        ("custom_tool_call", "custom_tool_call_input", "input"),
    ):
        text = "".join(getattr(item, value) for item in items(final, kind))
        assert "".join(pieces(events, what)) == text


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
    pool = {"grace": KEEP_ALIVE, "keep_alive": KEEP_ALIVE}
    relay = await relay_with(pool=pool)
    async with openai_client(relay) as sdk:
        # `delay` is before the answer, `pace` within it
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


# --- headers that Codex reads -------------------------------------------------------


@STREAMED
async def test_every_answer_has_plan_meters_and_turn_state(
    relay_with: RelayWith, streamed: bool
) -> None:
    relay = await relay_with(plan=METERS)
    async with openai_client(relay) as sdk:
        headers = []
        for turn in ("0-abc", None):
            raw = await sdk.responses.with_raw_response.create(
                model=MODEL,
                input=HI,
                stream=streamed,
                extra_headers={"x-codex-turn-state": turn} if turn else {},
            )
            assert raw.headers.get("x-codex-turn-state") == turn
            headers.append(raw.headers)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.responses.create(model=MODEL, input=HI, stream=streamed)
        headers.append(caught.value.response.headers)
    for group, used, window in (
        ("primary", ["50", "100", "100"], "300"),
        ("secondary", ["0.5", "1", "1"], "10080"),
    ):
        assert [seen[f"x-codex-{group}-used-percent"] for seen in headers] == used
        for seen in headers:
            assert seen[f"x-codex-{group}-window-minutes"] == window
            assert int(seen[f"x-codex-{group}-reset-at"]) > time.time()
