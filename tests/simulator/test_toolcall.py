"""The simulated model calls the tool that a request asks for, with arguments that fit it."""

from typing import Any

import orjson
import pytest

from relay.simulator import strict, toolcall
from relay.simulator.toolcall import example

from . import samples
from .answers import SEAL, compose, follow
from .samples import BASH, CLAUDE_CODE_BETAS, WEATHER, WRITE, plain


@pytest.mark.parametrize(
    ("words", "path", "content"),
    [
        ("write hello to out.txt", "out.txt", "hello"),
        ('Write "two words" into a new file called `notes/day-1.md`.', "notes/day-1.md", None),
        ("create the file hello.py with print(1)", "hello.py", "print(1)"),
        ("Create a file named /tmp/x/y.txt containing the text 'abc'.", "/tmp/x/y.txt", "abc"),
        ("make a new file called proof.txt", "proof.txt", "hello"),
        ("Write the word banana to ./fruit.txt please", "./fruit.txt", "the word banana"),
    ],
)
def test_a_request_for_a_file_is_understood(
    words: str, path: str | None, content: str | None
) -> None:
    found = toolcall.requested_file(words)
    if path is not None:
        assert found is not None
        assert found.path == path
    if content is not None:
        assert found is not None
        assert found.content == content


@pytest.mark.parametrize("words", ["hello", "what is in out.txt?", "Say hi to everyone"])
def test_other_texts_ask_for_no_file(words: str) -> None:
    assert toolcall.requested_file(words) is None


def test_claude_code_writes_the_file_and_gets_its_result() -> None:
    request = samples.claude_code("write hello to out.txt")
    first = compose(request)
    thinking, call = first.blocks
    assert thinking["type"] == "thinking"
    assert call["name"] == "Write"
    assert call["input"] == {"file_path": "/tmp/project/out.txt", "content": "hello"}
    assert first.stop_reason == "tool_use"
    second_request = follow(request, first)
    strict.check(second_request, strict.betas(CLAUDE_CODE_BETAS), SEAL)
    second = compose(second_request)
    assert second.blocks[-1]["text"] == "Done. The tool answered: it went well"
    assert second.stop_reason == "end_turn"


def test_the_answer_reports_a_failed_tool() -> None:
    request = samples.claude_code()
    composed = compose(follow(request, compose(request), is_error=True, content="no such folder"))
    assert composed.blocks[-1]["text"] == "The tool failed: no such folder"


def test_without_a_tool_for_files_a_shell_writes_the_file() -> None:
    composed = compose(plain("write it's me to a.txt", tools=[WEATHER, BASH]))
    assert composed.blocks[0]["input"] == {"command": "printf '%s\\n' 'it'\"'\"'s me' > a.txt"}


