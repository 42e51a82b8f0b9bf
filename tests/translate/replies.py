"""Events of the Responses API, read as strictly as a client may read them.

`transcript` gives a stream as short lines, for tables. `check` holds it to the grammar of every
stream, to OpenAI's types and to the Open Responses schema. `by_sdk` is the response that OpenAI's
own helper assembles.
"""

import json
from collections.abc import Iterable
from typing import Any

from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from relay.translate.request.tool_names import CallerTool
from relay.translate.responses.render import AnswerMetadata
from relay.translate.responses.seal import Seal
from relay.translate.responses.stream import ResponsesStream
from tests.translate.openresponses import validate, validate_event

NOW = 1763942405.5
SEAL = Seal(b"k" * 32, "usr_1")
ECHO = (
    b',"background":false,"frequency_penalty":0.0,"instructions":null,"max_output_tokens":null,'
    b'"max_tool_calls":null,"metadata":{},"model":"claude-sonnet-4-7","parallel_tool_calls":true,'
    b'"presence_penalty":0.0,"previous_response_id":null,"prompt_cache_key":null,'
    b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,'
    b'"service_tier":"default","store":false,"temperature":1.0,'
    b'"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,'
    b'"top_p":1.0,"truncation":"disabled"'
)
TOOLS = {
    "apply_patch": CallerTool("custom", "apply_patch"),
    "local_shell": CallerTool("local_shell", "local_shell"),
    "shell": CallerTool("shell", "shell"),
    "patch_file": CallerTool("apply_patch", "apply_patch"),
    "tool_search": CallerTool("tool_search", "tool_search"),
    "crm__find": CallerTool("function", "find", "crm"),
    "crm__note": CallerTool("custom", "note", "crm"),
}
METADATA = AnswerMetadata("resp_1", 1763942400, lambda: NOW, ECHO, TOOLS, True, SEAL)
NO_SUMMARY = AnswerMetadata("resp_1", 1763942400, lambda: NOW, ECHO, TOOLS, False, SEAL)

_event = TypeAdapter(ResponseStreamEvent)
_CODEX = ("context_length_exceeded", "insufficient_quota", "server_is_overloaded")
_LAST = ("response.completed", "response.incomplete", "response.failed")
_OPENING = ("response.created", "response.in_progress")
_OF_KIND = {
    "message": {"response.content_part.added", "response.output_text.delta",
                "response.output_text.done", "response.output_text.annotation.added",
                "response.refusal.delta", "response.refusal.done", "response.content_part.done"},
    "reasoning": {"response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
                  "response.reasoning_summary_text.done", "response.reasoning_summary_part.done"},
    "function_call": {"response.function_call_arguments.delta",
                      "response.function_call_arguments.done"},
    "custom_tool_call": {"response.custom_tool_call_input.delta",
                         "response.custom_tool_call_input.done"},
    "web_search_call": {"response.web_search_call.in_progress",
                        "response.web_search_call.searching", "response.web_search_call.completed"},
}  # fmt: skip


def feed(
    pieces: Iterable[bytes], metadata: AnswerMetadata = METADATA, family: str = "anthropic"
) -> tuple[bytes, ResponsesStream]:
    """The events for these pieces, and those of the end if the answer is complete."""
    stream = ResponsesStream(metadata)
    stream.family = family
    events = b"".join(map(stream.feed, pieces))
    if stream.usage.complete and not stream.usage.error:
        events += stream.finish()
    return events, stream


