"""The rules for single content blocks: their fields, texts, cache breakpoints.

Pure. Decides which blocks the API refuses wherever they stand. Must not know roles, order or
pairing, which are in `conversation`. Every function raises a `Refusal` with status 400.
"""

from typing import Any, Final

from relay.simulator.refusal import extra, invalid

JSON = dict[str, Any]

_CACHE_CONTROL: Final = frozenset({"cache_control"})
# Type of block -> its fields.
FIELDS: Final = {
    "text": _CACHE_CONTROL | {"type", "text", "citations"},
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": _CACHE_CONTROL | {"type", "id", "name", "input", "caller", "toolset_name"},
    "tool_result": _CACHE_CONTROL | {"type", "tool_use_id", "content", "is_error", "toolset_name"},
    "image": _CACHE_CONTROL | {"type", "source", "transformations"},
    "document": _CACHE_CONTROL | {"type", "source", "title", "context", "citations"},
}
# Blocks that the simulator never makes: taken without a look inside.
UNCHECKED: Final = frozenset(
    {
        "search_result",
        "server_tool_use",
        "container_upload",
        "compaction",
        "tool_addition",
        "tool_removal",
        "tool_reference",
        "fallback",
        "mcp_tool_use",
        "mcp_tool_result",
        "mcp_tool_listing",
    }
)
_MAX_BREAKPOINTS: Final = 4


def check_system(system: Any, betas: frozenset[str]) -> None:
    """Check that `system` is a text or a list of text blocks."""
    if system is None or type(system) is str:
        return
    if type(system) is not list:
        raise invalid("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        if type(block) is not dict or block.get("type") != "text":
            raise invalid(f"system.{index}.type: Input should be 'text'")
        check_fields(block, "text", f"system.{index}")
        check_text(block, f"system.{index}", "system")
        if block.get("cache_control") is not None:
            check_cache_control(block["cache_control"], f"system.{index}", betas)


def check_cache_control(value: Any, at: str, betas: frozenset[str]) -> None:
    """Check a cache breakpoint; `at` is the path of its block, empty for the request."""
    at = f"{at}.cache_control" if at else "cache_control"
    if type(value) is not dict or value.get("type") != "ephemeral":
        raise invalid(f"{at}.type: Input should be 'ephemeral'")
    for name, item in value.items():
        if name == "ttl":
            if item not in ("5m", "1h"):
                raise invalid(f"{at}.ephemeral.ttl: Input should be '5m' or '1h'")
        elif name != "type" and (name != "scope" or "prompt-caching-scope" not in betas):
            raise extra(f"{at}.ephemeral.{name}")


def limit_breakpoints(count: int, request: JSON) -> None:
    """Check the number of cache breakpoints: `count` of them in the messages."""
    for part in (request.get("system"), request.get("tools")):
        if type(part) is list:
            count += sum(1 for block in part if block.get("cache_control") is not None)
    if count > _MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {count}."
        )


def check_fields(block: JSON, kind: str, at: str) -> None:
    """Check that a block has no field that its type does not have."""
    fields = FIELDS[kind]
    if not fields.issuperset(block):
        name = next(field for field in block if field not in fields)
        raise extra(f"{at}.{kind}.{name}")


def check_text(block: JSON, at: str, where: str) -> None:
    """Check that a text block has a text that is not blank."""
    text = block.get("text")
    if type(text) is not str:
        raise invalid(
            f"{at}.text.text: "
            + ("Field required" if text is None else "Input should be a valid string")
        )
    if not text:
        if block.get("cache_control") is not None:
            raise invalid(f"{at}: cache_control cannot be set for empty text blocks")
        raise invalid(f"{where}: text content blocks must be non-empty")
    if text.isspace():
        raise invalid(f"{where}: text content blocks must contain non-whitespace text")
