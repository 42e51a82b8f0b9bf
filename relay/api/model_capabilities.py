"""A model's capabilities, in the form of Anthropic's Models API.

Clients read them to know what they may ask for. A capability is listed if every upstream that
serves the model has it.

Decides by the table of capabilities, and for what it does not have by the family of the models.
Must not know requests.
"""

from typing import Any, Final

from relay import config

_LINES: Final = ("haiku", "sonnet", "opus", "fable", "mythos")  # of Anthropic's models


def capabilities_of(model: config.ModelSettings) -> dict[str, Any]:
    """Every member of Anthropic's `ModelCapabilities`."""
    names = _names(model)
    accepted = [config.accepts_of(model, route, name) for name, route in names]
    is_claude = all("claude" in name.lower() for name, _ in names)
    efforts = [level for level in config.EFFORTS if all(level in one.efforts for one in accepted)]
    structured = all(one.structured for one in accepted)
    adaptive = all(one.thinking in ("adaptive", "always") for one in accepted)
    always = any(one.thinking == "always" for one in accepted)
    budget = all(one.thinking == "budget" for one in accepted)
    searches = all(one.web_search for one in accepted)
    return {
        "batch": _support(False),  # the relay offers none
        "citations": _support(is_claude),
        "code_execution": _support(is_claude and structured),  # Claude 4.5 brought both
        "context_management": {
            **_support(is_claude),
            "clear_thinking_20251015": _support(is_claude and (adaptive or budget)),
            "clear_tool_uses_20250919": _support(is_claude),
            "compact_20260112": _support(is_claude and adaptive),  # Claude 4.6 brought both
        },
        "effort": {
            **_support(bool(efforts)),
            **{level: _support(level in efforts) for level in config.EFFORTS},
        },
        "image_input": _support(True),
        "pdf_input": _support(is_claude),
        "server_tools": {
            **_support(searches),
            "code_execution": _support(is_claude and structured),
            "web_search": _support(searches),
        },
        "structured_outputs": _support(structured),
        "thinking": {
            **_support(adaptive or budget),
            "types": {
                "adaptive": _support(adaptive),
                "between_tools": _support(False),
                "disabled": _support(not always),
                "enabled": _support(budget),
            },
        },
    }


def line_of(model: config.ModelSettings) -> str | None:
    """The line of Anthropic's models that it belongs to by its id, such as "opus"."""
    words = model.id.lower().split("-")
    return next((line for line in _LINES if line in words and "claude" in words[0]), None)


def _names(model: config.ModelSettings) -> list[tuple[str, config.RouteSettings | None]]:
    """The upstreams' names for a model, each with its route if relay.toml has one."""
    return [(one.model or model.id, one) for one in model.routes or ()] or [(model.id, None)]


def _support(supported: bool) -> dict[str, bool]:
    return {"supported": supported}
