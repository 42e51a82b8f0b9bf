"""A Responses request, read (OpenAI API reference, "Create a model response").

Decides what each field means. Refuses a field that cannot be honoured and would change the
answer, and a field of another dialect; ignores unknown fields and hints. Must not know which
model the request will go to.
Items are read in `input_items`, tools in `tools`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from relay.errors import RelayError
from relay.translate.foreign_fields import ForeignFields
from relay.translate.invalid import check_utf8, invalid_field
from relay.translate.invalid import read as read_part
from relay.translate.raw_json import NOTHING, decode_string, encode_string, has_text, is_given, kind
from relay.translate.request.block import text_block
from relay.translate.request.builder import MessagesBuilder
from relay.translate.request.conversation import Conversation
from relay.translate.request.options import EFFORTS, GenerationOptions, ResponseFormat
from relay.translate.request.tool_names import CallerTool
from relay.translate.responses import echo
from relay.translate.responses.fields import (
    RIGHT_NAMES,
    InputField,
    PreviousResponse,
    ReasoningField,
    RequestFields,
    TextField,
)
from relay.translate.responses.input_items import read_conversation, referenced_ids, resolved
from relay.translate.responses.seal import Seal
from relay.translate.responses.tools import OfferedTools

T = TypeVar("T")

_TEXT_HEAD: Final = b'{"type":"message","role":"user","content":[{"type":"input_text","text":'
_SUMMARY_PROMPT: Final = """\
This conversation is about to be cut off here, and somebody will go on with it who knows nothing \
of it but what you write now. Write down all that they need, and nothing else:

- what the user wants, in the end and at present, and how they want it done
- what has been done so far, and what was found out: files, names, commands, figures, exactly
- what was decided, and why; what was tried and did not work
- where things stand at this moment, and what comes next

