"""agno with chat completions, responses and messages."""

import base64
from typing import Any

import cells
from agno.agent import Agent
from agno.media import Image
from agno.models.anthropic import Claude
from agno.models.openai import OpenAIChat, OpenAIResponses
from pydantic import BaseModel


class City(BaseModel):
    name: str
    people: int


def agent(name: str = cells.MODEL, key: str = cells.KEY, **options: Any) -> Any:
    model: Any
    thinks = options.pop("thinks", False)
    if cells.DIALECT == "messages":
        more: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinks else {}
        given = {"base_url": cells.URL}
        model = Claude(id=name, api_key=key, client_params=given, max_tokens=4000, **more)
    else:
        kind = OpenAIResponses if cells.DIALECT == "responses" else OpenAIChat
        more = {"store": False, "include": ["reasoning.encrypted_content"]} if thinks else {}
        if thinks:
            more["reasoning_effort"] = "high"
        model = kind(id=name, api_key=key, base_url=f"{cells.URL}/v1", **more)
    return Agent(model=model, telemetry=False, **options)


def ask(one: Any, text: str = cells.HELLO, **options: Any) -> Any:
    answer = one.run(text, **options)
    if str(getattr(answer.status, "value", answer.status)).lower() == "error":
        raise RuntimeError(answer.content)
    return answer.content


def with_tool(**options: Any) -> Any:
    return ask(agent(tools=[cells.get_weather], **options), cells.USE)


cells.run(
    {
        "plain": lambda: ask(agent()),
        "stream": lambda: [
            event.content or ""
            for event in agent().run(cells.HELLO, stream=True)
            if event.event == "RunContent"
        ],
        "loop": with_tool,
        "parallel": with_tool,
        "structured": lambda: ask(agent(output_schema=City), cells.CITY_TEXT).model_dump(),
        "picture": lambda: ask(agent(), images=[Image(content=base64.b64decode(cells.PNG))]),
        "thinking": (
            "by default, it hands no thoughts back in chat completions"
            if cells.DIALECT == "chat"
            else lambda: with_tool(name=cells.THINKER, thinks=True)
        ),
    },
    lambda name, key: ask(agent(name, key)),
)
