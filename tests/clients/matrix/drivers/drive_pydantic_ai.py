"""pydantic-ai with chat completions, responses and messages."""

import asyncio
import base64
from typing import Any

import cells
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str
    people: int


def agent(name: str = cells.MODEL, key: str = cells.KEY, **options: Any) -> Any:
    if cells.DIALECT == "messages":
        provider: Any = AnthropicProvider(api_key=key, base_url=cells.URL)
        return Agent(AnthropicModel(name, provider=provider), **options)
    provider = OpenAIProvider(api_key=key, base_url=f"{cells.URL}/v1")
    if cells.DIALECT == "chat":
        return Agent(OpenAIChatModel(name, provider=provider), **options)
    # It asks for sealed thoughts only of models that it knows, or that a profile names.
    profile = OpenAIModelProfile(openai_supports_encrypted_reasoning_content=True)
    return Agent(OpenAIResponsesModel(name, provider=provider, profile=profile), **options)


def with_tool(name: str = cells.MODEL, **options: Any) -> Any:
    return agent(name, tools=[cells.get_weather], **options)


def stream() -> list[str]:
    async def read() -> list[str]:
        async with agent().run_stream(cells.HELLO) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(read())


def thinking() -> Any:
    settings: Any = {"openai_reasoning_effort": "high", "openai_reasoning_summary": "auto"}
    if cells.DIALECT == "messages":
        settings = {
            "anthropic_thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 4000,
        }
    return with_tool(cells.THINKER, model_settings=settings).run_sync(cells.USE).output


def picture() -> Any:
    image = BinaryContent(base64.b64decode(cells.PNG), media_type="image/png")
    return agent().run_sync([cells.HELLO, image]).output


cells.run(
    {
        "plain": lambda: agent().run_sync(cells.HELLO).output,
        "stream": stream,
        "loop": lambda: with_tool().run_sync(cells.USE).output,
        "parallel": lambda: with_tool().run_sync(cells.USE).output,
        "structured": lambda: agent(output_type=City).run_sync(cells.CITY_TEXT).output.model_dump(),
        "picture": picture,
        "thinking": (
            "by default, it hands no thoughts back in chat completions"
            if cells.DIALECT == "chat"
            else thinking
        ),
    },
    lambda name, key: agent(name, key).run_sync(cells.HELLO).output,
)
