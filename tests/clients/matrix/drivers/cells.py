"""Runs the cells of one client and prints a JSON line for each. Used by the drivers beside it.

Arguments: the dialect, and the URLs and keys of the relay and of its simulated upstream. A
driver's cell is a function, or a reason why the client has no such thing. Nothing but loopback
is reached.
"""

import json
import sys
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from typing import Any

import loopback  # noqa: F401 - nothing beyond it is reached from here on

DIALECT, URL, UPSTREAM, KEY, SPENT_KEY = sys.argv[1:]
MODEL = "claude-sonnet-4-7"
THINKER = "claude-haiku-4-5"  # thinks after a tool's result only if its thoughts came back
HELLO = "Hello from the matrix"
USE = "Use get_weather."
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CITY_TEXT = "Describe a city."

calls: list[str] = []
Cell = Callable[[], Any] | str

warnings.simplefilter("ignore")


def get_weather(city: str) -> str:
    """Say the weather of a city.

    Args:
        city: the name of the city
    """
    calls.append(city)
    return f"rain {len(calls)}"


def chat_loop(ask: Callable[[list[Any]], Any]) -> Any:
    """The last text of a loop with tools; `ask` gives an SDK's message for a conversation."""
    messages: list[Any] = [{"role": "user", "content": USE}]
    while True:
        message = ask(messages)
        messages.append(message)
        if not message.tool_calls:
            return message.content
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def responses_loop(ask: Callable[[list[Any]], Any]) -> Any:
    """The same with an SDK's response for a list of items."""
    given: list[Any] = [{"role": "user", "content": USE}]
    while True:
        answer = ask(given)
        given += answer.output
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return answer.output_text
        for call in calls:
            result = get_weather(**json.loads(call.arguments))
            output = {"call_id": call.call_id, "output": result}
            given.append({"type": "function_call_output", **output})


def script(*steps: str) -> None:
    """Script the upstream's next answers."""
    body = json.dumps(steps).encode()
    request = urllib.request.Request(f"{UPSTREAM}/simulate/script", data=body, method="PUT")
    urllib.request.urlopen(request).close()


def run(cells: dict[str, Cell], say: Callable[[str, str], Any]) -> None:
    """Run each cell; `say` asks for a plain answer of a model with a key."""
    for name, cell in cells.items():
        if isinstance(cell, str):
            print(json.dumps({"cell": name, "none": cell}), flush=True)
            continue
        urllib.request.urlopen(f"{UPSTREAM}/simulate/requests?cell={name}").close()
        calls.clear()
        script()
        if name == "parallel":
            # A request that the upstream refuses takes a step too. After a result, a step calls
            # no tool.
            script(*["tool=get_weather;tools=2"] * 3)
        try:
            report = {"cell": name, "returned": cell(), "calls": len(calls)}
        except Exception:
            report = {"cell": name, "raised": traceback.format_exc()[-3000:]}
        print(json.dumps(report), flush=True)
    for name, model, key in (("unknown", "no-such-model", KEY), ("quota", MODEL, SPENT_KEY)):
        try:
            shown = f"an answer: {say(model, key)}"
        except Exception as error:
            shown = str(error)
        print(json.dumps({"cell": name, "returned": shown}), flush=True)
