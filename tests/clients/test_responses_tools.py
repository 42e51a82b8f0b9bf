"""Tools of the Responses API: each kind is called by the model and answered."""

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients.responses import STREAMED, WEATHER, ask, items, result
from tests.clients.test_openai_sdk import HI, MODEL, Mood

# --- tools --------------------------------------------------------------------------

FIND: Any = {"type": "function", "name": "find", "parameters": WEATHER["parameters"]}
TOOLS: dict[str, tuple[Any, str, str]] = {  # tool, name of its function, type of its calls
    "function": (WEATHER, "get_weather", "function_call"),
    "custom": ({"type": "custom", "name": "note"}, "note", "custom_tool_call"),
    "grammar": (
        {
            "type": "custom",
            "name": "note",
            "description": "Takes a note.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        "note",
        "custom_tool_call",
    ),
    "namespace": (
        {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FIND]},
        "crm__find",
        "function_call",
    ),
    "local_shell": ({"type": "local_shell"}, "local_shell", "local_shell_call"),
    "shell": ({"type": "shell"}, "shell", "shell_call"),
    "apply_patch": ({"type": "apply_patch"}, "apply_patch", "apply_patch_call"),
}


def called(call: Any) -> Any:
    """The input of a call."""
    match call.type:
        case "function_call":
            return call.namespace, call.name, json.loads(call.arguments)
        case "custom_tool_call":
            return call.name, call.input
        case "apply_patch_call":
            return call.operation.type, call.operation.path, call.operation.diff
        case _:
            return call.action.to_dict()


CALLED: dict[str, Any] = {
    "function": (None, "get_weather", {"city": "simulated city"}),
    "custom": ("note", "simulated input"),
    "grammar": ("note", "simulated input"),
    "namespace": ("crm", "find", {"city": "simulated city"}),
    "apply_patch": ("create_file", "simulated.txt", "+hello\n"),
}


@pytest.mark.parametrize("name", TOOLS)
@STREAMED
async def test_each_kind_of_tool_is_called_and_answers(
    gpt: openai.AsyncOpenAI, streamed: bool, name: str
) -> None:
    tool, function, kind = TOOLS[name]
    said: list[Any] = [*HI]
    for turn in range(2):
        response = await ask(gpt, streamed, f"tool={function};tools=2", input=said, tools=[tool])
        assert response.status == "completed"
        calls = response.output
        assert [(call.type, call.status) for call in calls] == [(kind, "completed")] * 2
        assert len({call.call_id for call in calls}) == len({call.id for call in calls}) == 2
        # The second of two patches writes a file of its own.
        for call in calls[:1] if name == "apply_patch" else calls:
            assert name not in CALLED or called(call) == CALLED[name]
        said += calls
        said += [result(call, f"rain {turn}") for call in calls]

        response = await ask(gpt, streamed, input=said, tools=[tool])
        assert response.output_text.startswith("Done. The tool answered:")
        assert f"rain {turn}" in response.output_text
        said += [*response.output, *HI]


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    mood: Mood


@STREAMED
async def test_a_pydantic_function_is_called_with_its_model(
    gpt: openai.AsyncOpenAI, streamed: bool
) -> None:
    asked: Any = {
        "model": MODEL,
        "input": HI,
        "tools": [openai.pydantic_function_tool(GetWeather)],
        "tool_choice": "required",
    }
    if streamed:
        async with gpt.responses.stream(**asked) as stream:
            response: Any = await stream.get_final_response()
    else:
        response = await gpt.responses.parse(**asked)
    [call] = response.output
    assert call.name == "GetWeather"
    assert call.parsed_arguments == GetWeather(city="simulated city", mood=Mood.GOOD)
    said: list[Any] = [
        *HI,
        *response.output,
        result(call, "rain"),
    ]  # parsed items are accepted as input
    response = await ask(gpt, streamed, input=said, tools=[WEATHER])
    assert response.output_text == "Done. The tool answered: rain"


@pytest.mark.parametrize(
    ("choice", "script", "calls"),
    [
        ("none", "", 0),
        ("auto", "", 0),
        ("required", "", 1),
        ({"type": "function", "name": "find"}, "", 1),
        ({"type": "allowed_tools", "mode": "required", "tools": [{**FIND}]}, "", 1),
    ],
    ids=["none", "auto", "required", "function", "allowed"],
)
async def test_the_choice_of_a_tool_is_the_callers(
    gpt: openai.AsyncOpenAI, choice: Any, script: str, calls: int
) -> None:
    response = await ask(gpt, False, script, input=HI, tools=[WEATHER, FIND], tool_choice=choice)
    assert len(items(response, "function_call")) == calls
    if isinstance(choice, dict):
        assert response.output[0].name == "find"


async def test_parallel_tool_calls_may_be_switched_off(gpt: openai.AsyncOpenAI) -> None:
    response = await ask(
        gpt,
        False,
        "tool=get_weather;tools=3",
        input=HI,
        tools=[WEATHER],
        parallel_tool_calls=False,
    )
    assert len(response.output) == 1
