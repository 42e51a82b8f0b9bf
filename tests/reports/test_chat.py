"""Section D: what chat clients send and hold."""

import json
from typing import Any

import pytest

from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import (
    FABLE,
    HI,
    LOOK,
    OPUS,
    PNG,
    Desk,
    blocks,
    call,
    desk,
    message,
    respond_with,
    result,
    tool_stream,
    tool_use,
)


async def test_d01_broken_arguments_in_history_are_told(one: Desk) -> None:
    messages = [HI, call("look", '{"q": "x'), result()]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    assert '{"q": "x' in json.dumps(blocks(one.sent, "tool_use")[0]["input"]).replace('\\"', '"')


@pytest.mark.parametrize("arguments", ["[1]", "7", "null", "", "nothing", '"a"', '{"a": 1} x'])
async def test_d01_odd_arguments_in_history_are_told(one: Desk, arguments: str) -> None:
    messages = [HI, call("look", arguments), result()]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    assert isinstance(blocks(one.sent, "tool_use")[0]["input"], dict)


@pytest.mark.parametrize("name", ["browser.tabs.open", "a b", "x" * 200, "größe", "mcp/tool", ""])
async def test_d03_odd_names_in_history_are_mapped(one: Desk, name: str) -> None:
    messages = [HI, call(name, "{}"), result()]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    sent = blocks(one.sent, "tool_use")[0]["name"]
    assert 1 <= len(sent) <= 128
    assert set(sent) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@pytest.mark.parametrize("more", [[], [{"role": "assistant", "content": "And"}]])
async def test_d05_a_trailing_assistant_turn_goes_on(one: Desk, more: list[Any]) -> None:
    messages = [HI, {"role": "assistant", "content": "So far"}, *more]
    answer = await one.ask("chat", {"messages": messages})
    assert answer.status == 200, answer.payload
    assert one.sent["messages"][-1]["role"] == "user"


@pytest.mark.parametrize("streamed", [False, True])
async def test_d07_functions_are_answered_as_functions(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    octets = (
        tool_stream("look", {"q": "x"})
        if streamed
        else respond_with(message(tool_use("look", {"q": "x"}), stop="tool_use"))
    )
    it = await desk(relay_with, upstream_with, octets)
    body = {
        "messages": [HI],
        "functions": [{"name": "look", "parameters": {"type": "object", "properties": {}}}],
        "function_call": "auto",
        "stream": streamed,
    }
    answer = await it.ask("chat", body)
    assert answer.status == 200, answer.payload
    if streamed:
        deltas = [event["choices"][0] for event in answer.events if event["choices"]]
        calls = [one["delta"]["function_call"] for one in deltas if "function_call" in one["delta"]]
        assert calls[0]["name"] == "look"
        assert json.loads("".join(one.get("arguments", "") for one in calls)) == {"q": "x"}
        assert deltas[-1]["finish_reason"] == "function_call"
    else:
        choice = answer.document["choices"][0]
        assert choice["finish_reason"] == "function_call"
        assert choice["message"]["function_call"]["name"] == "look"
        assert json.loads(choice["message"]["function_call"]["arguments"]) == {"q": "x"}


async def test_d07_function_turns_in_history_are_read(one: Desk) -> None:
    messages = [
        HI,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "look", "arguments": '{"q": "x"}'},
        },
        {"role": "function", "name": "look", "content": "seen"},
    ]
    functions = [{"name": "look", "parameters": {"type": "object", "properties": {}}}]
    answer = await one.ask("chat", {"messages": messages, "functions": functions})
    assert answer.status == 200, answer.payload
    used, results = blocks(one.sent, "tool_use"), blocks(one.sent, "tool_result")
    assert used[0]["id"] == results[0]["tool_use_id"]
    assert used[0]["input"] == {"q": "x"}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [("none", {"type": "none"}), ({"name": "look"}, {"type": "tool", "name": "look"})],
)
async def test_d07_function_call_chooses(one: Desk, choice: Any, sent: Any) -> None:
    functions = [{"name": "look", "parameters": {"type": "object", "properties": {}}}]
    body = {"messages": [HI], "functions": functions, "function_call": choice}
    answer = await one.ask("chat", body)
    assert answer.status == 200, answer.payload
    chosen = one.sent["tool_choice"]
    assert {name: chosen[name] for name in sent} == sent