Call no tools, and address nobody: the text alone is kept.\
"""

# OpenAI API reference, "Create a model response", metadata.
_MAX_METADATA_PAIRS: Final = 16
_MAX_METADATA_KEY: Final = 64  # characters
_MAX_METADATA_VALUE: Final = 512  # characters
_MAX_METADATA_OCTETS: Final = 128 * 1024  # such metadata has no more, even in escapes


# Not frozen: a compiled class takes longer to make then.
@dataclass(slots=True, repr=False)  # no text shows a prompt
class ResponsesRequest:
    """A Responses request as read."""

    builder: MessagesBuilder
    stream: bool
    user: str | None  # `safety_identifier` or `user`, as the caller gave it
    echo: bytes  # the response members that repeat the request, each after a comma
    tools: Mapping[str, CallerTool]  # by the names of their functions
    summarizes_thinking: bool  # the answer shows a summary of its thinking
    stored: bool  # the response is to be kept
    previous_response_id: str | None
    items: list[msgspec.Raw]  # the request's own input


_foreign: Final = ForeignFields(RIGHT_NAMES)
_decode_request: Final = msgspec.json.Decoder(RequestFields).decode
_NO_ITEMS: Final[Mapping[str, msgspec.Raw]] = {}
_decode_input: Final = msgspec.json.Decoder(InputField).decode
_decode_previous: Final = msgspec.json.Decoder(PreviousResponse).decode
_decode_reasoning: Final = msgspec.json.Decoder(ReasoningField | None).decode
_decode_text: Final = msgspec.json.Decoder(TextField | None).decode
_decode_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_integer: Final = msgspec.json.Decoder(int | None).decode
_decode_number: Final = msgspec.json.Decoder(float | None).decode
_decode_boolean: Final = msgspec.json.Decoder(bool | None).decode
_decode_metadata: Final = msgspec.json.Decoder(dict[str, str] | None).decode
_decode_string: Final = msgspec.json.Decoder(str | None).decode


def previous_response_id(body: bytes) -> str | None:
    """The id of the response that a request continues; None for a new conversation.

    Raises:
        RelayError: 400, the id is not a string.
    """
    if b"previous_response_id" not in body:
        return None
    return read_part(_decode_previous, body, "").previous_response_id or None


def referenced_items(body: bytes) -> list[str]:
    """The ids of the kept items that a request refers to.

    Raises:
        RelayError: 400, its input cannot be read.
    """
    if b'"item_reference"' not in body:
        return []
    raw = read_part(_decode_input, body, "").input
    return referenced_ids(read_part(_decode_raws, raw, "input")) if kind(raw) == "[" else []


def read(
    body: bytes,
    seal: Seal,
    *,
    before: Sequence[msgspec.Raw] = (),
    kept: Mapping[str, msgspec.Raw] = _NO_ITEMS,
    storing: bool = False,
) -> ResponsesRequest:
    """Read a request. Its `model` has been read before.

    Args:
        body: the request's body.
        seal: opens the sealed thinking of earlier answers.
        before: the conversation that the request continues, the oldest item first.
        kept: the items, by id, that the request refers to.
        storing: responses are kept unless a request says `"store": false`.

    Raises:
        RelayError: 400, a field cannot be honoured; `param` says which.
    """
    request = _fields(body)
    _check_supported(request)
    items = resolved(_input_items(request.input, before), kept)
    offered = OfferedTools()
    offered.add(request.tools, "tools")
    conversation = read_conversation(items, seal, offered, before)
    _add_instructions(conversation, request.instructions)
    reasoning = _decoded(_decode_reasoning, request.reasoning, "reasoning")
    parallel = _decoded(_decode_boolean, request.parallel_tool_calls, "parallel_tool_calls")
    toolset = offered.toolset(
        request.tool_choice,
        parallel=parallel is not False,
        max_searches=_at_least_one(request.max_tool_calls, "max_tool_calls"),
    )
    generation = GenerationOptions(
        max_tokens=_at_least_one(request.max_output_tokens, "max_output_tokens"),
        temperature=_in_range(request.temperature, 2, "temperature"),
        top_p=_in_range(request.top_p, 1, "top_p"),
        effort=_effort(reasoning),
        default_thinking=reasoning is not None,
        response_format=_response_format(request.text),
    )
    summary = (reasoning.summary or reasoning.generate_summary) if reasoning is not None else None
    stream = request.stream is True
    stored = storing and request.store is not False
    user = _decoded(_decode_string, request.safety_identifier, "safety_identifier")
    return ResponsesRequest(
        builder=MessagesBuilder(conversation, toolset, generation, stream=stream),
        stream=stream,
        user=user or request.user or None,
        echo=echo.members(request, stored=stored, size=len(body)),
        tools=offered.caller_tools,
        summarizes_thinking=summary not in (None, "none"),
        stored=stored,
        previous_response_id=_previous_response_id(request),
        items=items,
    )


def read_compaction(
    body: bytes,
    seal: Seal,
    *,
    before: Sequence[msgspec.Raw] = (),
    kept: Mapping[str, msgspec.Raw] = _NO_ITEMS,
) -> ResponsesRequest:
    """Read a request to compact its conversation into a summary.

    Args:
        body: the request's body.
        seal: opens the sealed thinking of earlier answers.
        before: the conversation that the request continues, the oldest item first.
        kept: the items, by id, that the request refers to.

    Raises:
        RelayError: 400, a field cannot be honoured; `param` says which.
    """
    request = _fields(body)
    items = resolved(_input_items(request.input, before), kept)
    conversation = read_conversation(items, seal, OfferedTools(), before)
    _add_instructions(conversation, request.instructions)
    conversation.user_turn().blocks.append(text_block(msgspec.Raw(encode_string(_SUMMARY_PROMPT))))
    no_tools = OfferedTools().toolset(NOTHING, parallel=True, max_searches=None)
    return ResponsesRequest(
        builder=MessagesBuilder(conversation, no_tools, GenerationOptions(), stream=False),
        stream=False,
        user=None,
        echo=b"",
        tools={},
        summarizes_thinking=False,
        stored=False,
        previous_response_id=_previous_response_id(request),
        items=[*before, *items],
    )


def _fields(body: bytes) -> RequestFields:
    """The fields of a request. Raises RelayError: 400, one of them is another dialect's."""
    check_utf8(body)
    request = read_part(_decode_request, body, "")
    _foreign.refuse(request)
    return request


