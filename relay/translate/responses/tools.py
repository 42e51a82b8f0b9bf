"""The tools of a Responses request, as functions, and what the model is to do with them.

Decides what each kind of tool is upstream, which of them are left out, and what the caller knows
each function by. A tool that somebody else would have to run for the caller, and nobody here can,
is refused; one of a kind that is not known here is left out, for agents offer whatever they have.
"""

import dataclasses
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    decode_string,
    encode_string,
    is_given,
    kind,
    not_text_error,
)
from relay.translate.request.tools import (
    Tool,
    ToolChoice,
    Toolset,
    UserLocation,
    WebSearch,
    input_schema,
)
from relay.translate.responses.tool_names import CallerTool, Kind, function_name

_ELSEWHERE: Final = ("file_search", "code_interpreter", "computer", "mcp")
_SEARCHES: Final = ("web_search", "web_search_preview")
_LONGEST: Final = 256  # characters of a namespace's name, which stands in each of its tools'
_CHOICES: Final[dict[str, ToolChoice]] = {"none": "none", "auto": "auto", "required": "any"}

_INPUT: Final = (
    b'{"type":"object","properties":{"input":{"type":"string","description":'
    b'"All of the text that this tool takes, as it is"}},'
    b'"required":["input"],"additionalProperties":false}'
)
_LOCAL_SHELL: Final = (
    b'{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"},'
    b'"description":"The program and its arguments"},"working_directory":{"type":"string"},'
    b'"timeout_ms":{"type":"integer"},"env":{"type":"object","description":'
    b'"Environment variables to set","additionalProperties":{"type":"string"}}},'
    b'"required":["command"]}'
)
_SHELL: Final = (
    b'{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"},'
    b'"description":"Command lines, each for a shell of its own"},'
    b'"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},'
    b'"required":["commands"]}'
)
_APPLY_PATCH: Final = (
    b'{"type":"object","properties":{"type":{"type":"string",'
    b'"enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},'
    b'"diff":{"type":"string","description":"The change: lines that stay begin with a space, '
    b"those that go with -, those that come with +, and @@ tells where. "
    b'Of a new file every line begins with +"}},"required":["type","path"]}'
)
_TOOL_SEARCH: Final = (
    b'{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}},'
    b'"required":["query"]}'
)
_HOSTED: Final[dict[str, tuple[Kind, str, bytes]]] = {
    "local_shell": ("local_shell", "Runs a program on the user's machine.", _LOCAL_SHELL),
    "shell": ("shell", "Runs command lines in a shell, and tells what came of each.", _SHELL),
    "apply_patch": ("apply_patch", "Creates, changes or deletes one file.", _APPLY_PATCH),
}
_FINDS_TOOLS: Final = "Finds further tools by what they are for; those found can be used then."


class _Told(msgspec.Struct, frozen=True, gc=False):
    """A tool of any kind, or a choice of one."""

    type: str
    name: str | None = None
    namespace: str | None = None
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    format: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    mode: str | None = None
    execution: str | None = None
    defer_loading: bool | None = None
    user_location: msgspec.Raw = NOTHING
    filters: msgspec.Raw = NOTHING


class _Format(msgspec.Struct, frozen=True):
    type: str = "text"
    syntax: str = ""
    definition: str = ""


class _Filters(msgspec.Struct, frozen=True):
    allowed_domains: list[str] | None = None


_told = msgspec.json.Decoder(list[_Told]).decode
_one = msgspec.json.Decoder(_Told).decode
_format = msgspec.json.Decoder(_Format).decode
_place = msgspec.json.Decoder(UserLocation | None).decode
_filters = msgspec.json.Decoder(_Filters | None).decode


