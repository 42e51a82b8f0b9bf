"""Decides which tools go upstream, and how the choice among them is written.

Must not know what a tool's schema means, except for strict tools, whose calls must fit theirs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field, read
from relay.translate.pacing import paced
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    decode_string,
    encode_string,
    is_given,
    object_in_string,
)
from relay.translate.request import json_schema
from relay.translate.request.block import Block
from relay.translate.request.user_location import UserLocation

ToolChoice = Literal["auto", "none", "any", "tool"]

# The words of a caller's choice. `any` is the Messages API's, which clients of several APIs send.
TOOL_CHOICES: Final[dict[str, ToolChoice]] = {
    "none": "none",
    "auto": "auto",
    "required": "any",
    "any": "any",
}

# A custom tool takes one text, so it goes upstream as a function with one text.
TEXT_SCHEMA: Final = (
    b'{"type":"object","properties":{"input":{"type":"string","description":'
    b'"All of the text that this tool takes, as it is"}},'
    b'"required":["input"],"additionalProperties":false}'
)

_NO_PARAMETERS: Final = b'{"type":"object","properties":{}}'
_NAME_ONLY: Final = b'{"name":"%b","input_schema":{"type":"object"}'
_OBJECT_TYPE: Final = b'{"type":"object",'
_STRICT_MEMBER: Final = b',"strict":true'
_MAX_STRICT: Final = 20  # Anthropic API docs, Structured outputs: more are refused
WEB_SEARCH: Final = "web_search"
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True)
class Tool:
    """A function. `strict`: its calls must fit its schema."""

    name: str
    description: msgspec.Raw
    schema: Octets
    strict: bool
    cache: msgspec.Raw

    def block(self, *, strict: bool) -> Block:
        """The tool as a block."""
        octets: list[Octets] = [b'{"name":"%b"' % self.name.encode()]
        if self.description is not NOTHING:
            octets += (b',"description":', self.description)
        strict_schema = (
            json_schema.constrain(bytes(self.schema)) if strict and self.strict else None
        )
        octets += (b',"input_schema":', self.schema if strict_schema is None else strict_schema)
        if strict_schema is not None:
            octets.append(_STRICT_MEMBER)
        return Block(tuple(octets), self.cache)


def paragraphs(*texts: str) -> msgspec.Raw:
    """Texts as one description; `NOTHING` if all are empty."""
    joined = "\n\n".join(text for text in texts if text)
    return msgspec.Raw(encode_string(joined)) if joined else NOTHING


def grammar_words(syntax: str, definition: str) -> str:
    """A custom tool's grammar in words, since the API holds no text to one."""
    name = "a regular expression" if syntax == "regex" else "Lark's syntax"
    return f"The text must fit this grammar, which is {name}:\n{definition}"


def call_arguments(raw: msgspec.Raw, param: str) -> Octets:
    """The JSON object within the text of a call's arguments.

    A model wrote the arguments and its turn cannot be undone. Text that is not an object is
    therefore wrapped in one.

    Raises:
        RelayError: 400, the value at `param` is not a text.
    """
    if not is_given(raw):
        return b"{}"
    octets = object_in_string(raw, param)
    if octets is None:
        return b'{"arguments":%b}' % encode_string(decode_string(raw, param))
    return octets


def input_schema(raw: msgspec.Raw, param: str) -> Octets:
    """The `input_schema` for the parameters of a tool, which may be absent.

    Raises:
        RelayError: 400, the value at `param` is not an object.
    """
    if not is_given(raw):
        return _NO_PARAMETERS
    members = read(_decode_members, raw, param)
    if not members:
        return _NO_PARAMETERS
    return raw if "type" in members else b"".join((_OBJECT_TYPE, memoryview(raw)[1:]))


_ANYWHERE: Final = UserLocation()


@dataclass(slots=True, kw_only=True)
class WebSearch:
    """The web search tool.

    `required`: refuse the request if the model cannot search. Else the tool is left out then, and
    also if a tool of the caller has its name.
    """

    location: UserLocation = _ANYWHERE
    max_uses: int | None = None
    allowed_domains: tuple[str, ...] = ()  # empty for any domain
    required: bool = True

    def block(self) -> Block:
        """The tool as a block."""
        octets = b'{"type":"web_search_20250305","name":"web_search"'
        if self.max_uses is not None:
            octets += b',"max_uses":%d' % self.max_uses
        if self.allowed_domains:
            octets += b',"allowed_domains":' + msgspec.json.encode(self.allowed_domains)
        if self.location != _ANYWHERE:
            octets += b',"user_location":' + msgspec.json.encode(self.location)
        return Block((octets,))


@dataclass(slots=True, kw_only=True)
class Toolset:
    """The tools that the model may call. `search` is None for no web search."""

    tools: Sequence[Tool] = ()
    choice: ToolChoice = "auto"
    name: str = ""  # of the tool that must be called, for "tool"
    parallel: bool = True
    search: WebSearch | None = None

    @property
    def _search_name_taken(self) -> bool:
        """Whether a tool of the caller has the name of the web search."""
        return any(tool.name == WEB_SEARCH for tool in self.tools)

    @property
    def is_forced(self) -> bool:
        """Whether the model must call a tool."""
        return self.choice in ("any", "tool")

    def render(self, capabilities: Capabilities, names: Iterable[str]) -> tuple[list[Block], bytes]:
        """The tools, and the `tool_choice` object, empty if none is needed.

        Args:
            names: of the tools called so far. The API refuses a conversation that has calls and
                no tools, so these are declared if there would be none.

        Raises:
            RelayError: 400, the model cannot search the web.
        """
        blocks: list[Block] = []
        strict_quota = _MAX_STRICT if capabilities.structured else 0
        for tool in paced(self.tools):
            blocks.append(tool.block(strict=strict_quota > 0))
            strict_quota -= tool.strict
        search = self._search_block(capabilities)
        if search is not None:
            blocks.append(search)
        choice = self.choice
        if (
            choice == "tool"
            and self.name == WEB_SEARCH
            and search is None
            and not self._search_name_taken
        ):
            raise invalid_field("tool_choice", "this model cannot search the web")
        if not blocks:
            blocks = [Block((_NAME_ONLY % name.encode(),)) for name in names]
            if not blocks:
                return [], b""
            choice = "none"
        return blocks, self._choice(choice)

    def _search_block(self, capabilities: Capabilities) -> Block | None:
        search = self.search
        if search is None:
            return None
        taken = self._search_name_taken
        if search.required and not capabilities.web_search:
            raise invalid_field("web_search_options", "this model cannot search the web")
        if search.required and taken:
            raise invalid_field("web_search_options", f"a tool is called '{WEB_SEARCH}' already")
        return search.block() if capabilities.web_search and not taken else None

    def _choice(self, choice: ToolChoice) -> bytes:
        if choice == "none":
            return b'{"type":"none"}'
        if choice == "auto" and self.parallel:
            return b""
        members = b'{"type":"%b"' % choice.encode()
        if choice == "tool":
            members += b',"name":' + encode_string(self.name)
        if not self.parallel:
            members += b',"disable_parallel_tool_use":true'
        return members + b"}"
