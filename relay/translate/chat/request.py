"""A chat completions request, read (docs: OpenAI's API reference, "Create chat completion").

Decides what each field of that dialect means, and refuses what cannot be honoured: nothing that
would change an answer is ignored in silence but what is only a hint. Which model it will go to
is not known here. Messages are read in `chat_messages`.
"""

from typing import Final

import msgspec

from relay.translate.chat.transcript import Message, cache, conversation
from relay.translate.invalid import invalid_field
from relay.translate.invalid import read as read_part
from relay.translate.raw_json import NOTHING, given, kind
from relay.translate.request.builder import MessagesBuilder
from relay.translate.request.conversation import Conversation
from relay.translate.request.options import EFFORTS, GenerationOptions, ResponseFormat
from relay.translate.request.tools import Choice, Place, Search, Tool, Toolset, named, parameters


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    cache_control: msgspec.Raw = NOTHING


class _Tool(msgspec.Struct, frozen=True, gc=False):
    type: str
    function: _Function | None = None
    cache_control: msgspec.Raw = NOTHING


class _Named(msgspec.Struct, frozen=True, gc=False):
    name: str


class _Allowed(msgspec.Struct, frozen=True, gc=False):
    type: str = "function"
    function: _Named | None = None


class _AllowedTools(msgspec.Struct, frozen=True):
    tools: list[_Allowed]
    mode: str = "auto"


class _Choice(msgspec.Struct, frozen=True):
    type: str
    function: _Named | None = None
    allowed_tools: _AllowedTools | None = None


class _JsonSchema(msgspec.Struct, frozen=True):
    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class _Format(msgspec.Struct, frozen=True):
    type: str
    json_schema: _JsonSchema | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _Approximate(msgspec.Struct, frozen=True):
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class _Location(msgspec.Struct, frozen=True):
    approximate: _Approximate | None = None


class _SearchOptions(msgspec.Struct, frozen=True):
    user_location: _Location | None = None


