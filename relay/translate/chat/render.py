"""The parts of a chat completion, as JSON octets.

Decides how each part of a Messages answer is written (OpenAI API reference, "The chat completion
object"; OpenRouter documentation, "Reasoning Tokens", for `reasoning_details`). Texts are JSON
strings as octets: text from the upstream is spliced in unchanged. Must not know whether its
output goes into a document or into a chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from relay.translate.messages.content import EMPTY, string
from relay.translate.messages.content_fields import Block
from relay.translate.messages.usage import Usage
from relay.translate.request.tool_names import CallerTool, ToolKind

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

_decode_string: Final = msgspec.json.Decoder(str).decode


# Not frozen: a compiled class takes longer to make then.
@dataclass(slots=True)
class AnswerMetadata:
    """The members that are the same in every chunk of an answer."""

    id: str  # "chatcmpl-…"
    created: int  # epoch seconds
    model: str  # the name that the caller asked for
    family: str  # of the thinking blocks, see config.Vendor.thinking
    # The tools whose calls are not told as those of a function of the same name, by that name.
    tools: Mapping[str, CallerTool] = field(default_factory=dict, repr=False)


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


class Call:
    """A tool call: its kind, its caller's name for the tool and its id, both JSON strings."""

    __slots__ = ("id", "kind", "name")

    def __init__(self, block: Block, metadata: AnswerMetadata, ids: set[bytes]) -> None:
        """A call without an id, or with one of `ids`, gets one that no other answer has.

        Raises:
            ValueError: the block has no name.
        """
        self.name = string(block.name)
        if self.name == EMPTY:
            raise ValueError("a tool call without a name")
        self.kind: ToolKind = "function"
        if metadata.tools:
            tool = metadata.tools.get(_decode_string(self.name))
            if tool is not None:
                self.kind = tool.kind
                self.name = msgspec.json.encode(tool.name)
        self.id = string(block.id)
        if self.id == EMPTY or self.id in ids:
            self.id = msgspec.json.encode(f"{metadata.id}-{len(ids)}")
        ids.add(self.id)

    def members(self, text: bytes) -> bytes:
        """The members of a call with these arguments or this free text, a JSON string."""
        if self.kind == "custom":
            return b'"id":%b,"type":"custom","custom":{"name":%b,"input":%b}' % (
                self.id,
                self.name,
                text,
            )
        members = b'"id":%b,"type":"function","function":{"name":%b,"arguments":%b}'
        return members % (self.id, self.name, text)

    def function_call(self, arguments: bytes) -> bytes:
        """The call in the old form."""
        return b'"function_call":{"name":%b,"arguments":%b}' % (self.name, arguments)

    def piece(self, index: int, text: bytes) -> bytes:
        """The members of a delta with a piece of the arguments or of the free text."""
        if self.kind == "legacy_function":
            return b'"function_call":{"arguments":%b}' % text
        if self.kind == "custom":
            return b'"tool_calls":[{"index":%d,"custom":{"input":%b}}]' % (index, text)
        return b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (index, text)


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


def finish_reason(stop_reason: str | None, calls: int, *, legacy: bool = False) -> bytes:
    """The `finish_reason` for a `stop_reason` of the Messages API; "stop" for unknown ones.

    An answer that calls a tool asks for its result, whatever the reason: vendors give `end_turn`.
    `legacy`: the call has the old form.
    """
    reason = _FINISH_REASONS.get(stop_reason or "", b"stop")
    if reason not in (b"stop", b"tool_calls"):
        return reason
    if not calls:
        return b"stop"
    return b"function_call" if legacy else b"tool_calls"


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
