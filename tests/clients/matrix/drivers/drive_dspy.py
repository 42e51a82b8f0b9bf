"""DSPy with chat completions, responses and messages."""

from typing import Any

import cells
import dspy
from pydantic import BaseModel

AGENT = "not tried: by default, its agents take calls from the text"


class City(BaseModel):
    name: str
    people: int


class Describe(dspy.Signature):
    """Describe a city."""

    question: str = dspy.InputField()
    city: City = dspy.OutputField()


def model(name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    if cells.DIALECT == "messages":
        return dspy.LM(f"anthropic/{name}", api_key=key, api_base=cells.URL, cache=False)
    kind: Any = cells.DIALECT
    base = f"{cells.URL}/v1"
    return dspy.LM(f"openai/{name}", model_type=kind, api_key=key, api_base=base, cache=False)


def say(name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    answer = model(name, key)(cells.HELLO)[0]
    return answer if isinstance(answer, str) else answer["text"]


def structured() -> Any:
    with dspy.context(lm=model(), adapter=dspy.JSONAdapter()):
        return dspy.Predict(Describe)(question=cells.CITY_TEXT).city.model_dump()


cells.run(
    {
        "plain": say,
        "stream": "not tried: it streams the fields of a program",
        "loop": AGENT,
        "parallel": AGENT,
        "structured": structured,
        "picture": lambda: model()(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": cells.HELLO},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{cells.PNG}"},
                        },
                    ],
                }
            ]
        ),
        "thinking": "not tried: its programs ask anew each time",
    },
    say,
)