class Offered:
    """The tools so far, the first of each name: what is appended never changes what was there.

    `known` tells what the caller calls the functions that the model may use.
    """

    __slots__ = ("_late", "_search", "_tools", "known")

    def __init__(self) -> None:
        self.known: dict[str, CallerTool] = {}
        self._tools: dict[str, Tool] = {}
        self._search: WebSearch | None = None
        self._late = False  # tools may wait until they are found

    def add(self, raw: msgspec.Raw, at: str, *, found: bool = False) -> None:
        """Take a list of tools; `found`: the model has found them, so none of them waits.

        Raises:
            RelayError: 400, one of them cannot be honoured; `at` is where the list is.
        """
        if not is_given(raw):
            return
        told = read(_told, raw, at)
        if any(tool.type == "tool_search" and tool.execution == "client" for tool in told):
            self._late = True
        for number, tool in enumerate(told):
            self._add(tool, f"{at}[{number}]", waits=self._late and not found)

    def _add(
        self, told: _Told, at: str, *, waits: bool, group: str | None = None, about: str = ""
    ) -> None:
        match told.type:
            case "function":
                if not (waits and told.defer_loading):
                    name = _name(told, at)
                    self._function(told, CallerTool("function", name, group), about, at)
            case "custom":
                if not (waits and told.defer_loading):
                    self._custom(told, CallerTool("custom", _name(told, at), group), about, at)
            case "namespace" if group is None:
                name = _name(told, at)
                inner = read(_told, told.tools, f"{at}.tools") if is_given(told.tools) else []
                if len(name) > _LONGEST:
                    raise invalid_field(f"{at}.name", f"it must have {_LONGEST} characters at most")
                words = _words(told.description, at)
                for number, tool in enumerate(inner):
                    here, count = f"{at}.tools[{number}]", len(self._tools)
                    self._add(tool, here, waits=waits, group=name, about=words)
                    if len(self._tools) > count:
                        words = ""  # it is said once: for thousands of tools it would be too much
            case "local_shell" | "shell" | "apply_patch":
                which, words, schema = _HOSTED[told.type]
                self._put(CallerTool(which, told.type), words, schema)
            case "tool_search" if told.execution == "client":
                schema = _TOOL_SEARCH
                if is_given(told.parameters):
                    schema = bytes(input_schema(told.parameters, f"{at}.parameters"))
                words = _words(told.description, at) or _FINDS_TOOLS
                self._put(CallerTool("tool_search", told.type), words, schema)
            case name if name.startswith(_SEARCHES):
                if self._search is None:
                    self._search = _searching(told, at)
            case name if name.startswith(_ELSEWHERE):
                raise invalid_field(
                    f"{at}.type",
                    f"'{name[:40]}' runs at OpenAI, and nothing here can take its place; offer a "
                    "function that your own program runs",
                )

    def _function(self, told: _Told, known: CallerTool, about: str, at: str) -> None:
        description = told.description if is_given(told.description) else NOTHING
        if description is not NOTHING and kind(description) != '"':
            raise not_text_error(description, f"{at}.description")
        if about:
            description = _joined(about, _words(description, at))
        schema = input_schema(told.parameters, f"{at}.parameters")
        self._take(known, description, schema, strict=told.strict is True)

    def _custom(self, told: _Told, known: CallerTool, about: str, at: str) -> None:
        form = read(_format, told.format, f"{at}.format") if is_given(told.format) else _Format()
        parts = [about, _words(told.description, at)]
        if form.type == "grammar":
            syntax = "a regular expression" if form.syntax == "regex" else "Lark's syntax"
            parts.append(f"The text must fit this grammar, which is {syntax}:\n{form.definition}")
        self._take(known, _joined(*parts), _INPUT, strict=False)

    def _put(self, known: CallerTool, words: str, schema: bytes) -> None:
        self._take(known, msgspec.Raw(encode_string(words)), schema, strict=False)

    def _take(
        self, known: CallerTool, description: msgspec.Raw, schema: Octets, *, strict: bool
    ) -> None:
        name = function_name(known.name, known.namespace)
        if name not in self._tools:
            self._tools[name] = Tool(name, description, schema, strict, NOTHING)
            self.known[name] = known

    def toolset(self, choice: msgspec.Raw, *, parallel: bool, most: int | None) -> Toolset:
        """The tools, and the choice among them.

        Args:
            choice: `tool_choice` as it was given.
            most: `max_tool_calls`.

        Raises:
            RelayError: 400, the choice is none of these tools.
        """
        how, name, allowed = self._chosen(choice)
        search = self._search
        if search is not None and most is not None:
            search = dataclasses.replace(search, max_uses=most)
        tools = [one for one in self._tools.values() if allowed is None or one.name in allowed]
        if allowed is not None and WebSearch.name not in allowed:
            search = None
        return Toolset(tools=tools, choice=how, name=name, parallel=parallel, search=search)

    def _chosen(self, raw: msgspec.Raw) -> tuple[ToolChoice, str, frozenset[str] | None]:
        if not is_given(raw):
            return "auto", "", None
        if kind(raw) == '"':
            told = decode_string(raw, "tool_choice")
            if told not in _CHOICES:
                raise invalid_field("tool_choice", "it must be none, auto, required, or an object")
            if told == "required" and not self._tools and self._search is None:
                raise invalid_field("tool_choice", "there are no tools that could be called")
            return _CHOICES[told], "", None
        choice = read(_one, raw, "tool_choice")
        if choice.type != "allowed_tools":
            return "tool", self._named(choice, "tool_choice"), None
        mode = choice.mode or "auto"
        if mode not in _CHOICES:
            raise invalid_field("tool_choice.mode", "it must be auto or required")
        tools = read(_told, choice.tools, "tool_choice.tools") if is_given(choice.tools) else []
        if not tools:
            raise invalid_field("tool_choice.tools", "there must be one at least")
        names = [
            self._named(tool, f"tool_choice.tools[{number}]") for number, tool in enumerate(tools)
        ]
        return _CHOICES[mode], "", frozenset(names)

    def _named(self, told: _Told, at: str) -> str:
        """The function that is meant by a choice."""
        if told.type.startswith(_SEARCHES) and self._search is not None:
            return WebSearch.name
        name = told.type
        if told.type in ("function", "custom"):
            name = function_name(told.name or "", told.namespace)
        if name not in self._tools:
            shown = (told.name or told.type)[:80]
            raise invalid_field(at, f"there is no such tool as '{shown}' in tools")
        return name


