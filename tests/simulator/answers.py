"""Answers of the simulated model to requests, and the next requests of an agent."""

from typing import Any

from relay.simulator import answer
from relay.simulator.answer import Answer
from relay.simulator.script import NORMAL, parse
from relay.simulator.seal import Seal

from .samples import JSON

SEAL = Seal("test")


def compose(request: JSON, script: str = "", number: str = "0123456789abcdef012345") -> Answer:
    return answer.compose(request, parse(script) if script else NORMAL, SEAL, number)


def follow(request: JSON, answered: Answer, **result: Any) -> JSON:
    """The next request of an agent, with the results of all tool calls."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "it went well", **result}
        for block in answered.blocks
        if block["type"] == "tool_use"
    ]
    messages = [
        *request["messages"],
        {"role": "assistant", "content": answered.blocks},
        {"role": "user", "content": results},
    ]
    return request | {"messages": messages}


def only_text(answered: Answer) -> str:
    (block,) = answered.blocks
    assert block["type"] == "text"
    return str(block["text"])
