"""The rules for tool definitions and `tool_choice`.

Pure. Decides which definitions the API refuses. Must not know the conversation; the rules for
the schemas of strict tools are in `schema`, those for the search tool in `search`.
"""

import re
from typing import Any, Final

from relay.simulator import blocks, search
from relay.simulator.refusal import extra, invalid, unknown_tag

JSON = dict[str, Any]

_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SERVER_TOOL: Final = re.compile(r"[a-z0-9_]+_20\d{6}|mcp_toolset")
_CUSTOM_FIELDS: Final = frozenset(
    {
        "type",
        "name",
        "description",
        "input_schema",
        "cache_control",
        "strict",
        "defer_loading",
        "eager_input_streaming",
        "allowed_callers",
        "input_examples",
    }
)
_TOOL_TAGS: Final = ("bash_20250124", "custom", "text_editor_20250728", "web_search_20250305")


def check(tools: object, betas: frozenset[str]) -> None:
    """Check the definitions of a request's tools.

    Raises:
        Refusal: 400, at the first field that is wrong.
    """
    if tools is None:
        return
    if type(tools) is not list:
        raise invalid("tools: Input should be a valid list")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        at = f"tools.{index}"
        if type(tool) is not dict:
            raise invalid(f"{at}: Input should be a valid dictionary or object")
        kind = tool.get("type", "custom")
        if kind == "custom" or kind is None:
            _custom_tool(tool, at)
        elif type(kind) is not str or not _SERVER_TOOL.fullmatch(kind):
            raise unknown_tag(at, kind, _TOOL_TAGS)
        elif kind == "mcp_toolset" and "mcp-client" not in betas:
            raise extra(at)
        elif kind == search.TOOL:
            search.check(tool, at)
        if tool.get("cache_control") is not None:
            blocks.check_cache_control(tool["cache_control"], at, betas)
        name = tool.get("name")
        if name is None and kind == "mcp_toolset":
            continue
        if type(name) is not str:
            raise invalid(f"{at}.name: Field required")
        if name in names:
            raise invalid("tools: Tool names must be unique.")
        names.add(name)


def _custom_tool(tool: JSON, at: str) -> None:
    at = f"{at}.custom"
    if not _CUSTOM_FIELDS.issuperset(tool):
        field = next(field for field in tool if field not in _CUSTOM_FIELDS)
        raise extra(f"{at}.{field}")
    name = tool.get("name")
    if type(name) is not str:
        raise invalid(f"{at}.name: Field required")
    if not _TOOL_NAME.fullmatch(name):
        raise invalid(f"{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    schema = tool.get("input_schema")
    if type(schema) is not dict:
        raise invalid(f"{at}.input_schema: Field required")
    if schema.get("type") != "object":
        raise invalid(f"{at}.input_schema.type: Input should be 'object'")
    if not schema.keys().isdisjoint(("oneOf", "allOf", "anyOf")):
        raise invalid(
            f"{at}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top "
            "level"
        )


def check_choice(choice: object, tools: list[JSON] | None) -> None:
    """Check `tool_choice` against tools that have passed `check`.

    Raises:
        Refusal: 400, at the first field that is wrong.
    """
    if choice is None:
        return
    if type(choice) is not dict:
        raise invalid("tool_choice: Input should be an object")
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise unknown_tag("tool_choice", kind, ("any", "auto", "none", "tool"))
    if not tools:
        raise invalid("tool_choice: tool_choice may only be specified while providing tools.")
    if kind == "tool":
        name = choice.get("name")
        if type(name) is not str:
            raise invalid("tool_choice.tool.name: Field required")
        if all(tool.get("name") != name for tool in tools):
            raise invalid(f"Tool '{name}' not found in provided tools")
