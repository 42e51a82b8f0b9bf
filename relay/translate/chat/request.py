"""A chat completions request, read (OpenAI API reference, "Create chat completion").

Decides what each field means. Refuses a field that cannot be honoured and would change the
answer, and a field of another dialect; ignores unknown fields and hints. Must not know which
model the request will go to.
Messages are read in `transcript`.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.chat.transcript import Message, read_cache_control, read_conversation
from relay.translate.foreign_fields import ForeignFields
from relay.translate.invalid import (
    check_utf8,
    invalid_field,
    unknown_type_error,
)
from relay.translate.invalid import read as read_part
from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, is_given, kind
from relay.translate.request.builder import MessagesBuilder
from relay.translate.request.conversation import Conversation
from relay.translate.request.options import EFFORTS, GenerationOptions, ResponseFormat
from relay.translate.request.tools import (
    Tool,
    ToolChoice,
    Toolset,
    UserLocation,
    WebSearch,
    check_name,
    input_schema,
)


class _FunctionDefinition(msgspec.Struct, frozen=True, gc=False):
    name: str
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    cache_control: msgspec.Raw = NOTHING


class _FunctionTool(msgspec.Struct, frozen=True, gc=False):
    type: str
    function: _FunctionDefinition | None = None
    cache_control: msgspec.Raw = NOTHING


class _FunctionName(msgspec.Struct, frozen=True, gc=False):
    name: str


class _AllowedTool(msgspec.Struct, frozen=True, gc=False):
    type: str = "function"
    function: _FunctionName | None = None


class _AllowedTools(msgspec.Struct, frozen=True):
    tools: list[_AllowedTool]
    mode: str = "auto"


class _ToolChoice(msgspec.Struct, frozen=True):
    type: str
    function: _FunctionName | None = None
    allowed_tools: _AllowedTools | None = None


class _JsonSchema(msgspec.Struct, frozen=True):
    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class _FormatField(msgspec.Struct, frozen=True):
    type: str
    json_schema: _JsonSchema | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _ApproximateLocation(msgspec.Struct, frozen=True):
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class _UserLocation(msgspec.Struct, frozen=True):
    approximate: _ApproximateLocation | None = None


class _WebSearchOptions(msgspec.Struct, frozen=True):
    user_location: _UserLocation | None = None


class _RequestFields(msgspec.Struct, frozen=True, gc=False):
    """The fields that have an effect. Others are hints for other vendors' models."""

    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[_FunctionTool] | None = None
    tool_choice: str | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    thinking: msgspec.Raw = NOTHING
    response_format: _FormatField | None = None
    web_search_options: _WebSearchOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    functions: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    user: str | None = None
    safety_identifier: str | None = None

    # Of other dialects, to be refused.
    input: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    instructions: msgspec.Raw = NOTHING
    system: msgspec.Raw = NOTHING
    max_output_tokens: msgspec.Raw = NOTHING
    stop_sequences: msgspec.Raw = NOTHING
    text: msgspec.Raw = NOTHING
    output_config: msgspec.Raw = NOTHING
    previous_response_id: msgspec.Raw = NOTHING
    conversation: msgspec.Raw = NOTHING


