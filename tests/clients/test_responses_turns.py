"""Responses of the `openai` SDK over several turns: reasoning and prompt cache are kept."""

import json
from typing import Any

import openai
import pytest

from tests.api.test_stored_responses import other_account
from tests.clients.conftest import openai_client
from tests.clients.steering import steered
from tests.clients.test_openai_turns import ADAPTIVE, MODELS, STREAMED
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import Upstream

CALLS = "tool=get_weather;tools=2"
HI: Any = {"role": "user", "content": "Hello there"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


async def ask(
    sdk: openai.AsyncOpenAI, model: str, items: Any, streamed: bool, script: str = ""
) -> tuple[Any, int]:
    """One turn: the response from the SDK, and its number of reasoning tokens."""
    asked: Any = {
        "model": model,
        "input": items,
        "tools": [WEATHER],
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "extra_headers": steered(script),
    }
    if streamed:
        async with sdk.responses.stream(**asked) as stream:
            response: Any = await stream.get_final_response()
    else:
        response = await sdk.responses.create(**asked)
    assert response.status == "completed"
    return response, response.usage.output_tokens_details.reasoning_tokens


def kept(output: Any) -> list[Any]:
    return [*output]


def dumped(output: Any) -> list[Any]:
    return [json.loads(item.model_dump_json(exclude_none=True)) for item in output]


def dropped(output: Any) -> list[Any]:
    """Replays only text and calls, as simple callers do."""
    return [item for item in dumped(output) if item["type"] != "reasoning"]


def results(output: Any) -> list[Any]:
    calls = [item for item in output if item.type == "function_call"]
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"rain {number}"}
        for number, call in enumerate(calls, 1)
    ]


@pytest.fixture
async def live(relay_with: RelayWith, recorder: Upstream) -> Live:
    """A relay in front of a simulator whose requests are recorded."""
    return await relay_with(recorder)


def thoughts(recorder: Upstream) -> list[Any]:
    """The thinking blocks of the latest upstream request."""
    body = json.loads(recorder.requests[-1].body)
    return [
        block
        for turn in body["messages"]
        if isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] in ("thinking", "redacted_thinking")
    ]


@MODELS
@STREAMED
@pytest.mark.parametrize("replay", [kept, dumped, dropped])
async def test_reasoning_survives_every_way_of_replaying_it(
    gpt: openai.AsyncOpenAI, live: Live, recorder: Upstream, model: str, streamed: bool, replay: Any
) -> None:
    items: list[Any] = [HI]
    for turn in range(2):
        response, thought = await ask(gpt, model, items, streamed, CALLS)
        assert thought > 0
        reasoning = response.output[0]
        assert "Hello there" in reasoning.summary[0].text
        assert reasoning.encrypted_content
        items += [*replay(response.output), *results(response.output)]

        response, thought = await ask(gpt, model, items, streamed)
        assert response.output_text == "Done. The tool answered: rain 2"
        # A model with a thinking budget continues to think only if the turn began with thinking.
        assert bool(thought) is (model == ADAPTIVE or replay is not dropped)
        assert (len(thoughts(recorder)) > turn) is (replay is not dropped)
        items += [*replay(response.output), HI]
    assert {line["outcome"] for line in live.log()} == {"whole"}


@MODELS
async def test_tampered_reasoning_is_dropped_and_the_turn_continues(
    gpt: openai.AsyncOpenAI, live: Live, recorder: Upstream, model: str
) -> None:
    response, _ = await ask(gpt, model, [HI], False, CALLS)
    reasoning, *calls = dumped(response.output)
    sealed = reasoning["encrypted_content"]
    for changed in (sealed[:-2], f"{sealed[:40]}A{sealed[41:]}", "gAAAAABforeign", "rly1.", ""):
        reasoning["encrypted_content"] = changed
        items = [HI, reasoning, *calls, *results(response.output)]
        again, _ = await ask(gpt, model, items, False)
        assert again.output_text == "Done. The tool answered: rain 2"
        assert thoughts(recorder) == []


async def test_reasoning_sealed_for_another_account_is_dropped(
    gpt: openai.AsyncOpenAI, live: Live, recorder: Upstream
) -> None:
    response, _ = await ask(gpt, ADAPTIVE, [HI], False, CALLS)
    items = [HI, *response.output, *results(response.output)]
    async with openai_client(live, api_key=await other_account(live)) as hers:
        again, _ = await ask(hers, ADAPTIVE, items, False)
    assert again.output_text == "Done. The tool answered: rain 2"
    assert thoughts(recorder) == []
    await ask(gpt, ADAPTIVE, items, False)
    assert len(thoughts(recorder)) == 1


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
async def test_turns_read_the_prompt_cache_unless_the_plan_says_no(
    relay_with: RelayWith, on: bool
) -> None:
    plan = [{"id": "free", "limits": [], "cache_breakpoints": on}]
    items: list[Any] = [HI]
    read = []
    relay = await relay_with(plan=plan)
    async with openai_client(relay) as sdk:
        for turn in range(3):
            response = await sdk.responses.create(
                model=ADAPTIVE, instructions="Be brief.", input=items, tools=[WEATHER]
            )
            assert response.usage is not None
            read.append(response.usage.input_tokens_details.cached_tokens)
            items += [*response.output, {"role": "user", "content": f"And {turn}?"}]
        lines = relay.log()
    if on:
        assert read[0] == 0
        assert 0 < read[1] < read[2]
    else:
        assert read == [0, 0, 0]
    assert [line["cache_read"] for line in lines] == read


@STREAMED
async def test_a_conversation_continues_from_its_compaction(
    gpt: openai.AsyncOpenAI, live: Live, recorder: Upstream, streamed: bool
) -> None:
    response, _ = await ask(gpt, ADAPTIVE, [HI], streamed)
    history: Any = [HI, *response.output, {"role": "user", "content": "Remember: blue."}]
    short = await gpt.responses.compact(model=ADAPTIVE, input=history)
    kinds = [item.type for item in short.output]
    assert kinds == ["message", "message", "compaction"]
    # The SDK types all output as the assistant's and would warn.
    output: Any = short.to_dict(warnings=False)["output"]
    items = [*output, {"role": "user", "content": "Which colour?"}]
    again, _ = await ask(gpt, ADAPTIVE, items, streamed)
    assert "“Which colour?”" in again.output_text
    asked = json.loads(recorder.requests[-1].body)
    words = json.dumps(asked["messages"])
    assert "Remember: blue." in words
    assert "This is the summary" in words
    forged = [{**item, "encrypted_content": "x"} if item.get("type") == "compaction" else item
              for item in items]  # fmt: skip
    again, _ = await ask(gpt, ADAPTIVE, forged, streamed)
    assert "“Which colour?”" in again.output_text
