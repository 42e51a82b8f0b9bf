"""instructor with chat completions, responses and messages."""

from typing import Any

import cells
import instructor
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel

LOOP = "it returns structures and leaves the loop with tools to its caller"
CHAT = "it returns structures and keeps no conversation"


class City(BaseModel):
    name: str
    people: int


def client(key: str = cells.KEY) -> Any:
    if cells.DIALECT == "messages":
        return instructor.from_anthropic(Anthropic(api_key=key, base_url=cells.URL))
    mode = instructor.Mode.TOOLS
    if cells.DIALECT == "responses":
        mode = instructor.Mode.RESPONSES_TOOLS
    return instructor.from_openai(OpenAI(api_key=key, base_url=f"{cells.URL}/v1"), mode=mode)


def arguments(content: Any = cells.CITY_TEXT, name: str = cells.MODEL) -> dict[str, Any]:
    asked = {"model": name, "messages": [{"role": "user", "content": content}]}
    return {**asked, "max_tokens": 1000} if cells.DIALECT == "messages" else asked


def city(content: Any = cells.CITY_TEXT, name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    return client(key).create(response_model=City, **arguments(content, name)).model_dump()


def stream() -> Any:
    parts = client().create_partial(response_model=City, **arguments())
    return [part.model_dump() for part in parts]


cells.run(
    {
        "plain": CHAT,
        "stream": stream,
        "loop": LOOP,
        "parallel": LOOP,
        "structured": city,
        "picture": lambda: city(
            [
                cells.CITY_TEXT,
                instructor.Image.from_base64(f"data:image/png;base64,{cells.PNG}"),
            ]
        ),
        "thinking": CHAT,
    },
    lambda name, key: city(name=name, key=key),
)
