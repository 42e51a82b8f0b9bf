"""A chat completions request, read (OpenAI API reference, "Create chat completion").

Decides what each field means. Refuses a field that cannot be honoured and would change the
answer, and a field of another dialect; ignores unknown fields and hints. Must not know which
model the request will go to.
Messages are read in `transcript`, tools in `tools`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.chat.fields import FormatField, RequestFields
from relay.translate.chat.tools import (
    OfferedTools,
    web_search,
)
from relay.translate.chat.transcript import read_conversation
from relay.translate.foreign_fields import ForeignFields
from relay.translate.invalid import check_utf8, invalid_field
from relay.translate.invalid import read as read_part
from relay.translate.raw_json import NOTHING, is_given, kind
from relay.translate.request.builder import MessagesBuilder
from relay.translate.request.conversation import Conversation
from relay.translate.request.options import EFFORTS, GenerationOptions, ResponseFormat
from relay.translate.request.tool_names import CallerTool
from relay.translate.request.tools import Toolset

_RIGHT_NAMES: Final = {
    "input": "`messages`, or POST /v1/responses, whose requests have `input`",
    "prompt": "`messages`",
    "instructions": "`messages` with a first message of role developer or system",
    "system": "`messages` with a first message of role system",
    "max_output_tokens": "`max_completion_tokens`",
    "stop_sequences": "`stop`",
    "text": "`response_format`",
    "output_config": "`reasoning_effort` and `response_format`",
    "previous_response_id": "`messages` with the turns so far, or POST /v1/responses",
    "conversation": "`messages` with the turns so far",
}


# Not frozen: a compiled class takes longer to make then.
@dataclass(slots=True)
class ChatRequest:
    """A chat completions request as read."""

    builder: MessagesBuilder
    stream: bool
    include_usage: bool  # the stream ends with a chunk of usage
    user: str | None  # `safety_identifier` or `user`, as the caller gave it
    # The tools whose calls are not told as those of a function of the same name, by that name.
    tools: Mapping[str, CallerTool]


_foreign: Final = ForeignFields(_RIGHT_NAMES)
_decode_request: Final = msgspec.json.Decoder(RequestFields).decode


def read(body: bytes) -> ChatRequest:
    """Read a request. Its `model` has been read before.

    Raises:
        RelayError: 400, a field cannot be honoured; `param` says which.
    """
    check_utf8(body)
    request = read_part(_decode_request, body, "")
    _foreign.refuse(request)
    _check_supported(request)
    if request.messages is None:
        raise invalid_field("messages", "it must be given")
    conversation = read_conversation(request.messages)
    tools, renamed = _toolset(request, conversation)
    generation = GenerationOptions(
        max_tokens=_max_tokens(request),
        temperature=_in_range(request.temperature, 2, "temperature"),
        top_p=_in_range(request.top_p, 1, "top_p"),
        top_k=request.top_k,
        stop=_stop_sequences(request.stop),
        effort=_effort(request.reasoning_effort),
        thinking=_thinking(request.thinking),
        response_format=_response_format(request.response_format),
    )
    options = request.stream_options
    stream = request.stream is True
    return ChatRequest(
        builder=MessagesBuilder(conversation, tools, generation, stream=stream),
        stream=stream,
        include_usage=options is not None and options.include_usage is True,
        user=request.safety_identifier or request.user or None,
        tools=renamed,
    )


def _toolset(
    request: RequestFields, conversation: Conversation
) -> tuple[Toolset, Mapping[str, CallerTool]]:
    """The tools and the choice among them, and those whose calls are told in another form."""
    parallel = request.parallel_tool_calls is not False
    if not (request.tools or request.functions or request.tool_choice or request.function_call):
        return Toolset(parallel=parallel, search=web_search(request.web_search_options)), {}
    offered = OfferedTools(conversation)
    offered.add(request.tools or ())
    offered.add_functions(request.functions or ())
    toolset = offered.toolset(
        request.tool_choice,
        request.function_call,
        parallel=parallel,
        search=web_search(request.web_search_options),
    )
    return toolset, offered.renamed


def _check_supported(request: RequestFields) -> None:
    """Refuse features that the Messages API does not have."""
    if request.n is not None and request.n != 1:
        raise invalid_field("n", "only one choice can be had; send as many requests instead")
    if request.top_k is not None and request.top_k < 0:
        raise invalid_field("top_k", "it must be 0 or more")
    if request.logprobs:
        raise invalid_field("logprobs", "these models tell no log probabilities")
    if request.modalities is not None and any(name != "text" for name in request.modalities):
        raise invalid_field("modalities", "only 'text' can be had")


def _max_tokens(request: RequestFields) -> int | None:
    param, limit = "max_completion_tokens", request.max_completion_tokens
    if limit is None:
        param, limit = "max_tokens", request.max_tokens
    if limit is not None and limit < 1:
        raise invalid_field(param, "it must be 1 or more")
    return limit


def _in_range(value: float | None, maximum: int, param: str) -> float | None:
    if value is not None and not 0 <= value <= maximum:
        raise invalid_field(param, f"it must be from 0 to {maximum}")
    return value


def _stop_sequences(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    # The API refuses blank ones, and no caller can mean anything by them.
    sequences = [stop] if isinstance(stop, str) else stop
    return tuple(sequence for sequence in sequences if sequence.strip())


def _effort(effort: str | None) -> str | None:
    if effort is not None and effort not in EFFORTS:
        raise invalid_field("reasoning_effort", f"it must be one of {', '.join(EFFORTS)}")
    return effort


def _thinking(raw: msgspec.Raw) -> msgspec.Raw:
    if not is_given(raw):
        return NOTHING
    if kind(raw) != "{":
        raise invalid_field("thinking", "it must be an object")
    return raw


def _response_format(format: FormatField | None) -> ResponseFormat | None:
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return ResponseFormat()
    if format.type != "json_schema":
        raise invalid_field("response_format.type", "it must be text, json_object or json_schema")
    named_schema = format.json_schema
    if named_schema is None or kind(named_schema.schema) != "{":
        raise invalid_field("response_format.json_schema.schema", "it must be given, as an object")
    schema = bytes(named_schema.schema)
    return ResponseFormat(schema, named_schema.strict is True)