@pytest.mark.parametrize("streamed", [False, True])
async def test_d09_custom_tools_are_called_by_text(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    it = await desk(relay_with, upstream_with, _custom_call(streamed))
    tools = [{"type": "custom", "custom": {"name": "edit", "description": "Edits."}}]
    answer = await it.ask("chat", {"messages": [HI], "tools": tools, "stream": streamed})
    assert answer.status == 200, answer.payload
    if streamed:
        parts = [
            part
            for event in answer.events
            if event["choices"]
            for part in event["choices"][0]["delta"].get("tool_calls", [])
        ]
        assert parts[0]["type"] == "custom"
        assert "".join(part["custom"].get("input", "") for part in parts) == "*** patch"
    else:
        made = answer.document["choices"][0]["message"]["tool_calls"][0]
        assert made["type"] == "custom"
        assert made["custom"] == {"name": "edit", "input": "*** patch"}


def _custom_call(streamed: bool) -> Any:
    async def answer(reader: Any, writer: Any, seen: Any) -> None:
        tool = json.loads(seen.body)["tools"][0]
        (field,) = tool["input_schema"]["properties"]
        arguments = {field: "*** patch"}
        if streamed:
            writer.write(tool_stream("edit", arguments))
        else:
            writer.write(respond_with(message(tool_use("edit", arguments), stop="tool_use")))

    return answer


async def test_d09_custom_calls_in_history_are_read(one: Desk) -> None:
    made = {"id": "call_1", "type": "custom", "custom": {"name": "edit", "input": "*** patch"}}
    messages = [HI, {"role": "assistant", "tool_calls": [made]}, result("done")]
    tools = [{"type": "custom", "custom": {"name": "edit"}}]
    answer = await one.ask("chat", {"messages": messages, "tools": tools})
    assert answer.status == 200, answer.payload
    assert "*** patch" in blocks(one.sent, "tool_use")[0]["input"].values()


@pytest.mark.parametrize("label", ["image/jpeg", "image/webp", "application/octet-stream", ""])
async def test_d11_a_picture_is_labelled_by_its_bytes(one: Desk, label: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:{label};base64,{PNG}"}}
    answer = await one.ask("chat", {"messages": [{"role": "user", "content": [picture]}]})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "image")[0]["source"]["media_type"] == "image/png"


@pytest.mark.parametrize("label", ["image/jpeg", "image/gif"])
async def test_d11_pictures_in_responses_too(one: Desk, label: str) -> None:
    picture = {"type": "input_image", "image_url": f"data:{label};base64,{PNG}"}
    answer = await one.ask("responses", {"input": [{"role": "user", "content": [picture]}]})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "image")[0]["source"]["media_type"] == "image/png"


