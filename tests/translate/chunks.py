"""Chat completion chunks, read as strictly as a client may read them.

`transcript` gives a stream as short lines, for tables. `check` holds it to the grammar of every
stream. `joined` is the message that a client has at the end.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from relay.translate.chat.answer import KEEP_ALIVE, AnswerMetadata, ChatStream

METADATA = AnswerMetadata("chatcmpl-1", 1763942400, "claude-sonnet-4-7", "anthropic")
DONE = "[DONE]"

# The chunks of an answer in the only order allowed: role, parts of the message, finish, usage if
# asked for, done. Comments may come between them.
_ORDER = re.compile(r"RK*(?:[CTDSANF]K*)*EU?X")
_CONSTANT = {"id", "object", "created", "model", "system_fingerprint"}
_DELTAS = (
    ({"role", "content", "refusal"}, "R"),
    ({"content"}, "C"),
    ({"reasoning_content", "reasoning_details"}, "T"),
    ({"reasoning_details"}, "D"),
    ({"annotations"}, "N"),
    ({"refusal"}, "F"),
)


def event(data: str, ending: str = "\n") -> bytes:
    """One event from its data, with the `event:` line that belongs to it."""
    lines = [f"event: {json.loads(data)['type']}", f"data: {data}", "", ""]
    return ending.join(lines).encode("utf-8")


def feed(
    pieces: Iterable[bytes], *, include_usage: bool = True, metadata: AnswerMetadata = METADATA
) -> tuple[bytes, ChatStream]:
    """The chunks for these pieces, and those of the end if the answer is complete."""
    stream = ChatStream(metadata, include_usage=include_usage)
    chunks = b"".join(map(stream.feed, pieces))
    if stream.usage.complete and not stream.usage.error:
        chunks += stream.finish()
    return chunks, stream


def read(octets: bytes) -> list[Any]:
    """Each event: a chunk's or an error's document, "[DONE]" or None for a comment."""
    assert not octets or octets.endswith(b"\n\n")
    events: list[Any] = []
    for block in octets.split(b"\n\n")[:-1]:
        assert b"\n" not in block
        if block + b"\n\n" == KEEP_ALIVE:
            events.append(None)
            continue
        assert block.startswith(b"data: ")
        data = block.removeprefix(b"data: ").decode()
        events.append(DONE if data == DONE else json.loads(data))
    return events


def transcript(octets: bytes) -> list[str]:
    """A line for each event, without the members that all of them share."""
    return [_line(each) for each in read(octets)]


def _line(document: Any) -> str:
    if document is None:
        return "keep-alive"
    if document == DONE:
        return "done"
    if "error" in document:
        error = document["error"]
        assert list(error) == ["message", "type", "param", "code"]
        return f"error {error['type']} {error['code']}: {error['message']}"
    if not document["choices"]:
        return "usage " + usage(document["usage"])
    (choice,) = document["choices"]
    if choice["finish_reason"] is not None:
        assert choice["delta"] == {}
        return f"finish {choice['finish_reason']}"
    if choice["delta"] == {"role": "assistant", "content": "", "refusal": None}:
        return "role"
    return json.dumps(choice["delta"], ensure_ascii=False, separators=(",", ":"))


def usage(counts: dict[str, Any]) -> str:
    prompt, completion = counts["prompt_tokens_details"], counts["completion_tokens_details"]
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
    read, written = prompt["cached_tokens"], prompt["cache_write_tokens"]
    thought = completion["reasoning_tokens"]
    line = f"{counts['prompt_tokens']} ({read} read, {written} written)"
    return f"{line}, {counts['completion_tokens']} ({thought} thought)"


def check(octets: bytes, *, include_usage: bool = True) -> None:
    """Hold a complete stream to the grammar, and each chunk to the SDK's types."""
    kinds = ""
    calls: set[int] = set()
    thoughts: set[int] = set()
    annotations = 0
    for document in read(octets):
        if document is None or document == DONE:
            kinds += "K" if document is None else "X"
            continue
        ChatCompletionChunk.model_validate_json(json.dumps(document), strict=True)
        assert set(document) == _CONSTANT | {"choices"} | ({"usage"} if include_usage else set())
        assert document["object"] == "chat.completion.chunk"
        assert (document["id"], document["created"]) == (METADATA.id, METADATA.created)
        assert (document["model"], document["system_fingerprint"]) == (METADATA.model, None)
        if not document["choices"]:
            kinds += "U"
            assert document["usage"] is not None
            continue
        assert document.get("usage") is None
        (choice,) = document["choices"]
        assert list(choice) == ["index", "delta", "logprobs", "finish_reason"]
        assert (choice["index"], choice["logprobs"]) == (0, None)
        delta = choice["delta"]
        if choice["finish_reason"] is not None:
            assert delta == {}
            kinds += "E"
            continue
        if "tool_calls" in delta:
            (call,) = delta["tool_calls"]
            kinds += "S" if "id" in call else "A"
            if "id" in call:
                assert call["index"] == len(calls)
                assert set(call) == {"index", "id", "type", "function"}
                assert call["function"]["name"]
                assert call["function"]["arguments"] == ""
            else:
                assert call["index"] in calls
                assert set(call) == {"index", "function"}
                assert call["function"]["arguments"]
            calls.add(call["index"])
            continue
        kinds += next(letter for members, letter in _DELTAS if members == set(delta))
        if kinds[-1] == "C":
            assert delta["content"]
        for entry in delta.get("reasoning_details", []):
            first = entry["index"] not in thoughts
            assert first is ("id" in entry) is ("format" in entry)
            assert not first or entry["index"] == len(thoughts)
            thoughts.add(entry["index"])
            if kinds[-1] == "T":
                assert entry["text"] == delta["reasoning_content"] != ""
        for entry in delta.get("annotations", []):
            assert entry["index"] == annotations
            annotations += 1
    assert _ORDER.fullmatch(kinds), kinds
    assert ("U" in kinds) is include_usage


