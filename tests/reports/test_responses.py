"""Section E: what clients of the Responses API send."""

import json
from typing import Any

import pytest

from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.gateway.metering import credit
from tests.reports.asking import HI, MODELS, PNG, Desk, blocks, desk, message, tool_use

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}


@pytest.fixture
async def keeping(relay_with: RelayWith, upstream_with: UpstreamWith) -> Desk:
    return await desk(relay_with, upstream_with, responses={"store": "memory"})


def output(parts: Any) -> list[Any]:
    return [HI, CALL, {"type": "function_call_output", "call_id": "c1", "output": parts}]


async def test_e01_parts_of_mcp_are_read(one: Desk) -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "image", "data": PNG, "mimeType": "image/png"}]
    answer = await one.ask("responses", {"input": output(parts)})
    assert answer.status == 200, answer.payload
    (result,) = blocks(one.sent, "tool_result")
    assert [part["type"] for part in result["content"]] == ["text", "image"]
    assert result["content"][1]["source"]["data"] == PNG


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "resource", "resource": {"uri": "file:///a", "text": "seen"}}, "seen"),
        ({"type": "resource", "resource": {"uri": "file:///a.csv", "blob": "YSxiCg=="}}, "a,b"),
        ({"type": "resource_link", "uri": "file:///a", "name": "notes"}, "notes: file:///a"),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}, PNG),
        ({"type": "image", "source": {"type": "base64", "data": PNG}}, PNG),
    ],
    ids=["text", "blob", "link", "chat", "messages"],
)
async def test_e01_every_known_part_reaches_the_model(one: Desk, part: Any, words: str) -> None:
    answer = await one.ask("responses", {"input": output([part])})
    assert answer.status == 200, answer.payload
    assert words in json.dumps(blocks(one.sent, "tool_result")).replace("\\n", "\n")


@pytest.mark.parametrize(
    "part", [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}, {"type": "hologram"}]
)
async def test_e01_a_part_of_no_use_is_refused(one: Desk, part: Any) -> None:
    answer = await one.ask("responses", {"input": output([part])})
    assert answer.status == 400


@pytest.mark.parametrize(
    "kind", ["text/csv", "application/json", "text/markdown", "application/octet-stream"]
)
async def test_e03_text_files_are_documents(one: Desk, kind: str) -> None:
    data = f"data:{kind};base64,YSxiCjEsMgo="
    part = {"type": "input_file", "filename": "a.csv", "file_data": data}
    answer = await one.ask("responses", {"input": [{"role": "user", "content": [part]}]})
    assert answer.status == 200, answer.payload
    (document,) = blocks(one.sent, "document")
    assert document["source"]["data"] == "a,b\n1,2\n"
    assert document["title"] == "a.csv"


async def test_e03_a_file_of_another_kind_is_refused(one: Desk) -> None:
    data = "data:application/zip;base64,UEsDBAoAAAAAAIdO4kAAAAA="
    part = {"type": "input_file", "filename": "a.zip", "file_data": data}
    answer = await one.ask("responses", {"input": [{"role": "user", "content": [part]}]})
    assert answer.status == 400
    assert "PDF" in answer.document["error"]["message"]


@pytest.mark.parametrize("store", ["memory", "database"])
async def test_e05_kept_items_are_had_by_their_ids(
    relay_with: RelayWith, upstream_with: UpstreamWith, store: str
) -> None:
    key = {"key": "k" * 43} if store == "database" else {}
    it = await desk(relay_with, upstream_with, responses={"store": store, **key})
    first = await it.ask("responses", {"input": "Hi", "store": True})
    item = first.document["output"][0]["id"]
    reference = {"type": "item_reference", "id": item}
    input = [HI, reference, {"role": "user", "content": "And?"}]
    answer = await it.ask("responses", {"input": input})
    assert answer.status == 200, answer.payload
    assert [turn["role"] for turn in it.sent["messages"]] == ["user", "assistant", "user"]
    assert "Hello from A." in json.dumps(it.sent["messages"][1])