class _Request(msgspec.Struct, frozen=True, gc=False):
    """All fields that mean anything here; others are hints for somebody else's models."""

    messages: list[Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    thinking: msgspec.Raw = NOTHING
    response_format: _Format | None = None
    web_search_options: _SearchOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    functions: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    user: str | None = None
    safety_identifier: str | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """A chat completions request as read."""

    builder: MessagesBuilder
    stream: bool
    include_usage: bool
    user: str | None  # `safety_identifier` or `user`, as the caller gave it


_CHOICES: Final[dict[str, Choice]] = {"none": "none", "auto": "auto", "required": "any"}
_request: Final = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> ChatRequest:
    """Read a request, whose `model` has been seen already.

    Raises:
        RelayError: 400, something in it cannot be honoured; `param` says what.
    """
    request = read_part(_request, body, "")
    _refuse(request)
    said = conversation(request.messages)
    tools = _toolset(request, said)
    wishes = GenerationOptions(
        max_tokens=_max_tokens(request),
        temperature=_within(request.temperature, 2, "temperature"),
        top_p=_within(request.top_p, 1, "top_p"),
        top_k=request.top_k,
        stop=_stop(request.stop),
        effort=_effort(request.reasoning_effort),
        thinking=_thinking(request.thinking),
        shape=_shape(request.response_format),
    )
    options = request.stream_options
    stream = request.stream is True
    return ChatRequest(
        MessagesBuilder(said, tools, wishes, stream=stream),
        stream,
        options is not None and options.include_usage is True,
        request.safety_identifier or request.user or None,
    )


def _refuse(request: _Request) -> None:
    """Refuse what nobody could do on the other side."""
    if request.n is not None and request.n != 1:
        raise invalid_field("n", "only one choice can be had; send as many requests instead")
    if request.top_k is not None and request.top_k < 0:
        raise invalid_field("top_k", "it must be 0 or more")
    if request.logprobs:
        raise invalid_field("logprobs", "these models tell no log probabilities")
    if request.modalities is not None and any(one != "text" for one in request.modalities):
        raise invalid_field("modalities", "only 'text' can be had")
    if given(request.functions):
        raise invalid_field("functions", "use tools instead")
    if given(request.function_call):
        raise invalid_field("function_call", "use tool_choice instead")


def _max_tokens(request: _Request) -> int | None:
    name, most = "max_completion_tokens", request.max_completion_tokens
    if most is None:
        name, most = "max_tokens", request.max_tokens
    if most is not None and most < 1:
        raise invalid_field(name, "it must be 1 or more")
    return most


def _within(value: float | None, most: int, param: str) -> float | None:
    if value is not None and not 0 <= value <= most:
        raise invalid_field(param, f"it must be from 0 to {most}")
    return value


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    # The API refuses blank ones, which nothing could be meant by.
    return tuple(one for one in ([stop] if isinstance(stop, str) else stop) if one.strip())


def _effort(effort: str | None) -> str | None:
    if effort is not None and effort not in EFFORTS:
        raise invalid_field("reasoning_effort", f"it must be one of {', '.join(EFFORTS)}")
    return effort


def _thinking(raw: msgspec.Raw) -> msgspec.Raw:
    if not given(raw):
        return NOTHING
    if kind(raw) != "{":
        raise invalid_field("thinking", "it must be an object")
    return raw


def _shape(told: _Format | None) -> ResponseFormat | None:
    if told is None or told.type == "text":
        return None
    if told.type == "json_object":
        return ResponseFormat()
    if told.type != "json_schema":
        raise invalid_field("response_format.type", "it must be text, json_object or json_schema")
    named_schema = told.json_schema
    if named_schema is None or kind(named_schema.schema) != "{":
        raise invalid_field("response_format.json_schema.schema", "it must be given, as an object")
    schema = bytes(named_schema.schema)
    try:
        schema.decode()  # it may end up in a text
    except UnicodeDecodeError:
        raise invalid_field("response_format.json_schema.schema", "it is not UTF-8") from None
    return ResponseFormat(schema, named_schema.strict is True)


def _toolset(request: _Request, said: Conversation) -> Toolset:
    """The tools and the choice among them; a cache mark on one of them counts as the caller's."""
    tools: dict[str, Tool] = {}
    for number, told in enumerate(request.tools or ()):
        at = f"tools[{number}]"
        tool = _tool(told, at)
        if tool.name in tools:
            raise invalid_field(
                f"{at}.function.name", f"there are several tools called '{tool.name}'"
            )
        said.marked = said.marked or tool.cache is not NOTHING
        tools[tool.name] = tool
    choice, name, allowed = _chosen(request.tool_choice, tools)
    search = request.web_search_options
    return Toolset(
        tools=[tool for tool in tools.values() if allowed is None or tool.name in allowed],
        choice=choice,
        name=name,
        parallel=request.parallel_tool_calls is not False,
        search=Search(place=_place(search)) if search is not None else None,
    )


def _tool(told: _Tool, at: str) -> Tool:
    if told.type != "function":
        raise invalid_field(f"{at}.type", "only 'function' is known here")
    function = told.function
    if function is None:
        raise invalid_field(f"{at}.function", "it must be given")
    mark = cache(told.cache_control, f"{at}.cache_control")
    at += ".function"
    if mark is NOTHING:
        mark = cache(function.cache_control, f"{at}.cache_control")
    description = function.description
    if given(description) and kind(description) != '"':
        raise invalid_field(f"{at}.description", "it must be a text")
    return Tool(
        named(function.name, f"{at}.name"),
        description if given(description) else NOTHING,
        parameters(function.parameters, f"{at}.parameters"),
        function.strict is True,
        mark,
    )


def _chosen(
    told: str | _Choice | None, tools: dict[str, Tool]
) -> tuple[Choice, str, frozenset[str] | None]:
    """The choice, the tool that must be called, and those that may be; None: all of them."""
    choice: Choice = "auto"
    if told is None:
        return choice, "", None
    if isinstance(told, str):
        if told not in _CHOICES:
            raise invalid_field("tool_choice", "it must be none, auto, required, or an object")
        choice = _CHOICES[told]
        if choice == "any" and not tools:
            raise invalid_field("tool_choice", "there are no tools that could be called")
        return choice, "", None
    if told.type == "function":
        name = told.function.name if told.function is not None else ""
        if name not in tools:
            raise invalid_field(
                "tool_choice.function.name", f"there is no tool called '{name[:80]}'"
            )
        return "tool", name, None
    if told.type != "allowed_tools" or told.allowed_tools is None:
        raise invalid_field("tool_choice.type", "it must be function or allowed_tools")
    at = "tool_choice.allowed_tools"
    if told.allowed_tools.mode not in ("auto", "required"):
        raise invalid_field(f"{at}.mode", "it must be auto or required")
    allowed = set()
    for number, one in enumerate(told.allowed_tools.tools):
        name = one.function.name if one.function is not None else ""
        if one.type != "function" or name not in tools:
            raise invalid_field(f"{at}.tools[{number}]", "it must be one of the functions in tools")
        allowed.add(name)
    if not allowed:
        raise invalid_field(f"{at}.tools", "there must be one at least")
    return _CHOICES[told.allowed_tools.mode], "", frozenset(allowed)


def _place(told: _SearchOptions) -> Place:
    location = told.user_location.approximate if told.user_location is not None else None
    if location is None:
        return Place()
    return Place(
        city=location.city or None,
        country=location.country or None,
        region=location.region or None,
        timezone=location.timezone or None,
    )
