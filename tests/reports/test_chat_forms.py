"""Sections D and E once more: further forms of what chat clients send, and their faults."""

import json
from typing import Any

import pytest

from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import (
    HI,
    LOOK,
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


def part(type: str, **members: Any) -> dict[str, Any]:
    return {"type": type, **members}


MCP_IMAGE = part("image", data=PNG, mimeType="image/png")


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [
        ([part("text", text="x"), MCP_IMAGE], ["text", "image"]),
        ([part("resource", resource={"uri": "file:///a", "text": " "})], []),
        ([part("resource_link", uri="file:///a", name="notes")], ["text"]),
        ([part("input_file", file_data="data:text/csv;base64,YSxiCg==")], ["document"]),
        ([part("input_image", image_url=f"data:image/png;base64,{PNG}")], ["image"]),
    ],
    ids=["mcp", "blank", "link", "file", "image"],
)
async def test_e01_results_have_the_parts_of_mcp(one: Desk, parts: Any, kinds: list[str]) -> None:
    messages = [HI, call("look", "{}"), {**result(), "content": parts}]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    (sent,) = blocks(one.sent, "tool_result")
    assert [block["type"] for block in sent.get("content", [])] == kinds


async def test_d28_calls_and_results_as_parts_are_paired(one: Desk) -> None:
    thought = part("thinking", thinking="Hm.", signature="s")
    used = part("tool_use", id="t1", name="look", input={"q": "x"})
    given = part("tool_result", tool_use_id="t1", content="seen", is_error=True)
    orphan = part("tool_result", tool_use_id="t9", content="lost")
    messages = [
        HI,
        {"role": "assistant", "content": [thought, part("text", text="Looking."), used]},
        {"role": "user", "content": [given, orphan, part("text", text="And?")]},
    ]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    (sent,) = blocks(one.sent, "tool_result")
    assert sent["tool_use_id"] == blocks(one.sent, "tool_use")[0]["id"]
    assert (sent["is_error"], sent["content"][0]["text"]) == (True, "seen")
    assert "lost" in json.dumps(one.sent["messages"][-1])


async def test_d28_a_second_result_of_a_call_stays(one: Desk) -> None:
    used = part("tool_use", id="t1", name="look", input={})
    given = [part("tool_result", tool_use_id="t1", content=text) for text in ("one", "two")]
    messages = [
        HI,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": given},
    ]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    assert len(blocks(one.sent, "tool_result")) == 1
    assert "two" in json.dumps(one.sent["messages"][-1])


async def test_d28_a_call_in_both_forms_is_one(one: Desk) -> None:
    used = part("tool_use", id="call_1", name="look", input={})
    messages = [HI, {**call("look", "{}"), "content": [used]}, result("seen")]
    answer = await one.ask("chat", {"messages": messages, "tools": [LOOK]})
    assert answer.status == 200, answer.payload
    assert len(blocks(one.sent, "tool_use")) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [part("retrieval")]}, "tools[0].type"),
        ({"tools": [part("custom")]}, "tools[0].custom"),
        ({"tools": [part("custom", custom={"name": ""})]}, "tools[0].custom.name"),
        ({"tools": [part("function", function={"name": ""})]}, "tools[0].function.name"),
        ({"functions": [{"name": "look"}], "function_call": "all"}, "function_call"),
        ({"functions": [{"name": "look"}], "function_call": {"name": "no"}}, "function_call.name"),
        ({"tools": [LOOK], "tool_choice": part("function")}, "tool_choice.function"),
        ({"tools": [LOOK], "tool_choice": part("custom")}, "tool_choice.custom"),
        (
            {"messages": [HI, {**call("look", "{}"), "tool_calls": [part("custom", id="c")]}]},
            "messages[1].tool_calls[0].custom",
        ),
        (
            {
                "messages": [
                    HI,
                    {
                        "role": "assistant",
                        "tool_calls": [part("custom", id="c", custom={"name": "f"})],
                    },
                ]
            },
            "messages[1].tool_calls[0].custom.input",
        ),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": [part("mcp", id="c")]}]},
            "messages[1].tool_calls[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [part("resource", resource={"uri": "a"})]}]},
            "messages[0].content[0].resource",
        ),
        (
            {"messages": [{"role": "user", "content": [part("document", title="x")]}]},
            "messages[0].content[0].source",
        ),
        (
            {"messages": [{"role": "user", "content": [part("file", file={"file_data": "x"})]}]},
            "messages[0].content[0].file.file_data",
        ),
        (
            {"messages": [{"role": "system", "content": [part("tool_use")]}]},
            "messages[0].content[0].type",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_fault_in_these_forms_names_its_field(one: Desk, body: Any, param: str) -> None:
    answer = await one.ask("chat", {"messages": [HI], **body})
    assert (answer.status, answer.document["error"]["param"]) == (400, param)


async def test_d09_a_grammar_is_said_in_words(one: Desk) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}}
    tools = [part("custom", custom={"name": "edit", "format": grammar})]
    choice = part("custom", custom={"name": "edit"})
    body = {"messages": [HI], "tools": tools, "tool_choice": choice}
    answer = await one.ask("chat", body)
    assert answer.status == 200, answer.payload
    assert "start: WORD" in one.sent["tools"][0]["description"]
    assert one.sent["tool_choice"]["name"] == "edit"


@pytest.mark.parametrize("streamed", [False, True])
async def test_d09_a_tool_of_another_kind_beside_it(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    """A function keeps its form in a request that has a custom tool, too."""
    octets = (
        tool_stream("look", {"q": "x"})
        if streamed
        else respond_with(message(tool_use("look", {"q": "x"}), stop="tool_use"))
    )
    it = await desk(relay_with, upstream_with, octets)
    tools = [part("custom", custom={"name": "edit"}), LOOK]
    answer = await it.ask("chat", {"messages": [HI], "tools": tools, "stream": streamed})
    assert b'"type":"function"' in answer.payload
    assert b'"name":"look"' in answer.payload


@pytest.mark.parametrize("streamed", [False, True])
async def test_d07_a_second_call_has_no_place(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    calls = message(tool_use("look", {}), tool_use("look", {"q": "y"}, 2), stop="tool_use")
    it = await desk(relay_with, upstream_with, calls)
    body = {"messages": [HI], "functions": [{"name": "look"}], "stream": streamed}
    answer = await it.ask("chat", body)
    assert answer.payload.count(b'"name":"look"') == 1
    assert b'"finish_reason":"function_call"' in answer.payload
    assert it.sent["tool_choice"]["disable_parallel_tool_use"] is True


async def test_d11_a_picture_as_a_file_is_a_picture(one: Desk) -> None:
    data = f"data:application/octet-stream;base64,{PNG}"
    content = [part("file", file={"file_data": data})]
    answer = await one.ask("chat", {"messages": [{"role": "user", "content": content}]})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "image")[0]["source"]["media_type"] == "image/png"
