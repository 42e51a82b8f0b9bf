"""What a chat completion is made of, whole or streamed.

This decides how each single thing that a Messages answer says is put (docs: OpenAI's API
reference, "The chat completion object"; OpenRouter's for `reasoning_details`). Texts are JSON
strings as octets throughout: what came from the upstream is spliced in as it was written. It
must not know whether what it makes goes into a document or into a chunk.
"""

from typing import Final

import msgspec

from relay.translate.messages.content import EMPTY, Block, string
from relay.translate.messages.usage import Usage

ROLE: Final = b'"role":"assistant","content":"","refusal":null'

_FINISH: Final = {
    "end_turn": b"stop",
    "stop_sequence": b"stop",
    "pause_turn": b"stop",
    "max_tokens": b"length",
    "model_context_window_exceeded": b"length",
    "tool_use": b"tool_calls",
    "refusal": b"content_filter",
}


class AnswerMetadata(msgspec.Struct, frozen=True):
    """What an answer says of itself, the same in each of its chunks.

    `id` is "chatcmpl-…", `created` in epoch seconds, `model` as it was asked for, `family` that
    of the thinking blocks (see config.Vendor.thinking).
    """

    id: str
    created: int
    model: str
    family: str


def head(told: AnswerMetadata, kind: str) -> bytes:
    """How a completion's document begins, open for more members."""
    members = {
        "id": told.id,
        "object": kind,
        "created": told.created,
        "model": told.model,
        "system_fingerprint": None,
    }
    return msgspec.json.encode(members)[:-1]


def call(number: int, block: Block, told: AnswerMetadata, text: bytes) -> bytes:
    """A tool call's members; one without an id gets one that no other answer has."""
    name = string(block.name)
    if name == EMPTY:
        raise ValueError("a tool call without a name")
    id = string(block.id)
    if id == EMPTY:
        id = msgspec.json.encode(f"{told.id}-{number}")
    return b'"id":%b,"type":"function","function":{"name":%b,"arguments":%b}' % (id, name, text)


def place(written: int, calls: int, told: AnswerMetadata) -> bytes:
    """The `id` and `format` of a thinking block: where it stood, so that it can be put there
    again, and who can read it. `written` counts the characters before it."""
    family = "anthropic-claude" if told.family == "anthropic" else told.family
    form = msgspec.json.encode(f"{family}-v1")
    return b'"id":"thinking-%d-%d","format":%b' % (written, calls, form)


def annotation(cited: bytes, start: int, end: int) -> bytes:
    """What a part of the message's text rests upon, from character `start` to `end`."""
    where = b'"start_index":%d,"end_index":%d,' % (start, end)
    return b'"type":"url_citation","url_citation":{%b%b}' % (where, cited)


def finish_reason(stop_reason: str | None, calls: int) -> bytes:
    """Why the answer ended, in OpenAI's words."""
    if stop_reason == "tool_use" and not calls:
        return b"stop"
    return _FINISH.get(stop_reason or "", b"stop")


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
