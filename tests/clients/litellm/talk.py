"""Talks to the relay through LiteLLM and prints a report as one JSON line.

Run by the environment's own interpreter; the base URL and the key are arguments. `outside` is
what it reached for beyond loopback.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

# `-I` leaves out the folder of a program.
sys.path.insert(0, str(Path(__file__).parents[1] / "matrix" / "drivers"))

import loopback

outside = loopback.outside

import litellm  # noqa: E402 - it may reach out while it is imported

URL, KEY = sys.argv[1:]
HELLO = [{"role": "user", "content": "Hello from LiteLLM"}]
ASKED: dict[str, Any] = {
    "model": "openai/claude-sonnet-4-7",
    "api_base": f"{URL}/v1",
    "api_key": KEY,
    "num_retries": 0,
    "max_retries": 0,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}


def steered(script: str) -> dict[str, str]:
    return {"x-simulate": script}


def talk() -> dict[str, Any]:
    answer = litellm.completion(**ASKED, messages=HELLO)
    chunks = list(
        litellm.completion(
            **ASKED, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    built = litellm.stream_chunk_builder(chunks)
    return {
        "whole": answer.choices[0].message.content,
        "streamed": built.choices[0].message.content,
        "pieces": len(chunks),
        "used": [[one.usage.prompt_tokens, one.usage.completion_tokens] for one in (answer, built)],
    }


async def call(turns: int) -> dict[str, Any]:
    """A loop with tools and reasoning, which hands back each message as it got it.

    This model goes on thinking after a tool's result only if its thoughts came back.
    """
    messages: list[Any] = [{"role": "user", "content": "Use get_weather."}]
    ended, reasoned, results = [], [], 0
    for turn in range(turns):
        answer = await litellm.acompletion(
            **{**ASKED, "model": "openai/claude-haiku-4-5"},
            messages=messages,
            tools=[WEATHER],
            reasoning_effort="high",
            allowed_openai_params=["reasoning_effort"],
            extra_headers=steered("" if turn % 2 else "tool=get_weather;tools=2"),
        )
        message = answer.choices[0].message
        ended.append(answer.choices[0].finish_reason)
        reasoned.append(bool(message.reasoning_content))
        messages.append(message)
        for one in message.tool_calls or ():
            results += 1
            json.loads(one.function.arguments)
            messages.append({"role": "tool", "tool_call_id": one.id, "content": f"rain {results}"})
        if not message.tool_calls:
            messages.append({"role": "user", "content": "Once more."})
    return {"ended": ended, "reasoned": reasoned, "said": messages[-2].content}


def shaped() -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "c", "strict": True, "schema": CITY}}
    answer = litellm.completion(**ASKED, messages=HELLO, response_format=form)
    return json.loads(answer.choices[0].message.content)


def failing(**changed: Any) -> list[Any]:
    try:
        list(litellm.completion(**{**ASKED, **changed}, messages=HELLO, stream=True))
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None), str(error)]
    return ["no error"]


report = {
    **talk(),
    "turns": asyncio.run(call(4)),
    "shaped": shaped(),
    "refused": failing(model="openai/gpt-6"),
    "key": failing(api_key="sk-llmapi-nobody"),
    "cut": failing(extra_headers=steered("tokens=20;fault=cut;at=9")),
    "outside": outside,
}
print(json.dumps(report))
