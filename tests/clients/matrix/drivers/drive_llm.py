"""simonw/llm: its class for an endpoint that speaks chat completions."""

import base64
import json
from typing import Any

import cells
import llm
from llm.default_plugins.openai_models import Chat
from pydantic import BaseModel


class City(BaseModel):
    name: str
    people: int


def model(name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    made = Chat(
        name, api_base=f"{cells.URL}/v1", vision=True, supports_schema=True, supports_tools=True
    )
    made.key = key
    return made


def loop() -> str:
    return str(model().chain(cells.USE, tools=[cells.get_weather]).text())


cells.run(
    {
        "plain": lambda: model().prompt(cells.HELLO, stream=False).text(),
        "stream": lambda: list(model().prompt(cells.HELLO)),
        "loop": loop,
        "parallel": loop,
        "structured": lambda: json.loads(
            model().prompt(cells.CITY_TEXT, schema=City, stream=False).text()
        ),
        "picture": lambda: (
            model()
            .prompt(
                cells.HELLO,
                attachments=[llm.Attachment(content=base64.b64decode(cells.PNG), type="image/png")],
            )
            .text()
        ),
        "thinking": "by default, it hands no thoughts back in chat completions",
    },
    lambda name, key: model(name, key).prompt(cells.HELLO, stream=False).text(),
)