_RIGHT_NAMES: Final = {
    "input": "`messages`",
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


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completions request as read."""

    builder: MessagesBuilder
    stream: bool
    include_usage: bool  # the stream ends with a chunk of usage
    user: str | None  # `safety_identifier` or `user`, as the caller gave it


_TOOL_CHOICES: Final[dict[str, ToolChoice]] = {"none": "none", "auto": "auto", "required": "any"}
_TOOL_HINTS: Final = {
    "custom": "offer a function with one text as its parameter, or use POST /v1/responses",
    "web_search": "use `web_search_options`, or POST /v1/responses",
    "web_search_preview": "use `web_search_options`, or POST /v1/responses",
}
_CHOICE_HINTS: Final = {
    "auto": 'use the text "auto"',
    "none": 'use the text "none"',
    "required": 'use the text "required"',
    "any": 'use the text "required"',
    "tool": 'use {"type": "function", "function": {"name": …}}',
    "custom": "custom tools are had at POST /v1/responses alone",
}
_foreign: Final = ForeignFields(_RIGHT_NAMES)
_decode_request: Final = msgspec.json.Decoder(_RequestFields).decode


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
    tools = _toolset(request, conversation)
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
    )


def _check_supported(request: _RequestFields) -> None:
    """Refuse features that the Messages API does not have."""
    if request.n is not None and request.n != 1:
        raise invalid_field("n", "only one choice can be had; send as many requests instead")
    if request.top_k is not None and request.top_k < 0:
        raise invalid_field("top_k", "it must be 0 or more")
    if request.logprobs:
        raise invalid_field("logprobs", "these models tell no log probabilities")
    if request.modalities is not None and any(name != "text" for name in request.modalities):
        raise invalid_field("modalities", "only 'text' can be had")
    if is_given(request.functions):
        raise invalid_field("functions", "use tools instead")
    if is_given(request.function_call):
        raise invalid_field("function_call", "use tool_choice instead")


def _max_tokens(request: _RequestFields) -> int | None:
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


def _response_format(format: _FormatField | None) -> ResponseFormat | None:
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


def _toolset(request: _RequestFields, conversation: Conversation) -> Toolset:
    """The tools and the choice among them. A tool's `cache_control` marks the conversation."""
    tools: dict[str, Tool] = {}
    for index, definition in enumerate(paced(request.tools or ())):
        param = f"tools[{index}]"
        tool = _tool(definition, param)
        if tool.name in tools:
            raise invalid_field(
                f"{param}.function.name", f"there are several tools called '{tool.name}'"
            )
        conversation.has_cache_marks = conversation.has_cache_marks or tool.cache is not NOTHING
        tools[tool.name] = tool
    choice, name, allowed = _tool_choice(request.tool_choice, tools)
    search = request.web_search_options
    return Toolset(
        tools=[tool for tool in tools.values() if allowed is None or tool.name in allowed],
        choice=choice,
        name=name,
        parallel=request.parallel_tool_calls is not False,
        search=WebSearch(location=_user_location(search)) if search is not None else None,
    )


def _tool(definition: _FunctionTool, param: str) -> Tool:
    if definition.type != "function":
        raise unknown_type_error(
            f"{param}.type", ("function",), _TOOL_HINTS.get(definition.type, "")
        )
    function = definition.function
    if function is None:
        raise invalid_field(
            f"{param}.function", "it must be given, with `name` and `parameters` of the tool in it"
        )
    mark = read_cache_control(definition.cache_control, f"{param}.cache_control")
    param += ".function"
    if mark is NOTHING:
        mark = read_cache_control(function.cache_control, f"{param}.cache_control")
    description = function.description
    if is_given(description) and kind(description) != '"':
        raise invalid_field(f"{param}.description", "it must be a text")
    return Tool(
        check_name(function.name, f"{param}.name"),
        description if is_given(description) else NOTHING,
        input_schema(function.parameters, f"{param}.parameters"),
        function.strict is True,
        mark,
    )


def _tool_choice(
    requested: str | _ToolChoice | None, tools: dict[str, Tool]
) -> tuple[ToolChoice, str, frozenset[str] | None]:
    """The choice, the tool that must be called, and the tools allowed (None: all of them)."""
    if requested is None:
        return "auto", "", None
    if isinstance(requested, str):
        if requested not in _TOOL_CHOICES:
            raise invalid_field("tool_choice", "it must be none, auto, required, or an object")
        choice = _TOOL_CHOICES[requested]
        if choice == "any" and not tools:
            raise invalid_field("tool_choice", "there are no tools that could be called")
        return choice, "", None
    if requested.type == "function":
        if requested.function is None:
            raise invalid_field("tool_choice.function", "it must be given, with a `name` in it")
        name = requested.function.name
        if name not in tools:
            raise invalid_field(
                "tool_choice.function.name", f"there is no tool called '{name[:80]}'"
            )
        return "tool", name, None
    if requested.type != "allowed_tools":
        hint = _CHOICE_HINTS.get(requested.type, "")
        raise unknown_type_error("tool_choice.type", ("function", "allowed_tools"), hint)
    if requested.allowed_tools is None:
        raise invalid_field("tool_choice.allowed_tools", "it must be given, with `tools` in it")
    return _allowed_tools(requested.allowed_tools, tools)


def _allowed_tools(
    requested: _AllowedTools, tools: dict[str, Tool]
) -> tuple[ToolChoice, str, frozenset[str]]:
    param = "tool_choice.allowed_tools"
    if requested.mode not in ("auto", "required"):
        raise invalid_field(f"{param}.mode", "it must be auto or required")
    names = set()
    for index, tool in enumerate(paced(requested.tools)):
        name = tool.function.name if tool.function is not None else ""
        if tool.type != "function" or name not in tools:
            raise invalid_field(
                f"{param}.tools[{index}]", "it must be one of the functions in tools"
            )
        names.add(name)
    if not names:
        raise invalid_field(f"{param}.tools", "there must be one at least")
    return _TOOL_CHOICES[requested.mode], "", frozenset(names)


def _user_location(options: _WebSearchOptions) -> UserLocation:
    location = options.user_location.approximate if options.user_location is not None else None
    if location is None:
        return UserLocation()
    return UserLocation(
        city=location.city or None,
        country=location.country or None,
        region=location.region or None,
        timezone=location.timezone or None,
    )