def read(octets: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose type is also its name."""
    assert not octets or octets.endswith(b"\n\n")
    events = []
    for block in octets.split(b"\n\n")[:-1]:
        name, _, data = block.partition(b"\ndata: ")
        assert b"\n" not in data
        document = json.loads(data)
        assert name == b"event: " + document["type"].encode()
        events.append(document)
    return events


def transcript(octets: bytes) -> list[str]:
    """A line for each event that adds something to those before it."""
    return [line for event in read(octets) if (line := _line(event)) is not None]


def _line(event: dict[str, Any]) -> str | None:
    kind: str = event["type"].removeprefix("response.")
    item = event.get("item")
    match kind:
        case "created" | "in_progress":
            return kind
        case "output_item.added":
            assert item is not None
            named = [item["type"], item.get("namespace"), item.get("name")]
            return "+ " + " ".join(word for word in named if word)
        case "output_item.done":
            assert item is not None
            return "- " + _item(item)
        case "output_text.delta" | "refusal.delta" | "reasoning_summary_text.delta":
            return f"{kind.partition('.')[0].removeprefix('output_')} {_text(event['delta'])}"
        case "function_call_arguments.delta" | "custom_tool_call_input.delta":
            return f"input {_text(event['delta'])}"
        case "output_text.annotation.added":
            cited = event["annotation"]
            return f"cite {cited['start_index']}-{cited['end_index']} {cited['url']}"
        case "completed" | "incomplete":
            return f"{kind} {usage(event['response']['usage'])}"
        case "failed":
            error = event["response"]["error"]
            return f"failed {error['code']}: {error['message']}"
    return None


def _item(item: dict[str, Any]) -> str:
    """The line of an item that is done."""
    left_out = ("id", "type", "encrypted_content", "role", "namespace", "name")
    rest = {name: value for name, value in item.items() if name not in left_out}
    if item["type"] == "message":
        (part,) = item["content"]
        rest = {"status": item["status"], "text": part.get("text", part.get("refusal"))}
    elif item["type"] == "reasoning":
        sealed = "" if "encrypted_content" not in item else " sealed"
        return "reasoning" + sealed + "".join(" " + _text(each["text"]) for each in item["summary"])
    return f"{item['type']} {json.dumps(rest, ensure_ascii=False, separators=(',', ':'))}"


def _text(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)


def usage(counts: dict[str, Any]) -> str:
    input, output = counts["input_tokens_details"], counts["output_tokens_details"]
    assert counts["total_tokens"] == counts["input_tokens"] + counts["output_tokens"]
    line = f"{counts['input_tokens']} ({input['cached_tokens']} read)"
    return f"{line}, {counts['output_tokens']} ({output['reasoning_tokens']} thought)"


def check(octets: bytes, *, complete: bool = True) -> list[dict[str, Any]]:
    """Hold a stream to the grammar, and each event to both schemas; its events."""
    events = read(octets)
    open_items: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    done: dict[int, dict[str, Any]] = {}
    ids: set[str] = set()
    for number, event in enumerate(events):
        kind = event["type"]
        _event.validate_json(json.dumps(_as_sdk(event)), strict=True)
        validate_event(event)
        assert event["sequence_number"] == number
        if number < 2:
            assert kind == _OPENING[number]
        if kind in _LAST:
            assert event is events[-1]
        elif kind in _OPENING:
            assert event["response"]["status"] == "in_progress"
            assert event["response"]["output"] == [done[index] for index in sorted(done)]
        elif kind == "response.output_item.added":
            index, item = event["output_index"], event["item"]
            assert index == len(open_items) + len(done)
            assert item["id"] not in ids
            ids.add(item["id"])
            open_items[index] = (item, [])
        elif kind == "response.output_item.done":
            index, item = event["output_index"], event["item"]
            added, own = open_items.pop(index)
            assert (item["id"], item["type"]) == (added["id"], added["type"])
            _check_item(item, own)
            done[index] = item
        else:
            added, own = open_items[event["output_index"]]
            assert event["item_id"] == added["id"]
            assert kind in _OF_KIND[added["type"]]
            own.append(event)
    if complete:
        last = events[-1]
        assert last["type"] in _LAST
        response = last["response"]
        assert last["type"] == "response." + response["status"]
        assert response["output"] == [done[index] for index in sorted(done)]
        if response["status"] != "failed":
            assert not open_items
            assert (response["completed_at"] is None) is (response["status"] == "incomplete")
        Response.model_validate_json(json.dumps(_as_sdk(last)["response"]), strict=True)
    return events


def _as_sdk(event: dict[str, Any]) -> dict[str, Any]:
    """The event with a code that the SDK's types have: they lack those at which Codex stops."""
    error = (event.get("response") or {}).get("error")
    if error is None or error["code"] not in _CODEX:
        return event
    response = {**event["response"], "error": {**error, "code": "server_error"}}
    return {**event, "response": response}


def _check_item(item: dict[str, Any], own: list[dict[str, Any]]) -> None:
    """Hold an item to its events: both have the same content."""
    kinds = [event["type"].removeprefix("response.") for event in own]
    said = "".join(event["delta"] for event in own if "delta" in event)
    match item["type"]:
        case "message":
            (part,) = item["content"]
            refused = part["type"] == "refusal"
            name = "refusal" if refused else "output_text"
            assert kinds[0] == "content_part.added"
            assert kinds[-2:] == [f"{name}.done", "content_part.done"]
            assert set(kinds[1:-2]) <= {f"{name}.delta", "output_text.annotation.added"}
            assert own[-1]["part"] == part
            text = part["refusal" if refused else "text"]
            assert said == own[-2]["refusal" if refused else "text"] == text
            if not refused:
                cited = [event for event in own if "annotation" in event]
                assert [event["annotation_index"] for event in cited] == [*range(len(cited))]
                assert [event["annotation"] for event in cited] == part["annotations"]
            assert {event["content_index"] for event in own} == {0}
        case "reasoning":
            if not item["summary"]:
                assert kinds == []
                return
            (part,) = item["summary"]
            assert kinds[0] == "reasoning_summary_part.added"
            assert kinds[-2:] == ["reasoning_summary_text.done", "reasoning_summary_part.done"]
            assert set(kinds[1:-2]) == {"reasoning_summary_text.delta"}
            assert said == own[-2]["text"] == part["text"]
            assert own[-1]["part"] == part
            assert {event["summary_index"] for event in own} == {0}
        case "function_call":
            assert set(kinds[:-1]) <= {"function_call_arguments.delta"}
            assert said == own[-1]["arguments"] == item["arguments"]
            assert own[-1]["name"] == item["name"]
        case "custom_tool_call":
            assert set(kinds[:-1]) <= {"custom_tool_call_input.delta"}
            assert own[-1]["input"] == item["input"]
            assert said == item["input"]
        case "web_search_call":
            names = ["in_progress", "searching", "completed"]
            assert kinds == [f"web_search_call.{name}" for name in names]
        case _:
            assert kinds == []


def by_sdk(octets: bytes) -> dict[str, Any]:
    """The response that the SDK's own helper assembles."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    final = None
    for event in read(octets):
        for event_with_state in state.handle_event(_event.validate_python(event)):
            final = getattr(event_with_state, "response", final)
    assert final is not None
    document: dict[str, Any] = json.loads(final.model_dump_json(exclude_unset=True))
    return document


def response(octets: bytes) -> dict[str, Any]:
    """A complete response, held to both schemas."""
    document: dict[str, Any] = json.loads(octets)
    Response.model_validate_json(octets, strict=True)
    if all(
        item["type"] in ("message", "function_call", "reasoning") for item in document["output"]
    ):
        validate("ResponseResource", document)
    return document
