"""Anthropic's SDK."""

from typing import Any

import cells
from anthropic import Anthropic, beta_tool
from pydantic import BaseModel

weather = beta_tool(cells.get_weather)


class City(BaseModel):
    name: str
    people: int


def client(key: str = cells.KEY) -> Anthropic:
    return Anthropic(api_key=key, base_url=cells.URL)


def asked(content: Any, name: str = cells.MODEL) -> Any:
    return {"model": name, "max_tokens": 4000, "messages": [{"role": "user", "content": content}]}


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def say(name: str, key: str, content: Any = cells.HELLO) -> str:
    return text_of(client(key).messages.create(**asked(content, name)))


def stream() -> list[str]:
    with client().messages.stream(**asked(cells.HELLO)) as pieces:
        return list(pieces.text_stream)


def loop(name: str = cells.MODEL, **options: Any) -> str:
    runner = client().beta.messages.tool_runner(
        **asked(cells.USE, name), tools=[weather], **options
    )
    return text_of(runner.until_done())


def structured() -> Any:
    answer = client().messages.parse(**asked(cells.CITY_TEXT), output_format=City)
    return answer.parsed_output.model_dump()


def picture() -> str:
    source = {"type": "base64", "media_type": "image/png", "data": cells.PNG}
    content = [{"type": "text", "text": cells.HELLO}, {"type": "image", "source": source}]
    return say(cells.MODEL, cells.KEY, content)


cells.run(
    {
        "plain": lambda: say(cells.MODEL, cells.KEY),
        "stream": stream,
        "loop": loop,
        "parallel": loop,
        "structured": structured,
        "picture": picture,
        "thinking": lambda: loop(
            cells.THINKER, thinking={"type": "enabled", "budget_tokens": 1024}
        ),
    },
    say,
)