@pytest.mark.parametrize("streamed", [False, True])
async def test_d13_a_call_finishes_as_tool_calls(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    octets = (
        tool_stream("look", {}, stop="end_turn")
        if streamed
        else respond_with(message(tool_use("look", {}), stop="end_turn"))
    )
    it = await desk(relay_with, upstream_with, octets)
    answer = await it.ask("chat", {"messages": [HI], "tools": [LOOK], "stream": streamed})
    if streamed:
        reasons = [event["choices"][0]["finish_reason"] for event in answer.events]
        assert [reason for reason in reasons if reason] == ["tool_calls"]
    else:
        assert answer.document["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("model", [OPUS, "claude-sonnet-5"])
async def test_d15_adaptive_thinking_goes_with_forced_tools(one: Desk, model: str) -> None:
    body = {"messages": [HI], "reasoning_effort": "high", "tools": [LOOK]}
    answer = await one.ask("chat", {**body, "model": model, "tool_choice": "required"})
    if answer.status == 404:
        pytest.skip("the relay of this test has no such model")
    assert answer.status == 200, answer.payload
    assert one.sent["thinking"]["type"] == "adaptive"
    assert one.sent["output_config"]["effort"] == "high"
    assert one.sent["tool_choice"]["type"] == "any"


async def test_d17_a_model_that_always_thinks_is_left_to_it(one: Desk) -> None:
    for dialect, body in (
        ("chat", {"messages": [HI], "reasoning_effort": "none"}),
        ("responses", {"input": "Hi", "reasoning": {"effort": "none"}}),
    ):
        answer = await one.ask(dialect, {**body, "model": FABLE})
        assert answer.status == 200, answer.payload
        assert one.sent.get("thinking", {}).get("type") != "disabled"


@pytest.mark.parametrize("name", ["browser.tabs.open", "mcp/tool", "x" * 100])
@pytest.mark.parametrize("streamed", [False, True])
async def test_d25_odd_names_of_tools_come_back(
    relay_with: RelayWith, upstream_with: UpstreamWith, name: str, streamed: bool
) -> None:
    async def calling(reader: Any, writer: Any, seen: Any) -> None:
        mapped = json.loads(seen.body)["tools"][0]["name"]
        writer.write(
            tool_stream(mapped, {})
            if streamed
            else respond_with(message(tool_use(mapped, {}), stop="tool_use"))
        )

    it = await desk(relay_with, upstream_with, calling)
    tool = {"type": "function", "function": {**LOOK["function"], "name": name}}  # type: ignore[dict-item]
    answer = await it.ask("chat", {"messages": [HI], "tools": [tool], "stream": streamed})
    assert answer.status == 200, answer.payload
    if streamed:
        deltas = [event["choices"][0]["delta"] for event in answer.events if event["choices"]]
        made = next(part for delta in deltas for part in delta.get("tool_calls", []))
    else:
        made = answer.document["choices"][0]["message"]["tool_calls"][0]
    assert made["function"]["name"] == name


@pytest.mark.parametrize(
    "messages",
    [
        [HI, result("alone")],
        [HI, call("look", "{}"), {"role": "user", "content": "never mind"}],
        [HI, call("look", "{}")],
        [result("first"), HI],
        [HI, call("look", "{}"), result("one"), result("again")],
    ],
    ids=["result-alone", "call-alone", "call-last", "result-first", "twice"],
)
async def test_d26_orphans_are_repaired(one: Desk, messages: list[Any]) -> None:
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    used = [block["id"] for block in blocks(one.sent, "tool_use")]
    answered = [block["tool_use_id"] for block in blocks(one.sent, "tool_result")]
    assert used == answered


async def test_d27_a_body_in_the_other_shape_says_so(one: Desk) -> None:
    answer = await one.ask("chat", {"input": [HI]})
    assert answer.status == 200 or "/v1/responses" in answer.document["error"]["message"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_text", "text": "Look."},
        {"type": "output_text", "text": "Look."},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    ],
    ids=lambda part: part["type"],
)
async def test_d28_parts_of_the_other_api_are_read(one: Desk, part: Any) -> None:
    answer = await one.ask("chat", {"messages": [{"role": "user", "content": [part]}]})
    assert answer.status == 200, answer.payload


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_d29_a_system_message_alone_is_answered(one: Desk, role: str) -> None:
    answer = await one.ask("chat", {"messages": [{"role": role, "content": "Say hello."}]})
    assert answer.status == 200, answer.payload
    assert one.sent["messages"][0]["role"] == "user"


async def test_d30_a_tool_twice_is_one(one: Desk) -> None:
    answer = await one.ask("chat", {"messages": [HI], "tools": [LOOK, LOOK]})
    assert answer.status == 200, answer.payload
    assert len(one.sent["tools"]) == 1


@pytest.mark.parametrize("kind", ["text/x-python", "text/html", "text/csv", "application/json"])
async def test_d32_text_files_are_documents(one: Desk, kind: str) -> None:
    data = f"data:{kind};base64,YSxiCjEsMgo="
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": data}}
    answer = await one.ask("chat", {"messages": [{"role": "user", "content": [part]}]})
    assert answer.status == 200, answer.payload
    assert "a,b\n1,2\n" in json.dumps(blocks(one.sent, "document")).replace("\\n", "\n")


@pytest.mark.parametrize(
    "choice", [{"type": "auto"}, "any", {"type": "any"}, {"type": "function", "name": "look"}]
)
async def test_d34_loose_tool_choices_are_read(one: Desk, choice: Any) -> None:
    answer = await one.ask("chat", {"messages": [HI], "tools": [LOOK], "tool_choice": choice})
    assert answer.status == 200, answer.payload


async def test_d37_a_call_id_twice_is_made_unique(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    twice = message(tool_use("look", {}), tool_use("look", {"q": "x"}), stop="tool_use")
    it = await desk(relay_with, upstream_with, twice)
    answer = await it.ask("chat", {"messages": [HI], "tools": [LOOK]})
    ids = [one["id"] for one in answer.document["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 2


async def test_d38_an_empty_user_turn_after_a_result(one: Desk) -> None:
    messages = [HI, call("look", "{}"), result("seen"), {"role": "user", "content": ""}]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload


async def test_d41_percent_escapes_in_a_data_url(one: Desk) -> None:
    data = PNG.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    answer = await one.ask("chat", {"messages": [{"role": "user", "content": [picture]}]})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "image")[0]["source"]["data"] == PNG