def joined(octets: bytes) -> dict[str, Any]:
    """The message that the deltas make up, joined by their indexes."""
    message: dict[str, Any] = {}
    for document in read(octets):
        if isinstance(document, dict) and document["choices"]:
            _join(message, document["choices"][0]["delta"])
    return _as_document(message)


def by_sdk(octets: bytes) -> dict[str, Any]:
    """The same message, joined by the SDK's own helper."""
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    for document in read(octets):
        if isinstance(document, dict):
            state.handle_chunk(ChatCompletionChunk.model_validate(document))
    (choice,) = state.current_completion_snapshot.choices
    if choice.finish_reason not in ("length", "content_filter"):  # for these it raises
        (choice,) = state.get_final_completion().choices
    message = choice.message.model_dump(exclude_unset=True)
    message.pop("parsed", None)
    for call in message.get("tool_calls") or []:
        call["function"].pop("parsed_arguments", None)
    # The SDK adds members of its own, with null as their value.
    present = {name for name, value in message.items() if value is not None}
    return _as_document({name: message[name] for name in present | {"content", "refusal"}})


def _join(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name in ("index", "type") or into.get(name) is None:
            into[name] = value if not isinstance(value, list) else []
        elif isinstance(value, str):
            into[name] += value
        elif isinstance(value, dict):
            _join(into[name], value)
        for entry in value if isinstance(value, list) else []:
            if entry["index"] == len(into[name]):
                into[name].append({})
            _join(into[name][entry["index"]], entry)


def _as_document(message: dict[str, Any]) -> dict[str, Any]:
    """The message as a document has it: no indexes, and null for no text."""
    for entry in [*message.get("tool_calls", []), *message.get("annotations", [])]:
        entry.pop("index", None)
    return {**message, "content": message["content"] or None}


def completion(octets: bytes) -> dict[str, Any]:
    """A complete answer, held to the SDK's types."""
    document: dict[str, Any] = json.loads(octets)
    ChatCompletion.model_validate(document, strict=True)
    ChatCompletion.model_validate_json(octets, strict=True)
    assert set(document) == _CONSTANT | {"choices", "usage"}
    assert document["object"] == "chat.completion"
    (choice,) = document["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason"]
    assert choice["message"]["role"] == "assistant"
    return document
