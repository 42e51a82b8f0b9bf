"""The rules for parameters of a request: thinking, sampling, output, context management.

Pure. Decides which values a model accepts. Must not know the conversation or the tools beyond
the fields that a parameter depends on. Every function raises a `Refusal` with status 400.
"""

from typing import Any, Final

from relay.simulator.models import Model
from relay.simulator.refusal import extra, invalid, unknown_tag

JSON = dict[str, Any]

_DOCS: Final = "Please consult our documentation at https://docs.claude.com/en"
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_EDITS: Final = {
    "clear_tool_uses_20250919": "context-management",
    "clear_thinking_20251015": "context-management",
    "compact_20260112": "compact",
}
_THINKING_FIELDS: Final = {
    "enabled": frozenset({"type", "budget_tokens", "display", "block_binding"}),
    "adaptive": frozenset({"type", "display", "block_binding"}),
    "disabled": frozenset({"type"}),
    "between_tools": frozenset({"type"}),
}


def check_metadata(value: object) -> None:
    """Check that `metadata` has nothing but a `user_id`."""
    if value is None:
        return
    if type(value) is not dict:
        raise invalid("metadata: Input should be a valid dictionary")
    for name, item in value.items():
        if name != "user_id":
            raise extra(f"metadata.{name}")
        if item is not None and type(item) is not str:
            raise invalid("metadata.user_id: Input should be a valid string")


def check_thinking(thinking: object, request: JSON, model: Model, betas: frozenset[str]) -> None:
    """Check that the model can think in this way."""
    if type(thinking) is not dict:
        raise invalid("thinking: Input should be an object")
    kind = thinking.get("type")
    fields = _THINKING_FIELDS.get(kind) if type(kind) is str else None
    if fields is None:
        raise unknown_tag("thinking", kind, _THINKING_FIELDS)
    for name in thinking:
        if name not in fields or (
            name == "block_binding" and "thinking-binding-controls" not in betas
        ):
            raise extra(f"thinking.{kind}.{name}")
    display = thinking.get("display")
    displays = ["summarized", "omitted"]
    if "thinking-display-updates" in betas:
        displays.append("updates")
    if display is not None and display not in displays:
        raise invalid(f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'")
    if kind == "adaptive":
        if not model.adaptive_thinking:
            raise invalid("adaptive thinking is not supported on this model")
    elif kind == "enabled":
        _check_manual_thinking(thinking, request, model, betas)


def _check_manual_thinking(
    thinking: JSON, request: JSON, model: Model, betas: frozenset[str]
) -> None:
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


def check_sampling(request: JSON, model: Model) -> None:
    """Check `temperature`, `top_p` and `top_k`, and `temperature` against `thinking`."""
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
    is_thinking = thinking is not None and thinking["type"] in ("enabled", "adaptive")
    if is_thinking and temperature is not None and temperature != 1:
        raise invalid(
            "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. "
            f"{_DOCS}/build-with-claude/extended-thinking"
        )


def check_output_config(config: object, model: Model, betas: frozenset[str]) -> None:
    """Check the effort and the format of the output; `schema` checks the schema in it."""
    if config is None:
        return
    if type(config) is not dict:
        raise invalid("output_config: Input should be an object")
    for name in config:
        if name not in ("effort", "format") and (
            name != "task_budget" or "task-budgets" not in betas
        ):
            raise extra(f"output_config.{name}")
    _check_effort(config.get("effort"), model)
    output_format = config.get("format")
    if output_format is None:
        return
    if type(output_format) is not dict or output_format.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if type(output_format.get("schema")) is not dict:
        raise invalid("output_config.format.schema: Field required")


def _check_effort(effort: object, model: Model) -> None:
    if effort is None:
        return
    if effort not in _EFFORTS:
        raise invalid(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
        )
    if not model.effort:
        raise invalid("This model does not support the effort parameter.")


def check_context_management(value: object, request: JSON, betas: frozenset[str]) -> None:
    """Check the edits of the context, each of which needs its beta."""
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


def check_stop_sequences(value: object) -> None:
    """Check that `stop_sequences` is a list of texts that are not blank."""
    if type(value) is not list:
        raise invalid("stop_sequences: Input should be a valid list")
    for index, item in enumerate(value):
        if type(item) is not str:
            raise invalid(f"stop_sequences.{index}: Input should be a valid string")
        if not item.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
