"""The tools of a Responses request, as functions, and the model's choice among them.

Decides what each kind of tool is upstream, which tools are left out, and the caller's name for
each function. A tool that runs at OpenAI and has no substitute here is refused, unless agents
offer it in passing: that is left out. A tool of an unknown kind is refused.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    decode_string,
    encode_string,
    is_given,
    kind,
    not_text_error,
)
from relay.translate.request.tool_names import CallerTool, ToolKind, function_name
from relay.translate.request.tools import (
    TEXT_SCHEMA,
    TOOL_CHOICES,
    WEB_SEARCH,
    Tool,
    ToolChoice,
    Toolset,
    WebSearch,
    grammar_words,
    input_schema,
    paragraphs,
)
from relay.translate.request.user_location import UserLocation
from relay.translate.responses.fields import CustomFormat, EchoedTool, SearchFilters, ToolParam

_OPENAI_HOSTED: Final = ("file_search", "code_interpreter", "computer", "mcp")
_SEARCHES: Final = ("web_search", "web_search_preview")
# They run at OpenAI too, but agents offer them beside tools of their own.
_LEFT_OUT: Final = ("image_generation", "programmatic_tool_calling", "tool_search")
_TOOL_TYPES: Final = (
    "function",
    "custom",
    "namespace",
    "local_shell",
    "shell",
    "apply_patch",
    "web_search",
    *_LEFT_OUT,
)
_CHOICE_TYPES: Final = ("function", "allowed_tools", *_TOOL_TYPES[1:])
# Characters of a namespace's name, which is part of the name of each of its tools.
_MAX_NAMESPACE: Final = 256

_LOCAL_SHELL_SCHEMA: Final = (
    b'{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"},'
    b'"description":"The program and its arguments"},"working_directory":{"type":"string"},'
    b'"timeout_ms":{"type":"integer"},"env":{"type":"object","description":'
    b'"Environment variables to set","additionalProperties":{"type":"string"}}},'
    b'"required":["command"]}'
)
_SHELL_SCHEMA: Final = (
    b'{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"},'
    b'"description":"Command lines, each for a shell of its own"},'
    b'"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},'
    b'"required":["commands"]}'
)
_APPLY_PATCH_SCHEMA: Final = (
    b'{"type":"object","properties":{"type":{"type":"string",'
    b'"enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},'
    b'"diff":{"type":"string","description":"The change: lines that stay begin with a space, '
    b"those that go with -, those that come with +, and @@ tells where. "
    b'Of a new file every line begins with +"}},"required":["type","path"]}'
)
_TOOL_SEARCH_SCHEMA: Final = (
    b'{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}},'
    b'"required":["query"]}'
)
_HOSTED_TOOLS: Final[dict[str, tuple[ToolKind, str, bytes]]] = {
    "local_shell": (
        "local_shell",
        "Runs a program on the user's machine.",
        _LOCAL_SHELL_SCHEMA,
    ),
    "shell": (
        "shell",
        "Runs command lines in a shell, and tells what came of each.",
        _SHELL_SCHEMA,
    ),
    "apply_patch": (
        "apply_patch",
        "Creates, changes or deletes one file.",
        _APPLY_PATCH_SCHEMA,
    ),
}
_TOOL_SEARCH_DESCRIPTION: Final = (
    "Finds further tools by what they are for; those found can be used then."
)


_decode_tools: Final = msgspec.json.Decoder(list[ToolParam]).decode
_decode_choice: Final = msgspec.json.Decoder(ToolParam).decode
_decode_format: Final = msgspec.json.Decoder(CustomFormat).decode
_decode_location: Final = msgspec.json.Decoder(UserLocation | None).decode
_decode_filters: Final = msgspec.json.Decoder(SearchFilters | None).decode


@dataclass(slots=True)
class _Namespace:
    """The namespace whose tools are being added.

    The first tool that goes upstream carries the namespace's description. Thousands of tools
    would otherwise repeat it thousands of times.
    """

    name: str | None = None
    description: str = ""
    found: bool = False  # its tools are in the conversation, which cannot be undone


class OfferedTools:
    """The tools offered so far, the first of each name: a later tool never replaces one."""

    __slots__ = ("_search", "_some_deferred", "_tools", "caller_tools")

    def __init__(self) -> None:
        self.caller_tools: dict[str, CallerTool] = {}  # by function name
        self._tools: dict[str, Tool] = {}
        self._search: WebSearch | None = None
        self._some_deferred = False  # tools may wait until a search finds them

    def add(self, raw: msgspec.Raw, param: str, *, found: bool = False) -> None:
        """Add a list of tools.

        Args:
            param: the list's place in the request.
            found: the tools are in the conversation, where a search has found them: none of them
                is deferred, and those of unknown kinds are left out.

        Raises:
            RelayError: 400, a tool cannot be honoured.
        """
        if not is_given(raw):
            return
        tools = read(_decode_tools, raw, param)
        if any(tool.type == "tool_search" and tool.execution == "client" for tool in tools):
            self._some_deferred = True
        skip_deferred = self._some_deferred and not found
        for index, tool in enumerate(paced(tools)):
            namespace = _Namespace(found=found)
            self._add(tool, f"{param}[{index}]", namespace, skip_deferred=skip_deferred)

    def _add(
        self, tool: ToolParam, param: str, namespace: _Namespace, *, skip_deferred: bool
    ) -> None:
        match tool.type:
            case "function" | "custom" if skip_deferred and tool.defer_loading:
                pass
            case "function":
                self._add_function(tool, namespace, param)
            case "custom":
                self._add_custom(tool, namespace, param)
            case "namespace" if namespace.name is None:
                self._add_namespace(tool, param, namespace, skip_deferred=skip_deferred)
            case "local_shell" | "shell" | "apply_patch":
                tool_kind, description, schema = _HOSTED_TOOLS[tool.type]
                self._add_hosted(CallerTool(tool_kind, tool.type), description, schema)
            case "tool_search" if tool.execution == "client":
                schema = _TOOL_SEARCH_SCHEMA
                if is_given(tool.parameters):
                    schema = bytes(input_schema(tool.parameters, f"{param}.parameters"))
                description = _description(tool.description, param) or _TOOL_SEARCH_DESCRIPTION
                self._add_hosted(CallerTool("tool_search", tool.type), description, schema)
            case name if name.startswith(_SEARCHES):
                if self._search is None:
                    self._search = _web_search(tool, param)
            case name if name.startswith(_OPENAI_HOSTED):
                raise invalid_field(
                    f"{param}.type",
                    f"'{name[:40]}' runs at OpenAI, and nothing here can take its place; offer a "
                    "function that your own program runs",
                )
            case name if name not in _LEFT_OUT and not namespace.found:
                hint = "namespaces are not within another" if name == "namespace" else ""
                raise unknown_type_error(f"{param}.type", _TOOL_TYPES, hint)

    def _add_namespace(
        self, tool: ToolParam, param: str, outer: _Namespace, *, skip_deferred: bool
    ) -> None:
        name = _name(tool, param)
        tools = read(_decode_tools, tool.tools, f"{param}.tools") if is_given(tool.tools) else []
        if len(name) > _MAX_NAMESPACE:
            raise invalid_field(
                f"{param}.name", f"it must have {_MAX_NAMESPACE} characters at most"
            )
        namespace = _Namespace(name, _description(tool.description, param), outer.found)
        for index, member in enumerate(paced(tools)):
            count = len(self._tools)
            self._add(member, f"{param}.tools[{index}]", namespace, skip_deferred=skip_deferred)
            if len(self._tools) > count:
                namespace.description = ""

    def _add_function(self, tool: ToolParam, namespace: _Namespace, param: str) -> None:
        caller_tool = CallerTool("function", _name(tool, param), namespace.name)
        description = tool.description if is_given(tool.description) else NOTHING
        if description is not NOTHING and kind(description) != '"':
            raise not_text_error(description, f"{param}.description")
        own = _description(description, param) if namespace.description else ""
        if namespace.description and self._is_new(caller_tool):
            description = paragraphs(namespace.description, own)
        schema = input_schema(tool.parameters, f"{param}.parameters")
        self._put(caller_tool, description, schema, strict=tool.strict is True)

    def _add_custom(self, tool: ToolParam, namespace: _Namespace, param: str) -> None:
        caller_tool = CallerTool("custom", _name(tool, param), namespace.name)
        format = CustomFormat()
        if is_given(tool.format):
            format = read(_decode_format, tool.format, f"{param}.format")
        # A tool that is not new is left out, so its long texts are not joined.
        shared = namespace.description if self._is_new(caller_tool) else ""
        texts = [shared, _description(tool.description, param)]
        if format.type == "grammar":
            texts.append(grammar_words(format.syntax, format.definition))
        self._put(caller_tool, paragraphs(*texts), TEXT_SCHEMA, strict=False)

    def _add_hosted(self, caller_tool: CallerTool, description: str, schema: bytes) -> None:
        self._put(caller_tool, msgspec.Raw(encode_string(description)), schema, strict=False)

    def _is_new(self, caller_tool: CallerTool) -> bool:
        return function_name(caller_tool.name, caller_tool.namespace) not in self._tools

    def _put(
        self, caller_tool: CallerTool, description: msgspec.Raw, schema: Octets, *, strict: bool
    ) -> None:
        name = function_name(caller_tool.name, caller_tool.namespace)
        if name not in self._tools:
            self._tools[name] = Tool(name, description, schema, strict, NOTHING)
            self.caller_tools[name] = caller_tool

    def toolset(self, choice: msgspec.Raw, *, parallel: bool, max_searches: int | None) -> Toolset:
        """The tools, and the choice among them.

        Args:
            choice: `tool_choice` as the caller gave it.
            parallel: `parallel_tool_calls`.
            max_searches: `max_tool_calls`, which limits the tools that run upstream.

        Raises:
            RelayError: 400, the choice is not one of these tools.
        """
        mode, name, allowed = self._choice(choice)
        search = self._search
        if search is not None and max_searches is not None:
            search = dataclasses.replace(search, max_uses=max_searches)
        tools = [tool for tool in self._tools.values() if allowed is None or tool.name in allowed]
        if allowed is not None and WEB_SEARCH not in allowed:
            search = None
        return Toolset(tools=tools, choice=mode, name=name, parallel=parallel, search=search)

    def _choice(self, raw: msgspec.Raw) -> tuple[ToolChoice, str, frozenset[str] | None]:
        """The mode, the tool that must be called, and the tools allowed (None: all of them)."""
        if not is_given(raw):
            return "auto", "", None
        if kind(raw) == '"':
            mode = decode_string(raw, "tool_choice")
            if mode not in TOOL_CHOICES:
                raise invalid_field("tool_choice", "it must be none, auto, required, or an object")
            return self._mode(mode), "", None
        choice = read(_decode_choice, raw, "tool_choice")
        if choice.type in TOOL_CHOICES:
            return self._mode(choice.type), "", None
        if choice.type != "allowed_tools":
            return "tool", self._chosen_function(choice, "tool_choice"), None
        mode = choice.mode or "auto"
        if mode not in ("none", "auto", "required"):
            raise invalid_field("tool_choice.mode", "it must be auto or required")
        param = "tool_choice.tools"
        tools = read(_decode_tools, choice.tools, param) if is_given(choice.tools) else []
        if not tools:
            raise invalid_field(param, "there must be one at least")
        names = [
            self._chosen_function(tool, f"{param}[{index}]")
            for index, tool in enumerate(paced(tools))
        ]
        return TOOL_CHOICES[mode], "", frozenset(names)

    def _mode(self, word: str) -> ToolChoice:
        mode = TOOL_CHOICES[word]
        if mode == "any" and not self._tools and self._search is None:
            raise invalid_field("tool_choice", "there are no tools that could be called")
        return mode

    def _chosen_function(self, choice: ToolParam, param: str) -> str:
        """The name of the function that a choice means."""
        if choice.type.startswith(_SEARCHES) and self._search is not None:
            return WEB_SEARCH
        name = choice.type
        if choice.type in ("function", "custom", "tool"):
            name = function_name(_name(choice, param), choice.namespace)
        elif name not in _CHOICE_TYPES and not name.startswith((*_SEARCHES, *_OPENAI_HOSTED)):
            raise unknown_type_error(f"{param}.type", _CHOICE_TYPES)
        if name not in self._tools:
            tool = (choice.name or choice.type)[:80]
            raise invalid_field(param, f"there is no such tool as '{tool}' in tools")
        return name


def _name(tool: ToolParam, param: str) -> str:
    if not tool.name:
        is_chats = is_given(tool.function)
        hint = ", beside `type`: `function` is of chat completions" if is_chats else ""
        raise invalid_field(f"{param}.name", f"it must be given{hint}")
    return tool.name


def _description(raw: msgspec.Raw, param: str) -> str:
    return decode_string(raw, f"{param}.description") if is_given(raw) else ""


def _web_search(tool: ToolParam, param: str) -> WebSearch:
    location = (
        read(_decode_location, tool.user_location, f"{param}.user_location")
        if is_given(tool.user_location)
        else None
    )
    filters = (
        read(_decode_filters, tool.filters, f"{param}.filters") if is_given(tool.filters) else None
    )
    domains = tuple(filters.allowed_domains or ()) if filters is not None else ()
    return WebSearch(location=location or UserLocation(), allowed_domains=domains, required=False)


_decode_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_echoed: Final = msgspec.json.Decoder(list[EchoedTool]).decode


def render_tools(raw: msgspec.Raw) -> bytes:
    """The tools as a response repeats them, separated by commas.

    A function gets the members that such an object must have. All other tools stay as they came.
    """
    if not is_given(raw):
        return b""
    pieces: list[Octets] = []
    for tool, octets in paced(zip(_decode_echoed(raw), _decode_raws(raw), strict=True)):
        pieces.append(b"," if pieces else b"")
        missing = b""
        if tool.type == "function":
            for name in ("description", "parameters", "strict"):
                if getattr(tool, name) is NOTHING:
                    missing += b'"%b":null,' % name.encode()
        if missing:
            pieces += (b"{", missing, memoryview(octets)[1:])
        else:
            pieces.append(octets)
    return b"".join(pieces)