def _name(told: _Told, at: str) -> str:
    if not told.name:
        raise invalid_field(f"{at}.name", "it must be given")
    return told.name


def _words(raw: msgspec.Raw, at: str) -> str:
    return decode_string(raw, f"{at}.description") if is_given(raw) else ""


def _joined(*parts: str) -> msgspec.Raw:
    words = "\n\n".join(part for part in parts if part)
    return msgspec.Raw(encode_string(words)) if words else NOTHING


def _searching(told: _Told, at: str) -> WebSearch:
    place = (
        read(_place, told.user_location, f"{at}.user_location")
        if is_given(told.user_location)
        else None
    )
    filters = read(_filters, told.filters, f"{at}.filters") if is_given(told.filters) else None
    domains = tuple(filters.allowed_domains or ()) if filters is not None else ()
    return WebSearch(location=place or UserLocation(), allowed_domains=domains, required=False)


class _Repeated(msgspec.Struct, frozen=True, gc=False):
    type: str
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: msgspec.Raw = NOTHING


_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_repeated = msgspec.json.Decoder(list[_Repeated]).decode


def echoed(raw: msgspec.Raw) -> bytes:
    """The tools as a response repeats them, commas between them: functions with all that such an
    object must have, all others as they came."""
    if not is_given(raw):
        return b""
    found: list[Octets] = []
    for tool, whole in zip(_repeated(raw), _raws(raw), strict=True):
        found.append(b"," if found else b"")
        missing = b""
        if tool.type == "function":
            for name in ("description", "parameters", "strict"):
                if getattr(tool, name) is NOTHING:
                    missing += b'"%b":null,' % name.encode()
        if missing:
            found += (b"{", missing, memoryview(whole)[1:])
        else:
            found.append(whole)
    return b"".join(found)
