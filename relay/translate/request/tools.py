"""The tools of a request, and what the model is to do with them.

Decides which of them go upstream and how the choice among them is put; what their schemas mean
is not looked at, but for tools whose calls are to be held to theirs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field, read
from relay.translate.raw_json import NOTHING, Octets, encode_string, is_given
from relay.translate.request import json_schema
from relay.translate.request.block import Block

ToolChoice = Literal["auto", "none", "any", "tool"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_NO_PARAMETERS: Final = b'{"type":"object","properties":{}}'
_NAMED: Final = b'{"name":"%b","input_schema":{"type":"object"}'
_OBJECT: Final = b'{"type":"object",'
_STRICT: Final = b',"strict":true'
_MOST_STRICT: Final = 20  # docs: build-with-claude/structured-outputs; more are refused
_SEARCH: Final = "web_search"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True)
class Tool:
    """A function; `strict` says that calls of it are to fit its schema."""

    name: str
    description: msgspec.Raw
    schema: Octets
    strict: bool
    cache: msgspec.Raw

    def block(self, *, strict: bool) -> Block:
        """How it is written."""
        octets: list[Octets] = [b'{"name":"%b"' % self.name.encode()]
        if self.description is not NOTHING:
            octets += (b',"description":', self.description)
        wanted = json_schema.constrain(bytes(self.schema)) if strict and self.strict else None
        octets += (b',"input_schema":', self.schema if wanted is None else wanted)
        if wanted is not None:
            octets.append(_STRICT)
        return Block(tuple(octets), self.cache)


def check_name(name: str, at: str) -> str:
    """The name of a tool.

    Raises:
        RelayError: 400, the API does not take it; `at` is its place.
    """
    if _NAME.fullmatch(name) is None:
        raise invalid_field(at, "it must have 1 to 128 characters of a-z, A-Z, 0-9, _ and -")
    return name


def input_schema(raw: msgspec.Raw, at: str) -> Octets:
    """The schema of a tool that was described with this one, which may be none.

    Raises:
        RelayError: 400, it is no schema; `at` is its place.
    """
    if not is_given(raw):
        return _NO_PARAMETERS
    members = read(_members, raw, at)
    if not members:
        return _NO_PARAMETERS
    return raw if "type" in members else b"".join((_OBJECT, memoryview(raw)[1:]))


class UserLocation(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="approximate"
):
    """Where a user is, as the web search tool has it."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


_ANYWHERE: Final = UserLocation()


@dataclass(slots=True, kw_only=True)
class WebSearch:
    """That the web may be searched, and how. `must`: or the request makes no sense; else it is
    left out where a model cannot, or has a tool of that name."""

    name: ClassVar[str] = _SEARCH

    location: UserLocation = _ANYWHERE
    max_uses: int | None = None  # searches
    allowed_domains: tuple[str, ...] = ()  # and no others; (): any
    required: bool = True

    def block(self) -> Block:
        """How it is written."""
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
    """What the model may call. `search` is how to search the web; None: not at all."""

    tools: Sequence[Tool] = ()
    choice: ToolChoice = "auto"
    name: str = ""  # of the tool that must be called, for "tool"
    parallel: bool = True
    search: WebSearch | None = None

    @property
    def _taken(self) -> bool:
        """Whether a tool of the caller's own has the name of the web search."""
        return any(tool.name == _SEARCH for tool in self.tools)

    @property
    def is_forced(self) -> bool:
        """Whether the model has to call a tool."""
        return self.choice in ("any", "tool")

    def render(self, capabilities: Capabilities, names: Iterable[str]) -> tuple[list[Block], bytes]:
        """The tools, and tool_choice (empty: none is needed).

        Args:
            names: of the tools called so far. The API refuses a conversation with calls where
                there are no tools at all, so these are named if there would be none.

        Raises:
            RelayError: 400, the model cannot search the web.
        """
        blocks: list[Block] = []
        left = _MOST_STRICT if capabilities.structured else 0
        for tool in self.tools:
            blocks.append(tool.block(strict=left > 0))
            left -= tool.strict
        searching = self._searching(capabilities)
        if searching is not None:
            blocks.append(searching)
        choice = self.choice
        if choice == "tool" and self.name == _SEARCH and searching is None and not self._taken:
            raise invalid_field("tool_choice", "this model cannot search the web")
        if not blocks:
            blocks = [Block((_NAMED % name.encode(),)) for name in names]
            if not blocks:
                return [], b""
            choice = "none"
        return blocks, self._choice(choice)

    def _searching(self, capabilities: Capabilities) -> Block | None:
        search = self.search
        if search is None:
            return None
        taken = self._taken
        if search.required and not capabilities.web_search:
            raise invalid_field("web_search_options", "this model cannot search the web")
        if search.required and taken:
            raise invalid_field("web_search_options", f"a tool is called '{_SEARCH}' already")
        return search.block() if capabilities.web_search and not taken else None

    def _choice(self, choice: ToolChoice) -> bytes:
        if choice == "none":
            return b'{"type":"none"}'
        if choice == "auto" and self.parallel:
            return b""
        told = b'{"type":"%b"' % choice.encode()
        if choice == "tool":
            told += b',"name":' + encode_string(self.name)
        if not self.parallel:
            told += b',"disable_parallel_tool_use":true'
        return told + b"}"
