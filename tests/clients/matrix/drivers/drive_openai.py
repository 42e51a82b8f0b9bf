"""OpenAI's SDK with chat completions and responses."""

from typing import Any, ClassVar

import cells
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel


class City(BaseModel):
    name: str
    people: int


class GetWeather(BaseModel):
    city: str


SCHEMA = GetWeather.model_json_schema() | {"additionalProperties": False}
DATA = f"data:image/png;base64,{cells.PNG}"


def client(key: str = cells.KEY) -> OpenAI:
    return OpenAI(api_key=key, base_url=f"{cells.URL}/v1")


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


class Chat:
    picture: ClassVar[list[Any]] = [
        {"type": "text", "text": cells.HELLO},
        {"type": "image_url", "image_url": {"url": DATA}},
    ]

    def say(self, name: str, key: str, content: Any = cells.HELLO) -> Any:
        answer = client(key).chat.completions.create(model=name, messages=user(content))
        return answer.choices[0].message.content

    def stream(self) -> list[str]:
        asked: Any = {"model": cells.MODEL, "messages": user(cells.HELLO)}
        with client().chat.completions.stream(**asked) as events:
            return [event.delta for event in events if event.type == "content.delta"]

    def loop(self, name: str = cells.MODEL, **options: Any) -> Any:
        tool = pydantic_function_tool(GetWeather, name="get_weather")

        def ask(messages: list[Any]) -> Any:
            asked: Any = {"model": name, "messages": messages, "tools": [tool], **options}
            return client().chat.completions.create(**asked).choices[0].message

        return cells.chat_loop(ask)

    def thinking(self) -> Any:
        return self.loop(cells.THINKER, reasoning_effort="high")

    def structured(self) -> Any:
        answer = client().chat.completions.parse(
            model=cells.MODEL, messages=user(cells.CITY_TEXT), response_format=City
        )
        return answer.choices[0].message.parsed


class Responses:
    picture: ClassVar[list[Any]] = [
        {"type": "input_text", "text": cells.HELLO},
        {"type": "input_image", "detail": "auto", "image_url": DATA},
    ]

    def say(self, name: str, key: str, content: Any = cells.HELLO) -> Any:
        return client(key).responses.create(model=name, input=user(content)).output_text

    def stream(self) -> list[str]:
        with client().responses.stream(model=cells.MODEL, input=cells.HELLO) as events:
            return [event.delta for event in events if event.type == "response.output_text.delta"]

    def loop(self, name: str = cells.MODEL, **options: Any) -> Any:
        tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}

        def ask(given: list[Any]) -> Any:
            asked: Any = {"model": name, "input": given, "tools": [tool], **options}
            return client().responses.create(**asked)

        return cells.responses_loop(ask)

    def thinking(self) -> Any:
        return self.loop(
            cells.THINKER,
            reasoning={"effort": "high", "summary": "auto"},
            store=False,
            include=["reasoning.encrypted_content"],
        )

    def structured(self) -> Any:
        answer = client().responses.parse(
            model=cells.MODEL, input=cells.CITY_TEXT, text_format=City
        )
        return answer.output_parsed


api: Any = Chat() if cells.DIALECT == "chat" else Responses()
cells.run(
    {
        "plain": lambda: api.say(cells.MODEL, cells.KEY),
        "stream": api.stream,
        "loop": api.loop,
        "parallel": api.loop,
        "structured": lambda: api.structured().model_dump(),
        "picture": lambda: api.say(cells.MODEL, cells.KEY, api.picture),
        "thinking": api.thinking,
    },
    api.say,
)
