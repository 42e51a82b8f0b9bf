"""The parts of a chat completion, as JSON octets.

Decides how each part of a Messages answer is written (OpenAI API reference, "The chat completion
object"; OpenRouter documentation, "Reasoning Tokens", for `reasoning_details`). Texts are JSON
strings as octets: text from the upstream is spliced in unchanged. Must not know whether its
output goes into a document or into a chunk.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.messages.content import EMPTY, Block, string
from relay.translate.messages.usage import Usage

ROLE_DELTA: Final = b'"role":"assistant","content":"","refusal":null'

_FINISH_REASONS: Final = {
    "end_turn": b"stop",
    "stop_sequence": b"stop",
    "pause_turn": b"stop",
    "max_tokens": b"length",
    "model_context_window_exceeded": b"length",
    "tool_use": b"tool_calls",
    "refusal": b"content_filter",
}


@dataclass(frozen=True, slots=True)
class AnswerMetadata:
    """The members that are the same in every chunk of an answer."""

    id: str  # "chatcmpl-…"
    created: int  # epoch seconds
    model: str  # the name that the caller asked for
    family: str  # of the thinking blocks, see config.Vendor.thinking


def head(metadata: AnswerMetadata, object_type: str) -> bytes:
    """The first members of a completion: a JSON object without its closing brace."""
    members = {
        "id": metadata.id,
        "object": object_type,
        "created": metadata.created,
        "model": metadata.model,
        "system_fingerprint": None,
    }
    return msgspec.json.encode(members)[:-1]


def tool_call(index: int, block: Block, metadata: AnswerMetadata, arguments: bytes) -> bytes:
    """The members of a tool call. A call without an id gets one that no other answer has.

    Raises:
        ValueError: the block has no name.
    """
    name = string(block.name)
    if name == EMPTY:
        raise ValueError("a tool call without a name")
    id = string(block.id)
    if id == EMPTY:
        id = msgspec.json.encode(f"{metadata.id}-{index}")
    members = b'"id":%b,"type":"function","function":{"name":%b,"arguments":%b}'
    return members % (id, name, arguments)


def thinking_position(characters: int, calls: int, metadata: AnswerMetadata) -> bytes:
    """The `id` and `format` of a thinking block.

    The id says how many characters and tool calls came before the block, so that the block can
    be put back there. The format says which model family can read it.
    """
    family = "anthropic-claude" if metadata.family == "anthropic" else metadata.family
    format = msgspec.json.encode(f"{family}-v1")
    return b'"id":"thinking-%d-%d","format":%b' % (characters, calls, format)


def annotation(citation: bytes, start: int, end: int) -> bytes:
    """The citation of a web page for the characters from `start` to `end` of the text."""
    indexes = b'"start_index":%d,"end_index":%d,' % (start, end)
    return b'"type":"url_citation","url_citation":{%b%b}' % (indexes, citation)


def finish_reason(stop_reason: str | None, calls: int) -> bytes:
    """The `finish_reason` for a `stop_reason` of the Messages API; "stop" for unknown ones."""
    if stop_reason == "tool_use" and not calls:
        return b"stop"
    return _FINISH_REASONS.get(stop_reason or "", b"stop")


def usage_object(usage: Usage) -> bytes:
    """OpenAI's `usage`. Unlike Anthropic's, its prompt tokens include those of the cache."""
    read, written = usage.cache_read or 0, usage.cache_write or 0
    prompt, completion = (usage.input or 0) + read + written, usage.output or 0
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":'
        b'{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
    ) % (prompt, completion, prompt + completion, read, written, usage.thinking or 0)
