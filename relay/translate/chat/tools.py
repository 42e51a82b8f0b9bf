"""The tools of a chat completions request, as functions, and the model's choice among them.

Decides what each kind of tool is upstream, and under which name: names that the Messages API does
not take are mapped. Reads the old form, `functions` and `function_call`, too.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.translate.chat.content import read_cache_control
from relay.translate.chat.fields import (
    AllowedTools,
    ChoiceField,
    CustomDefinition,
    FunctionDefinition,
    FunctionName,
    ToolDefinition,
    WebSearchOptions,
)
from relay.translate.invalid import invalid_field, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, Octets, decode_string, is_given, not_text_error
from relay.translate.raw_json import kind as kind_of
from relay.translate.request.conversation import Conversation
from relay.translate.request.tool_names import CallerTool, ToolKind, function_name
from relay.translate.request.tools import (
    TEXT_SCHEMA,
    TOOL_CHOICES,
    Tool,
    ToolChoice,
    Toolset,
    WebSearch,
    grammar_words,
    input_schema,
    paragraphs,
)
from relay.translate.request.user_location import UserLocation

_CHOSEN_TYPES: Final = ("function", "custom", "tool")
_TOOL_TYPES: Final = ("function", "custom")
_SEARCH_HINT: Final = "use `web_search_options`, or POST /v1/responses"
_TOOL_HINTS: Final = {"web_search": _SEARCH_HINT, "web_search_preview": _SEARCH_HINT}


class OfferedTools:
    """A caller's tools as functions. The first of several with one name counts.

    `renamed` has those whose calls are told otherwise than as calls of that function.
    """

    __slots__ = ("_conversation", "_tools", "renamed")

    def __init__(self, conversation: Conversation) -> None:
        """`conversation` is marked if a tool has a `cache_control`."""
        self._conversation = conversation
        self._tools: dict[str, Tool] = {}
        self.renamed: dict[str, CallerTool] = {}

    def add(self, definitions: Iterable[ToolDefinition]) -> None:
        """Add `tools`.

        Raises:
            RelayError: 400, one of them cannot be honoured.
        """
        for index, definition in enumerate(paced(definitions)):
            param = f"tools[{index}]"
            if definition.type not in _TOOL_TYPES:
                hint = _TOOL_HINTS.get(definition.type, "")
                raise unknown_type_error(f"{param}.type", _TOOL_TYPES, hint)
            mark = read_cache_control(definition.cache_control, f"{param}.cache_control")
            if definition.type == "custom":
                self._add_custom(definition.custom, mark, f"{param}.custom")
                continue
            if definition.function is None:
                raise invalid_field(
                    f"{param}.function",
                    "it must be given, with `name` and `parameters` of the tool in it",
                )
            self._add_function(definition.function, "function", mark, f"{param}.function")

    def add_functions(self, definitions: Iterable[FunctionDefinition]) -> None:
        """Add `functions`, the old form.

        Raises:
            RelayError: 400, one of them cannot be honoured.
        """
        for index, definition in enumerate(paced(definitions)):
            self._add_function(definition, "legacy_function", NOTHING, f"functions[{index}]")

    def _add_function(
        self, definition: FunctionDefinition, kind: ToolKind, mark: msgspec.Raw, param: str
    ) -> None:
        if mark is NOTHING:
            mark = read_cache_control(definition.cache_control, f"{param}.cache_control")
        description = definition.description
        if is_given(description) and kind_of(description) != '"':
            raise not_text_error(description, f"{param}.description")
        schema = input_schema(definition.parameters, f"{param}.parameters")
        caller_tool = CallerTool(kind, _given(definition.name, param))
        shown = description if is_given(description) else NOTHING
        self._put(caller_tool, shown, schema, mark, strict=definition.strict is True)

    def _add_custom(
        self, definition: CustomDefinition | None, mark: msgspec.Raw, param: str
    ) -> None:
        if definition is None:
            raise invalid_field(param, "it must be given, with the `name` of the tool in it")
        caller_tool = CallerTool("custom", _given(definition.name, param))
        texts = []
        if is_given(definition.description):
            texts.append(decode_string(definition.description, f"{param}.description"))
        format = definition.format
        if format is not None and format.grammar is not None:
            texts.append(grammar_words(format.grammar.syntax, format.grammar.definition))
        self._put(caller_tool, paragraphs(*texts), TEXT_SCHEMA, mark, strict=False)

    def _put(
        self,
        caller_tool: CallerTool,
        description: msgspec.Raw,
        schema: Octets,
        mark: msgspec.Raw,
        *,
        strict: bool,
    ) -> None:
        name = function_name(caller_tool.name)
        if name in self._tools:
            return
        self._conversation.has_cache_marks = (
            self._conversation.has_cache_marks or mark is not NOTHING
        )
        self._tools[name] = Tool(name, description, schema, strict, mark)
        if caller_tool.kind != "function" or name != caller_tool.name:
            self.renamed[name] = caller_tool

    def toolset(
        self,
        choice: str | ChoiceField | None,
        function_call: str | FunctionName | None,
        *,
        parallel: bool,
        search: WebSearch | None,
    ) -> Toolset:
        """The tools, and the choice among them.

        Args:
            choice: `tool_choice`.
            function_call: the same in the old form, which makes one call at a time.
            parallel: `parallel_tool_calls`.
            search: see `web_search`.

        Raises:
            RelayError: 400, the choice is not one of these tools.
        """
        if choice is None and function_call is not None:
            mode, name, allowed = self._choice_of_function(function_call)
        else:
            mode, name, allowed = self._choice(choice)
        legacy = any(tool.kind == "legacy_function" for tool in self.renamed.values())
        return Toolset(
            tools=[
                tool for tool in self._tools.values() if allowed is None or tool.name in allowed
            ],
            choice=mode,
            name=name,
            parallel=parallel and not legacy,
            search=search,
        )

    def _choice(
        self, requested: str | ChoiceField | None
    ) -> tuple[ToolChoice, str, frozenset[str] | None]:
        """The choice, the tool that must be called, and the tools allowed (None: all of them)."""
        if requested is None:
            return "auto", "", None
        type = requested if isinstance(requested, str) else requested.type
        if type in TOOL_CHOICES:
            choice = TOOL_CHOICES[type]
            if choice == "any" and not self._tools:
                raise invalid_field("tool_choice", "there are no tools that could be called")
            return choice, "", None
        if isinstance(requested, str):
            raise invalid_field("tool_choice", "it must be none, auto, required, or an object")
        if type in _CHOSEN_TYPES:
            member = "custom" if type == "custom" else "function"
            return "tool", self._named(requested.chosen, f"tool_choice.{member}"), None
        if type != "allowed_tools":
            raise unknown_type_error("tool_choice.type", ("function", "custom", "allowed_tools"))
        if requested.allowed_tools is None:
            raise invalid_field("tool_choice.allowed_tools", "it must be given, with `tools` in it")
        return self._allowed(requested.allowed_tools)

    def _choice_of_function(
        self, requested: str | FunctionName
    ) -> tuple[ToolChoice, str, frozenset[str] | None]:
        if not isinstance(requested, str):
            return "tool", self._named(requested.name, "function_call"), None
        if requested not in ("none", "auto"):
            raise invalid_field("function_call", "it must be none, auto, or an object")
        return TOOL_CHOICES[requested], "", None

    def _named(self, name: str, param: str) -> str:
        """The function for a caller's name of a tool."""
        if not name:
            raise invalid_field(param, "it must be given, with a `name` in it")
        function = function_name(name)
        if function not in self._tools:
            raise invalid_field(f"{param}.name", f"there is no tool called '{name[:80]}'")
        return function

    def _allowed(self, requested: AllowedTools) -> tuple[ToolChoice, str, frozenset[str]]:
        param = "tool_choice.allowed_tools"
        if requested.mode not in ("auto", "required"):
            raise invalid_field(f"{param}.mode", "it must be auto or required")
        names = set()
        for index, tool in enumerate(paced(requested.tools)):
            name = function_name(tool.chosen) if tool.chosen else ""
            if tool.type not in _CHOSEN_TYPES or name not in self._tools:
                raise invalid_field(f"{param}.tools[{index}]", "it must be one of those in tools")
            names.add(name)
        if not names:
            raise invalid_field(f"{param}.tools", "there must be one at least")
        return TOOL_CHOICES[requested.mode], "", frozenset(names)


def _given(name: str, param: str) -> str:
    if not name:
        raise invalid_field(f"{param}.name", "it must be given")
    return name


def web_search(options: WebSearchOptions | None) -> WebSearch | None:
    """The search that `web_search_options` ask for."""
    return None if options is None else WebSearch(location=_user_location(options))


def _user_location(options: WebSearchOptions) -> UserLocation:
    location = options.user_location.approximate if options.user_location is not None else None
    if location is None:
        return UserLocation()
    return UserLocation(
        city=location.city or None,
        country=location.country or None,
        region=location.region or None,
        timezone=location.timezone or None,
    )
