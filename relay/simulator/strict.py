"""What the real Messages API refuses before it answers: headers, fields, parameters.

Pure: a parsed request in, the model it names out, or a `Refusal` with the wording that
the real API has (clients match on it, Claude Code degrades by it). The rules of the
conversation itself stand in `conversation`, those of structured output in `schema`. Unknown
betas are let through as long as they look like one; unknown fields are not.
"""

import re
from typing import Any

from relay.simulator import conversation, models, schema, search
from relay.simulator.models import Model
from relay.simulator.refusal import Refusal, extra, invalid, unknown_tag
from relay.simulator.seal import Seal

JSON = dict[str, Any]

VERSIONS = frozenset({b"2023-01-01", b"2023-06-01", b"2026-10-21"})
_DOCS = "Please consult our documentation at https://docs.claude.com/en"

# Field of the body -> the families of beta headers, any of which allows it; () = always allowed.
FIELDS: dict[str, tuple[str, ...]] = {
    "model": (),
    "messages": (),
    "max_tokens": (),
    "stream": (),
    "system": (),
    "metadata": (),
    "thinking": (),
    "tools": (),
    "tool_choice": (),
    "temperature": (),
    "top_p": (),
    "top_k": (),
    "stop_sequences": (),
    "service_tier": (),
    "output_config": (),
    "cache_control": (),
    "container": (),
    "diagnostics": (),
    "inference_geo": (),
    "speed": (),
    "context_management": ("context-management", "compact"),
    "safeguards": ("dangerous-tool-use",),
    "mcp_servers": ("mcp-client",),
    "output_format": ("structured-outputs",),
    "compaction": ("compact",),
    "thread": ("message-threads",),
    "fallbacks": ("server-side-fallback",),
    "fallback_credit_token": ("fallback-credit",),
    "billing_policy": ("user-profiles-billing",),
}
_NOT_COUNTED = frozenset(
    {"max_tokens", "stream", "metadata", "temperature", "top_p", "top_k", "stop_sequences"}
)

