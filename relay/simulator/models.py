"""The models of the simulated API, and the features that each accepts.

Pure. Every `claude…` name is served by the rules of the generation in the name, since relays and
clients use names that are in no list. Names of vendors with the same API are served too, without
the rules that only Anthropic's models have.
"""

import re
from functools import lru_cache
from typing import Final

import msgspec

_CLAUDE: Final = re.compile(
    r"claude-(?:(?P<family>[a-z]+)-)?(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2})(?!\d))?"
    r"(?:-(?P<late>opus|sonnet|haiku))?"
)
_VENDORS: Final = ("minimax", "glm", "kimi", "deepseek", "qwen", "sim-")


class Model(msgspec.Struct, frozen=True):
    """Limits and features of one model."""

    id: str
    context: int = 200_000
    max_output: int = 64_000
    prefill: bool = True
    manual_thinking: bool = True
    adaptive_thinking: bool = True
    sampling: bool = True  # temperature, top_p, top_k may differ from their defaults
    both_sampling: bool = True  # temperature and top_p may be set together
    system_turns: bool = True  # role "system" within messages
    effort: bool = True
    thinking_shown: bool = True  # the default of `thinking.display`: summarized or omitted


LISTED: Final = (
    "claude-opus-5-5",
    "claude-opus-4-8",
    "claude-sonnet-4-7",
    "claude-haiku-4-5",
)


@lru_cache(maxsize=256)
def find(name: str) -> Model | None:
    """The model of that name; None if the API has no such model."""
    if name.startswith(_VENDORS) or name.lower().startswith(_VENDORS):
        return Model(name, context=1_000_000, max_output=200_000)
    if not name.startswith("claude"):
        return None
    match = _CLAUDE.match(name)
    if match is None:
        return Model(name)
    family = match["family"] or match["late"] or "sonnet"
    version = (int(match["major"]), int(match["minor"] or 0))
    current = version >= (4, 6) and (family != "haiku" or version >= (5, 0))
    adaptive_only = version >= (5, 0) or (family == "opus" and version >= (4, 7))
    return Model(
        name,
        context=1_000_000 if current else 200_000,
        max_output=_max_output(family, version),
        prefill=version < (4, 6),
        manual_thinking=version >= (3, 7) and not adaptive_only,
        adaptive_thinking=version >= (4, 6),
        sampling=not adaptive_only,
        both_sampling=version < (4, 1),
        system_turns=current,
        effort=current or (family == "opus" and version >= (4, 5)),
        thinking_shown=not adaptive_only,
    )


def _max_output(family: str, version: tuple[int, int]) -> int:
    if version < (3, 7):
        return 8_192
    if family == "opus" and version < (4, 5):
        return 32_000
    if family == "haiku" or version < (4, 6):
        return 64_000
    return 128_000


def describe(name: str) -> dict[str, object]:
    """The entry of `GET /v1/models` for a model that `find` has."""
    model = find(name)
    assert model is not None
    match = _CLAUDE.match(name)
    family = (match["family"] or match["late"]) if match else None
    words = name.replace("-", " ").title().split()
    if match and match["minor"] is not None:
        words = ["Claude", (family or "").title(), f"{match['major']}.{match['minor']}"]

    def support(yes: bool) -> dict[str, bool]:
        return {"supported": yes}

    return {
        "type": "model",
        "id": name,
        "display_name": " ".join(word for word in words if word),
        "created_at": "2026-02-24T00:00:00Z",
        "lifecycle": "active",
        "line": family if family in ("haiku", "sonnet", "opus", "fable", "mythos") else None,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": {
            "batch": support(False),
            "citations": support(False),
            "code_execution": support(False),
            "context_management": {"supported": True},
            "effort": {
                "supported": model.effort,
                **{
                    level: support(model.effort)
                    for level in ("low", "medium", "high", "xhigh", "max")
                },
            },
            "image_input": support(True),
            "pdf_input": support(True),
            "server_tools": {
                "supported": True,
                "code_execution": support(False),
                "web_search": support(True),
            },
            "structured_outputs": support(True),
            "thinking": {
                "supported": True,
                "types": {
                    "adaptive": support(model.adaptive_thinking),
                    "between_tools": support(False),
                    "disabled": support(True),
                    "enabled": support(model.manual_thinking),
                },
            },
        },
    }
