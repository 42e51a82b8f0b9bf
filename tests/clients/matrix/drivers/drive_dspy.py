"""DSPy with chat completions, responses and messages."""

from typing import Any

import cells
import dspy
from pydantic import BaseModel

AGENT = "its agents take calls from the text, and send no tools"


class City(BaseModel):
    name: str
    people: int


class Describe(dspy.Signature):
    """Describe a city."""

    question: str = dspy.InputField()
    city: City = dspy.OutputField()


class Fields(dspy.Signature):
    """Describe a city."""

    question: str = dspy.InputField()
    name: str = dspy.OutputField()
    people: int = dspy.OutputField()


def model(name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    if cells.DIALECT == "messages":
        return dspy.LM(f"anthropic/{name}", api_key=key, api_base=cells.URL, cache=False)
    kind: Any = cells.DIALECT
    base = f"{cells.URL}/v1"
    return dspy.LM(f"openai/{name}", model_type=kind, api_key=key, api_base=base, cache=False)


def say(name: str = cells.MODEL, key: str = cells.KEY) -> Any:
    answer = model(name, key)(cells.HELLO)[0]
    return answer if isinstance(answer, str) else answer["text"]


def stream() -> list[Any]:
    """A program passes the chunks of its model on, and ends with the fields of its answer."""
    program = dspy.streamify(dspy.Predict(Fields), async_streaming=False)
    with dspy.context(lm=model(), adapter=dspy.JSONAdapter()):
        return [
            part.toDict() if isinstance(part, dspy.Prediction) else str(part)
            for part in program(question=cells.CITY_TEXT)
        ]


def structured() -> Any:
    with dspy.context(lm=model(), adapter=dspy.JSONAdapter()):
        return dspy.Predict(Describe)(question=cells.CITY_TEXT).city.model_dump()


cells.run(
    {
        "plain": say,
        "stream": stream,
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
        "thinking": "its programs ask anew each time, and keep no thoughts",
    },
    say,
)
