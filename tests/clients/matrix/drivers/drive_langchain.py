"""LangChain: ChatOpenAI with chat completions and responses, and ChatAnthropic."""

from typing import Any

import cells
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

weather = tool(cells.get_weather)


class City(BaseModel):
    name: str
    people: int


def model(name: str = cells.MODEL, key: str = cells.KEY, **options: Any) -> Any:
    if cells.DIALECT == "messages":
        return ChatAnthropic(model=name, api_key=key, base_url=cells.URL, **options)
    responses = cells.DIALECT == "responses"
    return ChatOpenAI(
        model=name, api_key=key, base_url=f"{cells.URL}/v1", use_responses_api=responses, **options
    )


def thinker() -> Any:
    if cells.DIALECT == "messages":
        budget = {"type": "enabled", "budget_tokens": 1024}
        return model(cells.THINKER, thinking=budget, max_tokens=4000)
    return model(
        cells.THINKER,
        reasoning={"effort": "high", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    )


def loop(chat: Any) -> Any:
    chat = chat.bind_tools([weather])
    messages: list[Any] = [HumanMessage(cells.USE)]
    for _ in range(4):
        answer = chat.invoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            break
        for call in answer.tool_calls:
            messages.append(ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]))
    return answer.text


def picture() -> Any:
    block = {"type": "image", "base64": cells.PNG, "mime_type": "image/png"}
    return model().invoke([HumanMessage([{"type": "text", "text": cells.HELLO}, block])]).text


cells.run(
    {
        "plain": lambda: model().invoke(cells.HELLO).text,
        "stream": lambda: [chunk.text for chunk in model().stream(cells.HELLO)],
        "loop": lambda: loop(model()),
        "parallel": lambda: loop(model()),
        "structured": lambda: (
            model().with_structured_output(City).invoke(cells.CITY_TEXT).model_dump()
        ),
        "picture": picture,
        "thinking": (
            "by default, it hands no thoughts back in chat completions"
            if cells.DIALECT == "chat"
            else lambda: loop(thinker())
        ),
    },
    lambda name, key: model(name, key).invoke(cells.HELLO).text,
)
