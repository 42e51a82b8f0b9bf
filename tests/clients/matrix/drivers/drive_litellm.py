"""LiteLLM: its OpenAI provider with chat completions and responses, its Anthropic provider."""

import json
from typing import Any, ClassVar

import cells
import litellm
from pydantic import BaseModel


class City(BaseModel):
    name: str
    people: int


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
DATA = f"data:image/png;base64,{cells.PNG}"
MESSAGES = cells.DIALECT == "messages"


def options(name: str = cells.MODEL, key: str = cells.KEY) -> dict[str, Any]:
    provider, base = ("anthropic", cells.URL) if MESSAGES else ("openai", f"{cells.URL}/v1")
    return {"model": f"{provider}/{name}", "api_base": base, "api_key": key, "num_retries": 0}


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


class Completion:
    picture: ClassVar[list[Any]] = [
        {"type": "text", "text": cells.HELLO},
        {"type": "image_url", "image_url": {"url": DATA}},
    ]

    def say(self, name: str, key: str, content: Any = cells.HELLO) -> Any:
        answer = litellm.completion(**options(name, key), messages=user(content))
        return answer.choices[0].message.content

    def stream(self) -> list[str]:
        chunks = litellm.completion(**options(), messages=user(cells.HELLO), stream=True)
        return [chunk.choices[0].delta.content or "" for chunk in chunks]

    def loop(self, name: str = cells.MODEL, **more: Any) -> Any:
        tool = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}

        def ask(messages: list[Any]) -> Any:
            answer = litellm.completion(**options(name), messages=messages, tools=[tool], **more)
            return answer.choices[0].message

        return cells.chat_loop(ask)

    def thinking(self) -> Any:
        more: dict[str, Any] = {"reasoning_effort": "high"}
        if not MESSAGES:  # it knows the effort of OpenAI's own models only
            more["allowed_openai_params"] = ["reasoning_effort"]
        return self.loop(cells.THINKER, **more)

    def structured(self) -> Any:
        answer = litellm.completion(
            **options(), messages=user(cells.CITY_TEXT), response_format=City
        )
        return json.loads(answer.choices[0].message.content)


class Responses:
    picture: ClassVar[list[Any]] = [
        {"type": "input_text", "text": cells.HELLO},
        {"type": "input_image", "detail": "auto", "image_url": DATA},
    ]

    def say(self, name: str, key: str, content: Any = cells.HELLO) -> Any:
        return litellm.responses(**options(name, key), input=user(content)).output_text

    def stream(self) -> list[str]:
        events = litellm.responses(**options(), input=cells.HELLO, stream=True)
        return [event.delta for event in events if event.type == "response.output_text.delta"]

    def loop(self, name: str = cells.MODEL, **more: Any) -> Any:
        tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}

        def ask(given: list[Any]) -> Any:
            return litellm.responses(**options(name), input=given, tools=[tool], **more)

        return cells.responses_loop(ask)

    def thinking(self) -> Any:
        return self.loop(
            cells.THINKER,
            reasoning={"effort": "high", "summary": "auto"},
            store=False,
            include=["reasoning.encrypted_content"],
            allowed_openai_params=["reasoning", "include"],
        )

    def structured(self) -> Any:
        answer = litellm.responses(**options(), input=cells.CITY_TEXT, text_format=City)
        return json.loads(answer.output_text)


api: Any = Responses() if cells.DIALECT == "responses" else Completion()
cells.run(
    {
        "plain": lambda: api.say(cells.MODEL, cells.KEY),
        "stream": api.stream,
        "loop": api.loop,
        "parallel": api.loop,
        "structured": api.structured,
        "picture": lambda: api.say(cells.MODEL, cells.KEY, api.picture),
        "thinking": api.thinking,
    },
    api.say,
)
