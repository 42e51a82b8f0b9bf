"""The OpenAI Agents SDK with chat completions and responses."""

import asyncio
from typing import Any

import cells
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(True)
weather = function_tool(cells.get_weather)


class City(BaseModel):
    name: str
    people: int


def agent(name: str = cells.MODEL, key: str = cells.KEY, **options: Any) -> Any:
    client = AsyncOpenAI(api_key=key, base_url=f"{cells.URL}/v1")
    kind = OpenAIResponsesModel if cells.DIALECT == "responses" else OpenAIChatCompletionsModel
    return Agent(name="Assistant", model=kind(model=name, openai_client=client), **options)


def ask(given: Any, one: Any) -> Any:
    return asyncio.run(Runner.run(one, given)).final_output


def stream() -> list[str]:
    async def read() -> list[str]:
        result = Runner.run_streamed(agent(), cells.HELLO)
        return [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]

    return asyncio.run(read())


def picture() -> Any:
    image = {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{cells.PNG}",
        "detail": "auto",
    }
    content = [{"type": "input_text", "text": cells.HELLO}, image]
    return ask([{"role": "user", "content": content}], agent())


def thinking() -> Any:
    settings = ModelSettings(
        reasoning=Reasoning(effort="high", summary="auto"),
        store=False,
        response_include=["reasoning.encrypted_content"],
    )
    return ask(cells.USE, agent(cells.THINKER, tools=[weather], model_settings=settings))


cells.run(
    {
        "plain": lambda: ask(cells.HELLO, agent()),
        "stream": stream,
        "loop": lambda: ask(cells.USE, agent(tools=[weather])),
        "parallel": lambda: ask(cells.USE, agent(tools=[weather])),
        "structured": lambda: ask(cells.CITY_TEXT, agent(output_type=City)).model_dump(),
        "picture": picture,
        "thinking": (
            "by default, it hands no thoughts back in chat completions"
            if cells.DIALECT == "chat"
            else thinking
        ),
    },
    lambda name, key: ask(cells.HELLO, agent(name, key)),
)