_BETA = re.compile(r"(?P<family>[a-z0-9]+(?:-[a-z0-9]+)*?)-20\d\d-?[01]\d-?[0-3]\d")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SERVER_TOOL = re.compile(r"[a-z0-9_]+_20\d{6}|mcp_toolset")
_CUSTOM_KEYS = frozenset(
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
_TOOL_TAGS = ("bash_20250124", "custom", "text_editor_20250728", "web_search_20250305")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_EDITS = {
    "clear_tool_uses_20250919": "context-management",
    "clear_thinking_20251015": "context-management",
    "compact_20260112": "compact",
}
_THINKING_KEYS = {
    "enabled": frozenset({"type", "budget_tokens", "display", "block_binding"}),
    "adaptive": frozenset({"type", "display", "block_binding"}),
    "disabled": frozenset({"type"}),
    "between_tools": frozenset({"type"}),
}


def version(value: bytes | None) -> None:
    """Refuses a missing or unknown `anthropic-version`."""
    if value in VERSIONS:
        return
    if not value:
        raise invalid("anthropic-version: header is required")
    raise invalid(f'anthropic-version: "{value.decode("latin-1")}" is not a valid version')


def betas(value: bytes | None) -> frozenset[str]:
    """The families that an `anthropic-beta` header names, without their dates."""
    if not value:
        return frozenset()
    found = set()
    for item in value.decode("latin-1").split(","):
        name = item.strip()
        if not name:
            continue
        match = _BETA.fullmatch(name)
        if match is None:
            raise invalid(
                f"Unexpected value(s) `{name}` for the `anthropic-beta` header. "
                f"{_DOCS}/api/beta-headers or try again without the header."
            )
        found.add(match["family"])
    return frozenset(found)


def check(
    request: Any, betas: frozenset[str], seal: Seal, *, counting: bool = False, ga: bool = False
) -> Model:
    """The model that a valid request names.

    `counting` is for count_tokens, which needs no max_tokens; `ga` says that the
    request's `anthropic-version` has system turns without a beta header.

    Raises:
        Refusal: anything that the real API refuses.
    """
    if type(request) is not dict:
        raise invalid("Input should be a valid dictionary or object to extract fields from")
    for name in request:
        needed = FIELDS.get(name)
        if needed is None or (needed and betas.isdisjoint(needed)):
            raise extra(name)
        if counting and name in _NOT_COUNTED:
            raise extra(name)
    model = _model(request)
    if not counting:
        _max_tokens(request.get("max_tokens"), model, betas)
    stream = request.get("stream")
    if stream is not None and type(stream) is not bool:
        raise invalid("stream: Input should be a valid boolean")
    # The required fields are done with; a small request has no others.
    if len(request) > (2 if counting else 3):
        _optional(request, model, betas)
    messages = request.get("messages")
    if messages is None:
        raise invalid("messages: Field required")
    conversation.check(messages, request, model, betas, seal, ga=ga)
    return model


def _model(request: JSON) -> Model:
    name = request.get("model")
    if type(name) is not str:
        raise invalid(
            "model: Field required" if name is None else "model: Input should be a valid string"
        )
    if not name:
        raise invalid("model: String should have at least 1 character")
    model = models.find(name)
    if model is None:
        raise Refusal(404, f"model: {name}")
    return model


def _max_tokens(value: object, model: Model, betas: frozenset[str]) -> None:
    if type(value) is not int:
        if value is None:
            raise invalid("max_tokens: Field required")
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 0:
        raise invalid("max_tokens: must be greater than or equal to 0")
    if value > model.max_output and "output-300k" not in betas and "output-128k" not in betas:
        raise invalid(
            f"max_tokens: {value} > {model.max_output}, which is the maximum allowed number of "
            f"output tokens for {model.id}"
        )


def _optional(request: JSON, model: Model, betas: frozenset[str]) -> None:
    if request.get("thread") is not None:
        # Nothing is remembered here; told this, the SDKs send the whole history instead.
        raise Refusal(
            400,
            "thread: this request cannot be held as a thread",
            {"error_code": "thread_unsupported_request", "unsupported": ["storage"]},
        )
    if "system" in request:
        conversation.check_system(request["system"], betas)
    if "metadata" in request:
        _metadata(request["metadata"])
    if "tools" in request or "tool_choice" in request:
        _tools(request.get("tools"), betas)
        _tool_choice(request.get("tool_choice"), request.get("tools"))
    thinking = request.get("thinking")
    if thinking is not None:
        _thinking(thinking, request, model, betas)
    if "temperature" in request or "top_p" in request or "top_k" in request:
        _sampling(request, model)
    if "output_config" in request:
        _output_config(request["output_config"], model, betas)
    if request.get("tools") or "output_config" in request or "output_format" in request:
        schema.check(request)
    if request.get("context_management") is not None:
        _context_management(request["context_management"], request, betas)
    if request.get("stop_sequences") is not None:
        _stop_sequences(request["stop_sequences"])
    tier = request.get("service_tier")
    if tier is not None and tier not in ("auto", "standard_only"):
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")
    if "safeguards" in request and type(request["safeguards"]) is not list:
        raise invalid("safeguards: Input should be a valid list")


def _metadata(value: object) -> None:
    if value is None:
        return
    if type(value) is not dict:
        raise invalid("metadata: Input should be a valid dictionary")
    for name, item in value.items():
        if name != "user_id":
            raise extra(f"metadata.{name}")
        if item is not None and type(item) is not str:
            raise invalid("metadata.user_id: Input should be a valid string")


def _tools(tools: object, betas: frozenset[str]) -> None:
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
            conversation.check_cache_control(tool["cache_control"], at, betas)
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
    if not _CUSTOM_KEYS.issuperset(tool):
        key = next(key for key in tool if key not in _CUSTOM_KEYS)
        raise extra(f"{at}.{key}")
    name = tool.get("name")
    if type(name) is not str:
        raise invalid(f"{at}.name: Field required")
    if not _TOOL_NAME.fullmatch(name):
        raise invalid(f"{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    wanted = tool.get("input_schema")
    if type(wanted) is not dict:
        raise invalid(f"{at}.input_schema: Field required")
    if wanted.get("type") != "object":
        raise invalid(f"{at}.input_schema.type: Input should be 'object'")
    if not wanted.keys().isdisjoint(("oneOf", "allOf", "anyOf")):
        raise invalid(
            f"{at}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top "
            "level"
        )


def _tool_choice(choice: object, tools: list[JSON] | None) -> None:
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


def _thinking(thinking: object, request: JSON, model: Model, betas: frozenset[str]) -> None:
    if type(thinking) is not dict:
        raise invalid("thinking: Input should be an object")
    kind = thinking.get("type")
    keys = _THINKING_KEYS.get(kind) if type(kind) is str else None
    if keys is None:
        raise unknown_tag("thinking", kind, _THINKING_KEYS)
    for name in thinking:
        if name not in keys or (
            name == "block_binding" and "thinking-binding-controls" not in betas
        ):
            raise extra(f"thinking.{kind}.{name}")
    display = thinking.get("display")
    known = ("summarized", "omitted", "updates")[: 3 if "thinking-display-updates" in betas else 2]
    if display is not None and display not in known:
        raise invalid(f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'")
    if kind == "adaptive":
        if not model.adaptive_thinking:
            raise invalid("adaptive thinking is not supported on this model")
    elif kind == "enabled":
        _manual_thinking(thinking, request, model, betas)


def _manual_thinking(thinking: JSON, request: JSON, model: Model, betas: frozenset[str]) -> None:
    if not model.manual_thinking:
        raise invalid(
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" '
            'and "output_config.effort" to control thinking behavior.'
        )
    budget = thinking.get("budget_tokens")
    if type(budget) is not int:
        raise invalid("thinking.enabled.budget_tokens: Field required")
    if budget < 1024:
        raise invalid(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        )
    limit = request.get("max_tokens")
    interleaved = "interleaved-thinking" in betas and request.get("tools")
    if limit is not None and budget >= limit and not interleaved:
        raise invalid(
            "`max_tokens` must be greater than `thinking.budget_tokens`. "
            f"{_DOCS}/build-with-claude/extended-thinking#max-tokens-and-context-window-size"
        )
    choice = request.get("tool_choice")
    if choice is not None and choice["type"] in ("any", "tool"):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _sampling(request: JSON, model: Model) -> None:
    for name in ("temperature", "top_p"):
        value = request.get(name)
        if value is None:
            continue
        if type(value) not in (int, float):
            raise invalid(f"{name}: Input should be a valid number")
        if not 0 <= value <= 1:
            raise invalid(f"{name}: range: 0..1")
        if value != 1 and not model.sampling:
            raise invalid(f"`{name}` is deprecated for this model.")
    top_k = request.get("top_k")
    if top_k is not None:
        if type(top_k) is not int:
            raise invalid("top_k: Input should be a valid integer")
        if not model.sampling:
            raise invalid("`top_k` is deprecated for this model.")
    temperature = request.get("temperature")
    if temperature is not None and request.get("top_p") is not None and not model.both_sampling:
        raise invalid(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only "
            "one."
        )
    thinking = request.get("thinking")
    thinks = thinking is not None and thinking["type"] in ("enabled", "adaptive")
    if thinks and temperature is not None and temperature != 1:
        raise invalid(
            "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. "
            f"{_DOCS}/build-with-claude/extended-thinking"
        )


def _output_config(config: object, model: Model, betas: frozenset[str]) -> None:
    if config is None:
        return
    if type(config) is not dict:
        raise invalid("output_config: Input should be an object")
    for name in config:
        if name not in ("effort", "format") and (
            name != "task_budget" or "task-budgets" not in betas
        ):
            raise extra(f"output_config.{name}")
    _effort(config, "output_config", model)
    shape = config.get("format")
    if shape is None:
        return
    if type(shape) is not dict or shape.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if type(shape.get("schema")) is not dict:
        raise invalid("output_config.format.schema: Field required")


def _effort(config: JSON, at: str, model: Model) -> None:
    effort = config.get("effort")
    if effort is None:
        return
    if effort not in _EFFORTS:
        raise invalid(f"{at}.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    if not model.effort:
        raise invalid("This model does not support the effort parameter.")


def _context_management(value: object, request: JSON, betas: frozenset[str]) -> None:
    if type(value) is not dict:
        raise invalid("context_management: Input should be an object")
    for name in value:
        if name != "edits":
            raise extra(f"context_management.{name}")
    edits = value.get("edits", [])
    if type(edits) is not list:
        raise invalid("context_management.edits: Input should be a valid list")
    for index, edit in enumerate(edits):
        kind = edit.get("type") if type(edit) is dict else None
        if type(kind) is not str or kind not in _EDITS or _EDITS[kind] not in betas:
            raise unknown_tag(f"context_management.edits.{index}", kind, _EDITS)
        if kind == "clear_thinking_20251015":
            thinking = request.get("thinking")
            if type(thinking) is not dict or thinking.get("type") not in ("enabled", "adaptive"):
                raise invalid(
                    f"context_management.edits.{index}: `clear_thinking_20251015` strategy "
                    "requires `thinking` to be enabled or adaptive"
                )


def _stop_sequences(value: object) -> None:
    if type(value) is not list:
        raise invalid("stop_sequences: Input should be a valid list")
    for index, item in enumerate(value):
        if type(item) is not str:
            raise invalid(f"stop_sequences.{index}: Input should be a valid string")
        if not item.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