def _check_supported(request: RequestFields) -> None:
    """Refuse features that the relay or the Messages API does not have, and malformed hints."""
    if request.background:
        raise invalid_field(
            "background", "responses are made while their caller waits: leave it out"
        )
    if is_given(request.conversation):
        raise invalid_field(
            "conversation", "conversations are not kept here: send the items as input"
        )
    if is_given(request.prompt):
        raise invalid_field("prompt", "prompts are not kept here: send instructions and input")
    if request.top_logprobs:
        raise invalid_field("top_logprobs", "these models tell no log probabilities")
    if is_given(request.truncation) and decode_string(request.truncation, "truncation") not in (
        "auto",
        "disabled",
    ):
        raise invalid_field("truncation", "it must be auto or disabled")
    for name in ("presence_penalty", "frequency_penalty"):
        _decoded(_decode_number, getattr(request, name), name)
    _check_metadata(request.metadata)
    _decoded(_decode_string, request.prompt_cache_key, "prompt_cache_key")


def _check_metadata(raw: msgspec.Raw) -> None:
    """Refuse metadata beyond OpenAI's bounds, since each answer repeats it."""
    pairs: dict[str, str] | None = None
    if len(memoryview(raw)) <= _MAX_METADATA_OCTETS:
        try:
            pairs = _decoded(_decode_metadata, raw, "metadata")
        except RelayError:
            raise invalid_field("metadata", "it must be an object whose values are texts") from None
        if not pairs:
            return
    if (
        pairs is None
        or len(pairs) > _MAX_METADATA_PAIRS
        or any(len(key) > _MAX_METADATA_KEY for key in pairs)
        or any(len(value) > _MAX_METADATA_VALUE for value in pairs.values())
    ):
        raise invalid_field(
            "metadata",
            f"it may have {_MAX_METADATA_PAIRS} pairs, with keys of {_MAX_METADATA_KEY} and values "
            f"of {_MAX_METADATA_VALUE} characters at most",
        )


def _input_items(raw: msgspec.Raw, before: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
    """The input as items; a text becomes a user message.

    Raises:
        RelayError: 400, there is neither input nor a conversation `before` it.
    """
    items: list[msgspec.Raw] = []
    if kind(raw) == '"':
        if has_text(raw, "input"):
            items.append(msgspec.Raw(b"".join((_TEXT_HEAD, raw, b"}]}"))))
    elif is_given(raw):
        items = read_part(_decode_raws, raw, "input")
    if not items and not before:
        raise invalid_field("input", "it must be given: a text, or an array of items")
    return items


def _add_instructions(conversation: Conversation, raw: msgspec.Raw) -> None:
    """Put `instructions` first in the system prompt."""
    if is_given(raw) and has_text(raw, "instructions"):
        conversation.system.insert(0, text_block(raw))


def _previous_response_id(request: RequestFields) -> str | None:
    return _decoded(_decode_string, request.previous_response_id, "previous_response_id") or None


def _decoded(decode: Callable[[Any], T | None], raw: msgspec.Raw, param: str) -> T | None:
    return read_part(decode, raw, param) if is_given(raw) else None


def _at_least_one(raw: msgspec.Raw, param: str) -> int | None:
    number: int | None = _decoded(_decode_integer, raw, param)
    if number is not None and number < 1:
        raise invalid_field(param, "it must be 1 or more")
    return number


def _in_range(raw: msgspec.Raw, maximum: int, param: str) -> float | None:
    number: float | None = _decoded(_decode_number, raw, param)
    if number is not None and not 0 <= number <= maximum:
        raise invalid_field(param, f"it must be from 0 to {maximum}")
    return number


def _effort(reasoning: ReasoningField | None) -> str | None:
    effort = reasoning.effort if reasoning is not None else None
    if effort is not None and effort not in EFFORTS:
        raise invalid_field("reasoning.effort", f"it must be one of {', '.join(EFFORTS)}")
    return effort


def _response_format(raw: msgspec.Raw) -> ResponseFormat | None:
    text = _decoded(_decode_text, raw, "text")
    format = text.format if text is not None else None
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return ResponseFormat(param="text.format")
    if format.type != "json_schema":
        raise invalid_field("text.format.type", "it must be text, json_object or json_schema")
    if kind(format.schema) != "{":
        raise invalid_field("text.format.schema", "it must be given, as an object")
    schema = bytes(format.schema)
    return ResponseFormat(schema, format.strict is True, "text.format")
