"""Responses of the `openai` SDK, requested as a document or as a checked stream."""

import json
from typing import Any

import openai
import pytest

from tests.clients.steering import steered
from tests.clients.test_openai_sdk import MODEL, PIXEL
from tests.clients.test_openai_sdk import WEATHER as CHAT_WEATHER

PATH = "/v1/responses"
WEATHER: Any = {"type": "function", **CHAT_WEATHER["function"]}
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])


async def ask(sdk: openai.AsyncOpenAI, streamed: bool, script: str = "", **asked: Any) -> Any:
    """The final response, requested as a document or as a stream that is checked."""
    asked = {"model": MODEL, "extra_headers": steered(script), **asked}
    if not streamed:
        return await sdk.responses.create(**asked)
    async with sdk.responses.stream(**asked) as stream:
        events = [event async for event in stream]
    return ending(events)


def ending(events: list[Any]) -> Any:
    """The response of a stream's last event; the events are checked for order and completeness."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    items = [
        [event.output_index for event in events if event.type == f"response.output_item.{what}"]
        for what in ("added", "done")
    ]
    assert sorted(items[0]) == sorted(items[1]) == list(range(len(last.response.output)))
    assert last.type == f"response.{last.response.status}"
    return last.response


def plain(response: Any) -> Any:
    """A response without the members that differ between requests."""
    document = json.loads(response.to_json())
    for name in ("id", "created_at", "completed_at"):
        assert document.pop(name) is not None or document["status"] == "incomplete"
    details = document["usage"].pop("input_tokens_details")  # cache hits differ
    assert details.keys() == {"cached_tokens", "cache_write_tokens"}
    for number, item in enumerate(document["output"]):
        assert item.pop("id").endswith(f"_{number}")
        item.pop("call_id", None)
    return document


def items(response: Any, kind: str) -> list[Any]:
    return [item for item in response.output if item.type == kind]


def pieces(events: list[Any], what: str) -> list[str]:
    return [event.delta for event in events if event.type == f"response.{what}.delta"]


def result(call: Any, text: str) -> Any:
    """The result item for a tool call."""
    output: dict[str, Any] = {"type": f"{call.type}_output", "call_id": call.call_id}
    match call.type:
        case "local_shell_call":
            return {"type": output["type"], "id": call.call_id, "output": text}
        case "shell_call":
            exited = {"type": "exit", "exit_code": 0}
            return {**output, "output": [{"stdout": text, "stderr": "", "outcome": exited}]}
        case "apply_patch_call":
            return {**output, "status": "completed", "output": text}
    return {**output, "output": text}


PICTURE: Any = {
    "type": "input_image",
    "image_url": f"data:image/png;base64,{PIXEL}",
    "detail": "auto",
}
