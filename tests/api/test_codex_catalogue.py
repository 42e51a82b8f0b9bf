"""Codex's catalogue of the models in relay.toml: the fields that Codex requires, and no others."""

from typing import Any

import msgspec
import pytest

from relay import config
from relay.api.codex_catalogue import INSTRUCTIONS, catalogue

JSON = dict[str, Any]

# Codex 0.169.0 does not start if one of these is missing: found by leaving out each.
REQUIRED = {
    "slug",
    "display_name",
    "supported_reasoning_levels",
    "shell_type",
    "visibility",
    "supported_in_api",
    "priority",
    "support_verbosity",
    "truncation_policy",
    "experimental_supported_tools",
    "base_instructions",
}
# The values that Codex 0.169.0 accepts for these members.
ALLOWED = {
    "shell_type": {"default", "local", "shell_command", "unified_exec", "disabled"},
    "visibility": {"list", "hide", "none"},
    "apply_patch_tool_type": {"freeform"},
}
SONNET: JSON = {
    "id": "claude-sonnet-4-7",
    "display_name": "Claude Sonnet 4.7",
    "aliases": ["claude-sonnet-4-6", "sonnet"],
    "context_window": 1_000_000,
    "max_output_tokens": 128_000,
}


def entries(*models: JSON) -> list[JSON]:
    settings = msgspec.convert(list(models), list[config.ModelSettings])
    listed: list[JSON] = catalogue(settings)["models"]
    return listed


def entry_of(**fields: Any) -> JSON:
    return entries({"id": "claude-sonnet-4-7", **fields})[0]


def levels(entry: JSON) -> list[str]:
    return [level["effort"] for level in entry["supported_reasoning_levels"]]


def test_every_entry_has_the_fields_codex_requires() -> None:
    for entry in entries(SONNET, {"id": "glm-4.7"}, {"id": "claude-haiku-4-5"}):
        assert entry.keys() >= REQUIRED
        for member, allowed in ALLOWED.items():
            assert entry[member] in allowed
        assert entry["truncation_policy"] == {"mode": "tokens", "limit": 10_000}


def test_relay_toml_describes_the_model() -> None:
    entry = entries(SONNET)[0]
    assert entry["slug"] == "claude-sonnet-4-7"
    assert entry["display_name"] == "Claude Sonnet 4.7"
    assert entry["context_window"] == 1_000_000
    assert entry["description"] == "Reads up to 1,000,000 tokens, writes up to 128,000"


def test_a_model_without_a_name_is_called_by_its_id() -> None:
    assert entry_of()["display_name"] == "claude-sonnet-4-7"


def test_aliases_are_accepted_but_not_listed_as_choices() -> None:
    listed = entries(SONNET, {"id": "claude-haiku-4-5"})
    assert [(entry["slug"], entry["visibility"]) for entry in listed] == [
        ("claude-sonnet-4-7", "list"),
        ("claude-sonnet-4-6", "hide"),
        ("sonnet", "hide"),
        ("claude-haiku-4-5", "list"),
    ]
    assert [entry["priority"] for entry in listed] == [1, 2, 3, 4]  # as they are in relay.toml
    names = {"slug", "visibility", "priority"}
    first, second = ({k: v for k, v in entry.items() if k not in names} for entry in listed[:2])
    assert first == second


@pytest.mark.parametrize(
    ("model", "efforts", "default"),
    [
        ("claude-sonnet-4-7", ["low", "medium", "high", "max"], "high"),
        ("claude-opus-4-8", ["low", "medium", "high", "xhigh", "max"], "high"),
        ("claude-opus-4-5", ["low", "medium", "high"], "high"),
        ("claude-haiku-4-5", ["low", "medium", "high"], "medium"),  # thinks by budget
        ("claude-3-5-haiku", [], None),  # does not think
    ],
)
def test_effort_levels_are_the_models_own(
    model: str, efforts: list[str], default: str | None
) -> None:
    entry = entry_of(id=model)
    assert levels(entry) == efforts
    assert entry["default_reasoning_level"] == default
    assert entry["supports_reasoning_summaries"] is bool(efforts)
    assert all(level["description"] for level in entry["supported_reasoning_levels"])


def test_efforts_in_relay_toml_take_precedence() -> None:
    entry = entry_of(accepts={"efforts": ["medium", "low"]})
    assert (levels(entry), entry["default_reasoning_level"]) == (["low", "medium"], "medium")


def test_the_levels_of_all_routes_are_shown() -> None:
    routes = [
        {"upstream": "a", "accepts": {"efforts": ["low", "high"]}},
        {"upstream": "b", "model": "claude-opus-4-8"},
        {"upstream": "c", "model": "vendor-without-thinking"},
    ]
    assert levels(entry_of(id="mine", routes=routes)) == ["low", "medium", "high", "xhigh", "max"]


def test_the_instructions_show_a_patch_in_codexs_format() -> None:
    _, _, patch = INSTRUCTIONS.partition("*** Begin Patch\n")
    lines = patch.partition("*** End Patch\n")[0].splitlines()
    heads = ("*** Update File: ", "*** Add File: ", "*** Delete File: ", "@@ ")
    assert all(line.startswith((*heads, " ", "-", "+")) for line in lines)
    assert all(any(line.startswith(head) for line in lines) for head in heads)
    assert len(INSTRUCTIONS) < 4000  # it is sent with every turn
