"""Conversations of the `openai` SDK over several turns: reasoning and prompt cache are kept."""

import copy
from typing import Any

import openai
import pytest

from tests.clients.conftest import openai_client
from tests.clients.steering import steered
from tests.clients.test_openai_sdk import HI, WEATHER
from tests.fakes.live import RelayWith

ADAPTIVE, BUDGET = "claude-opus-4-8", "claude-haiku-4-5"
MODELS = pytest.mark.parametrize("model", [ADAPTIVE, BUDGET])
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
CALLS = "tool=get_weather;tools=2"


async def ask(
    sdk: openai.AsyncOpenAI, model: str, messages: Any, streamed: bool, script: str = ""
) -> tuple[Any, int]:
    """One turn: the message from the SDK, and its number of reasoning tokens."""
    asked: Any = {
        "model": model,
        "messages": messages,
        "tools": [WEATHER],
        "reasoning_effort": "high",
        "extra_headers": steered(script),
    }
    if streamed:
        asked["stream_options"] = {"include_usage": True}
        async with sdk.chat.completions.stream(**asked) as stream:
            answer: Any = await stream.get_final_completion()
    else:
        answer = await sdk.chat.completions.create(**asked)
    return answer.choices[0].message, answer.usage.completion_tokens_details.reasoning_tokens


def kept(message: Any) -> Any:
    return message


def dumped(message: Any) -> Any:
    return message.model_dump()


def dropped(message: Any) -> Any:
    """Replays only text and calls, as simple callers do."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls or ()
    ]
    plain = {"role": "assistant", "content": message.content}
    return {**plain, "tool_calls": calls} if calls else plain


def results(message: Any) -> list[Any]:
    return [
        {"role": "tool", "tool_call_id": call.id, "content": f"rain {number}"}
        for number, call in enumerate(message.tool_calls, 1)
    ]


@MODELS
@STREAMED
@pytest.mark.parametrize("replay", [kept, dumped, dropped])
async def test_reasoning_survives_every_way_of_replaying_it(
    gpt: openai.AsyncOpenAI, model: str, streamed: bool, replay: Any
) -> None:
    messages: list[Any] = [*HI]
    for _ in range(2):
        message, thought = await ask(gpt, model, messages, streamed, CALLS)
        assert thought > 0
        assert "Hello there" in message.reasoning_content
        [entry] = message.reasoning_details
        assert entry["text"] == message.reasoning_content
        assert entry["signature"]
        messages += [replay(message), *results(message)]

        message, thought = await ask(gpt, model, messages, streamed)
        assert message.content == "Done. The tool answered: rain 2"
        # A model with a thinking budget continues to think only if the turn began with thinking.
        assert bool(thought) is (model == ADAPTIVE or replay is not dropped)
        messages += [replay(message), *HI]


@MODELS
@STREAMED
async def test_reasoning_returns_upstream_with_its_signatures(
    gpt: openai.AsyncOpenAI, model: str, streamed: bool
) -> None:
    message, _ = await ask(gpt, model, HI, streamed, CALLS)
    changed = copy.deepcopy(message.model_dump())
    [entry] = changed["reasoning_details"]
    entry["signature"] = entry["signature"][:-8] + "AAAAAAAA"
    with pytest.raises(openai.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await ask(gpt, model, [*HI, changed, *results(message)], streamed)


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
async def test_turns_read_the_prompt_cache_unless_the_plan_says_no(
    relay_with: RelayWith, on: bool
) -> None:
    plan = [{"id": "free", "limits": [], "cache_breakpoints": on}]
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, *HI]
    read = []
    relay = await relay_with(plan=plan)
    async with openai_client(relay) as sdk:
        for turn in range(3):
            answer = await sdk.chat.completions.create(
                model=ADAPTIVE, messages=messages, tools=[WEATHER]
            )
            usage: Any = answer.usage
            read.append(usage.prompt_tokens_details.cached_tokens)
            assert bool(usage.prompt_tokens_details.cache_write_tokens) is on
            messages += [answer.choices[0].message, {"role": "user", "content": f"And {turn}?"}]
        lines = relay.log()
    if on:
        assert read[0] == 0
        assert 0 < read[1] < read[2]
    else:
        assert read == [0, 0, 0]
    assert [line["cache_read"] for line in lines] == read
