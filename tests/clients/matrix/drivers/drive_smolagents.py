"""smolagents: OpenAIModel and ToolCallingAgent.

It waits a minute before it repeats a refused request, unless `retry` is off.
"""

import json
from typing import Any

import cells
from PIL import Image
from smolagents import OpenAIModel, ToolCallingAgent, tool

weather = tool(cells.get_weather)


def model(name: str = cells.MODEL, key: str = cells.KEY, **options: Any) -> Any:
    return OpenAIModel(
        model_id=name, api_base=f"{cells.URL}/v1", api_key=key, retry=False, **options
    )


def asked(*more: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": cells.HELLO}, *more]}]


def structured() -> Any:
    """Its models take a response format, as its code agents do."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["name", "people"],
        "additionalProperties": False,
    }
    wish = {
        "type": "json_schema",
        "json_schema": {"name": "city", "strict": True, "schema": schema},
    }
    return json.loads(model().generate(asked(), response_format=wish).content)


def loop(count: int) -> str:
    """Its agent sends results as text, and ends by a call of its tool final_answer."""
    cells.script(f"tool=get_weather;tools={count}", "tool=final_answer")
    agent = ToolCallingAgent(tools=[weather], model=model(), verbosity_level=0)
    return str(agent.run(cells.HELLO, max_steps=2))


cells.run(
    {
        "plain": lambda: model().generate(asked()).content,
        "stream": lambda: [part.content or "" for part in model().generate_stream(asked())],
        "loop": lambda: loop(1),
        "parallel": lambda: loop(2),
        "structured": structured,
        "picture": lambda: (
            model().generate(asked({"type": "image", "image": Image.new("RGB", (1, 1))})).content
        ),
        "thinking": "its agents hand no thoughts back",
    },
    lambda name, key: model(name, key).generate(asked()).content,
)
