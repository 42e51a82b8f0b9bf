"""Chat completion chunks, read as strictly as a client may read them.

`transcript` tells a stream in short lines, for tables; `check` holds it to the grammar that
every stream must follow; `joined` is the message that a client has at its end.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from relay.translate.chat.answer import KEEP_ALIVE, AnswerMetadata, ChatStream

TOLD = AnswerMetadata("chatcmpl-1", 1763942400, "claude-sonnet-4-7", "anthropic")
DONE = "[DONE]"

# What the chunks of an answer are, in the only order that they may have: role, anything of the
# message, finish, usage if asked for, done. Comments may stand between them.
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
    pieces: Iterable[bytes], *, include_usage: bool = True, told: AnswerMetadata = TOLD
) -> tuple[bytes, ChatStream]:
    """What a stream shows for these pieces; with its end if the answer has one."""
    stream = ChatStream(told, include_usage=include_usage)
    shown = b"".join(map(stream.feed, pieces))
    if stream.usage.complete and not stream.usage.error:
        shown += stream.finish()
    return shown, stream


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
    """A line for each event: what is not the same in all of them."""
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
        return "finish " + choice["finish_reason"]
    if choice["delta"] == {"role": "assistant", "content": "", "refusal": None}:
        return "role"
    return json.dumps(choice["delta"], ensure_ascii=False, separators=(",", ":"))


def usage(told: dict[str, Any]) -> str:
    prompt, completion = told["prompt_tokens_details"], told["completion_tokens_details"]
    assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]
    read, written = prompt["cached_tokens"], prompt["cache_write_tokens"]
    thought = completion["reasoning_tokens"]
    counts = f"{told['prompt_tokens']} ({read} read, {written} written)"
    return f"{counts}, {told['completion_tokens']} ({thought} thought)"


def check(octets: bytes, *, include_usage: bool = True) -> None:
    """Hold a whole stream to the grammar, and each chunk to the SDK's types."""
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
        assert (document["id"], document["created"]) == (TOLD.id, TOLD.created)
        assert (document["model"], document["system_fingerprint"]) == (TOLD.model, None)
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
    """The message that the deltas make, put together as reasoning and calls say: by index."""
    message: dict[str, Any] = {}
    for document in read(octets):
        if isinstance(document, dict) and document["choices"]:
            _join(message, document["choices"][0]["delta"])
    return _as_whole(message)


def by_sdk(octets: bytes) -> dict[str, Any]:
    """The same, put together by the SDK's own helper."""
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
    # It knows more members of a message than there are, and has null for them.
    told = {name for name, value in message.items() if value is not None}
    return _as_whole({name: message[name] for name in told | {"content", "refusal"}})


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


def _as_whole(message: dict[str, Any]) -> dict[str, Any]:
    """A whole answer's calls and annotations have no index, and it says null for no text."""
    for entry in [*message.get("tool_calls", []), *message.get("annotations", [])]:
        entry.pop("index", None)
    return {**message, "content": message["content"] or None}


def completion(octets: bytes) -> dict[str, Any]:
    """A whole answer, held to the SDK's types."""
    document: dict[str, Any] = json.loads(octets)
    ChatCompletion.model_validate(document, strict=True)
    ChatCompletion.model_validate_json(octets, strict=True)
    assert set(document) == _CONSTANT | {"choices", "usage"}
    assert document["object"] == "chat.completion"
    (choice,) = document["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason"]
    assert choice["message"]["role"] == "assistant"
    return document