def test_a_path_is_found_whatever_the_case_of_its_argument() -> None:
    properties = {"filePath": {"type": "string"}, "content": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": ["filePath", "content"]}
    tool = {"name": "write", "input_schema": schema}
    composed = compose(plain("write hello to a.txt", tools=[tool]))
    assert composed.blocks[0]["input"] == {"filePath": "a.txt", "content": "hello"}


def test_parallel_calls_write_a_file_each() -> None:
    properties = {"path": {"type": "string"}, "content": {"type": "string"}}
    tool = {"name": "write", "input_schema": {"type": "object", "properties": properties}}
    request = plain("write hello to a.txt", tools=[tool])
    composed = compose(request, "tool=write;tools=2")
    inputs = [block["input"] for block in composed.blocks]
    assert inputs == [
        {"path": "a.txt", "content": "hello"},
        {"path": "a.txt.2", "content": "hello"},
    ]


def test_any_other_tool_gets_arguments_that_fit_its_schema() -> None:
    composed = compose(plain(tools=[WEATHER], tool_choice={"type": "any"}))
    assert composed.blocks[0]["input"] == {"city": "simulated city", "unit": "celsius", "days": 2}


ODD: list[Any] = ["x", 1, 10**30, None, [], {}, {"a": 1}, [None, [], "a"]]
NAMES = ["type", "properties", "required", "minItems", "minLength", "enum", "anyOf", "$ref"]


@pytest.mark.parametrize("kind", ["object", "array", "string"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("odd", ODD)
def test_a_schema_that_is_none_is_no_error(kind: str, name: str, odd: Any) -> None:
    schema = {"type": kind, "items": {}, "required": ["a"], name: odd}
    orjson.dumps(example(schema, schema))


def test_a_tool_that_the_user_names_is_called() -> None:
    composed = compose(plain("Please use get_weather for Paris", tools=[WRITE, WEATHER]))
    assert composed.blocks[0]["name"] == "get_weather"


def test_codex_writes_the_file_in_its_shell() -> None:
    request = samples.codex("write hello world to proof.txt")
    first = compose(request)
    call = first.blocks[-1]
    assert (call["name"], first.stop_reason) == ("exec_command", "tool_use")
    assert call["input"] == {"cmd": "printf '%s\\n' 'hello world' > proof.txt"}
    second_request = follow(request, first)
    strict.check(second_request, frozenset(), SEAL)
    assert compose(second_request).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "words",
    ["write hello world to proof.txt with a patch", "apply_patch: write hello world to proof.txt"],
)
def test_a_request_for_a_patch_gets_one(words: str) -> None:
    call = compose(samples.codex(words)).blocks[-1]
    assert call["name"] == "apply_patch"
    assert call["input"] == {
        "input": "*** Begin Patch\n*** Add File: proof.txt\n+hello world\n*** End Patch"
    }


def test_without_a_tool_for_patches_the_word_has_no_effect() -> None:
    request = samples.codex("write hello to a.txt with a patch", tools=[samples.EXEC_COMMAND])
    assert compose(request).blocks[-1]["name"] == "exec_command"


def test_a_tool_for_patches_always_gets_a_patch() -> None:
    call = compose(samples.codex("use the tool apply_patch")).blocks[-1]
    assert call["name"] == "apply_patch"
    assert call["input"]["input"].startswith("*** Begin Patch\n*** Add File: ")


def test_a_tool_for_diffs_gets_the_new_file() -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": {"type": "string"},
            "diff": {"type": "string"},
        },
        "required": ["type", "path"],
    }
    tools = [{"name": "apply_patch", "input_schema": schema}]
    call = compose(samples.codex("write hi to a.txt as a patch", tools=tools)).blocks[-1]
    assert call["input"] == {"type": "create_file", "path": "a.txt", "diff": "+hi\n"}


def test_a_tool_in_a_group_has_a_short_and_a_full_name() -> None:
    for name in ("close_agent", "multi_agent_v1__close_agent"):
        call = compose(samples.codex(f"use the tool {name}")).blocks[-1]
        assert call["name"] == "multi_agent_v1__close_agent"
        assert call["input"] == {"target": "simulated target"}


@pytest.mark.parametrize(
    ("tool", "member", "value"),
    [
        ("shell", "commands", ["printf '%s\\n' hi > a.txt"]),
        ("local_shell", "command", ["bash", "-c", "printf '%s\\n' hi > a.txt"]),
    ],
)
def test_a_shell_that_takes_a_list_gets_a_list(tool: str, member: str, value: list[str]) -> None:
    schema = {
        "type": "object",
        "properties": {member: {"type": "array", "items": {"type": "string"}}},
        "required": [member],
    }
    tools = [{"name": tool, "input_schema": schema}]
    assert compose(plain("write hi to a.txt", tools=tools)).blocks[0]["input"] == {member: value}


def test_no_tool_is_called_unless_the_request_allows_and_asks() -> None:
    request = plain("write a to b.txt", tools=[WRITE], tool_choice={"type": "none"})
    assert compose(request).stop_reason == "end_turn"
    assert compose(plain("hello", tools=[WRITE])).stop_reason == "end_turn"


def test_parallel_calls_have_different_ids() -> None:
    request = plain(tools=[WEATHER])
    composed = compose(request, "tool=get_weather;tools=3")
    ids = [block["id"] for block in composed.blocks]
    assert len(set(ids)) == 3
    strict.check(follow(request, composed), frozenset(), SEAL)


def test_disabled_parallel_calls_are_not_made() -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    composed = compose(plain(tools=[WEATHER], tool_choice=choice), "tools=3")
    assert len(composed.blocks) == 1


def test_a_scripted_tool_is_called_once() -> None:
    request = plain(tools=[WEATHER])
    first = compose(request, "tool=get_weather")
    assert compose(follow(request, first), "tool=get_weather").stop_reason == "end_turn"