async def test_e05_a_tool_loop_by_references_works(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    """As the Vercel AI SDK does it by default."""
    asked = message(tool_use("look", {"q": "x"}), stop="tool_use")
    it = await desk(relay_with, upstream_with, asked, responses={"store": "memory"})
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
    first = await it.ask("responses", {"input": "Hi", "tools": tools})
    call = first.document["output"][0]
    input = [
        HI,
        {"type": "item_reference", "id": call["id"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"},
    ]
    answer = await it.ask("responses", {"input": input, "tools": tools})
    assert answer.status == 200, answer.payload
    (result,) = blocks(it.sent, "tool_result")
    assert result["tool_use_id"] == blocks(it.sent, "tool_use")[0]["id"]
    assert "seen" in json.dumps(result)


async def test_e05_a_conversation_of_references_is_compacted(keeping: Desk) -> None:
    first = await keeping.ask("responses", {"input": "Hi", "store": True})
    item = {"type": "item_reference", "id": first.document["output"][0]["id"]}
    answer = await keeping.ask("/v1/responses/compact", {"input": [HI, item]})
    assert answer.status == 200, answer.payload
    assert "Hello from A." in json.dumps(keeping.sent["messages"])


async def test_e05_a_broken_reference_is_named_by_its_place(keeping: Desk) -> None:
    broken = {"type": "item_reference", "id": 7}
    answer = await keeping.ask("responses", {"input": [HI, broken]})
    assert answer.status == 400
    assert answer.document["error"]["param"].startswith("input[1]")


async def test_e05_nobody_else_has_an_accounts_items(keeping: Desk) -> None:
    first = await keeping.ask("responses", {"input": "Hi", "store": True})
    item = {"type": "item_reference", "id": first.document["output"][0]["id"]}
    await keeping.relay.create_user("other@example.com")
    key = await keeping.relay.new_key("other@example.com")
    answer = await keeping.ask("responses", {"input": [HI, item]}, key=key)
    assert answer.status == 400


async def test_e05_kept_items_are_paid_for_like_sent_ones(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    """A balance that covers a short request does not cover the long item that it refers to."""
    long = message({"type": "text", "text": "word " * 80_000})
    plan = [{"id": "free", "billing": "per-token", "limits": []}]
    sections: Any = {"plan": plan, "model": MODELS[:1], "responses": {"store": "memory"}}
    it = await desk(relay_with, upstream_with, long, **sections)
    await credit(it.relay, 1_000_000)
    first = await it.ask("responses", {"input": "Hi", "max_output_tokens": 10})
    assert first.status == 200, first.payload
    spent = 1_000_000 - 50_000  # what is left is enough for some thousand tokens
    await credit(it.relay, -spent)
    body = {"input": [HI, HI], "max_output_tokens": 10}
    assert (await it.ask("responses", body)).status == 200
    reference = {"type": "item_reference", "id": first.document["output"][0]["id"]}
    answer = await it.ask("responses", {**body, "input": [HI, reference, HI]})
    assert answer.document["error"]["code"] == "insufficient_quota"


async def test_e05_each_item_is_had_by_its_own_id(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    """The last of several items, an item of the input, and none that is not there."""
    both = message({"type": "text", "text": "Look."}, tool_use("look", {}), stop="tool_use")
    it = await desk(relay_with, upstream_with, both, responses={"store": "memory"})
    first = await it.ask("responses", {"input": "Hi there"})
    response, call = first.document["id"], first.document["output"][1]
    suffix = response.removeprefix("resp_")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
    for id, status in (
        (call["id"], 200),
        (f"in_{suffix}_0", 200),
        (f"in_{suffix}_1", 400),
        (f"fc_{suffix}_0", 400),
        (f"fc_{suffix}_99", 400),
        ("fc_1", 400),
    ):
        input = [HI, {"type": "item_reference", "id": id}, output, HI]
        assert (await it.ask("responses", {"input": input})).status == status, id


async def test_e15_a_reference_to_nothing_names_the_cure(one: Desk) -> None:
    input = [HI, {"type": "item_reference", "id": "msg_1"}]
    answer = await one.ask("responses", {"input": input})
    assert answer.status == 400
    assert "store: false" in answer.document["error"]["message"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}]),
        json.dumps({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}),
    ],
    ids=["list", "object"],
)
async def test_e14_a_picture_within_a_text_is_unwrapped(one: Desk, text: str) -> None:
    answer = await one.ask("responses", {"input": output(text)})
    assert answer.status == 200, answer.payload
    (result,) = blocks(one.sent, "tool_result")
    assert [part["type"] for part in result["content"]] == ["image"]


@pytest.mark.parametrize("text", ['[{"type":"input_image"', '{"type":"input_image"}', "[]", "{"])
async def test_e14_another_text_stays_a_text(one: Desk, text: str) -> None:
    answer = await one.ask("responses", {"input": output(text)})
    assert answer.status == 200, answer.payload
    (result,) = blocks(one.sent, "tool_result")
    assert result["content"] == [{"type": "text", "text": text}]


async def test_e16_a_call_of_another_server_is_seen(one: Desk) -> None:
    call = {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "wiki",
        "name": "search",
        "arguments": '{"q": "x"}',
        "output": "what came",
    }
    input = [HI, call, {"role": "user", "content": "And?"}]
    answer = await one.ask("responses", {"input": input})
    assert answer.status == 200, answer.payload
    (used,) = blocks(one.sent, "tool_use")
    assert used["input"] == {"q": "x"}
    assert "what came" in json.dumps(blocks(one.sent, "tool_result"))


@pytest.mark.parametrize("choice", [{"type": "auto"}, "any", {"type": "tool", "name": "look"}])
async def test_e21_loose_tool_choices_are_read(one: Desk, choice: Any) -> None:
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
    body = {"input": "Hi", "tools": tools, "tool_choice": choice}
    answer = await one.ask("responses", body)
    assert answer.status == 200, answer.payload


async def test_e01_a_file_in_the_form_of_chat_is_read(one: Desk) -> None:
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,YQ=="}}
    answer = await one.ask("responses", {"input": output([part])})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "tool_result")[0]["content"][0]["type"] == "document"


async def test_e14_texts_within_a_text_are_unwrapped(one: Desk) -> None:
    text = json.dumps([{"type": "input_text", "text": "seen"}])
    answer = await one.ask("responses", {"input": output(text)})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "tool_result")[0]["content"] == [{"type": "text", "text": "seen"}]


async def test_e16_an_error_of_another_server_is_seen(one: Desk) -> None:
    call = {"type": "mcp_call", "id": "m", "server_label": "wiki", "name": "search"}
    input = [HI, {**call, "arguments": "{}", "error": {"message": "timed out"}}, HI]
    answer = await one.ask("responses", {"input": input})
    assert answer.status == 200, answer.payload
    assert "timed out" in json.dumps(blocks(one.sent, "tool_result"))


async def test_e16_a_call_without_an_end_is_passed_over(one: Desk) -> None:
    answer = await one.ask("responses", {"input": [HI, {"type": "mcp_call", "name": "f"}, HI]})
    assert answer.status == 200, answer.payload
    assert blocks(one.sent, "tool_use") == []


async def test_e21_a_choice_of_an_unknown_type_is_refused(one: Desk) -> None:
    answer = await one.ask("responses", {"input": "Hi", "tool_choice": {"type": "oracle"}})
    assert (answer.status, answer.document["error"]["param"]) == (400, "tool_choice.type")
