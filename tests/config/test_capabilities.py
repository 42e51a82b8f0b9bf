"""What a model takes: the shipped table, whatever the name's spelling, and changes of it."""

import tomllib
from typing import Any

import pytest

from relay import config
from relay.config import Capabilities
from relay.simulator import models as simulated

SPELLINGS = [
    "{}", "{}-20250514", "{}-latest", "{}[1m]", "{}@20250514", "{}-thinking", "anthropic/{}",
    "anthropic/{}:beta", "us.anthropic.{}-20250514-v1:0", "anthropic.{}-v1:0", "databricks-{}",
]  # fmt: skip
VERSIONS = [
    (major, minor)
    for major in (1, 2, 3, 4, 5, 6, 10)
    for minor in (None, 0, 1, 4, 5, 6, 7, 8, 9, 10)
]


def generations() -> list[tuple[str, list[str]]]:
    """Names that the simulator knows, each with others for the same model."""
    found = []
    for family in ("opus", "sonnet", "haiku"):
        for major, minor in VERSIONS:
            dashed = f"{major}" if minor is None else f"{major}-{minor}"
            dotted = dashed.replace("-", ".")
            plain = f"claude-{family}-{dashed}"
            others = [f"claude-{family}-{dotted}", f"claude-{dashed}-{family}",
                      f"claude-{dotted}-{family}", plain.title()]  # fmt: skip
            found.append(
                (plain, [how.format(name) for how in SPELLINGS for name in [plain, *others]])
            )
    return found


def shipped(name: str) -> Capabilities:
    return config.accepts_of(config.ModelSettings(id="m"), None, name)


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize(("name", "spelled"), generations(), ids=lambda value: str(value)[:20])
def test_the_table_agrees_with_the_simulated_api(name: str, spelled: list[str]) -> None:
    model, accepts = simulated.find(name), shipped(name)
    assert model is not None
    assert (accepts.sampling != "none", accepts.sampling == "both") == (
        model.sampling,
        model.sampling and model.both_sampling,
    )
    thinks = "budget" if model.manual_thinking else "none"
    assert accepts.thinking == ("adaptive" if model.adaptive_thinking else thinks)
    assert accepts.prefill is model.prefill
    assert bool(accepts.efforts) is model.effort
    # The API itself takes system turns later than the simulator does: see the next test.
    assert model.system_turns or not accepts.system_turns
    assert {shipped(other) for other in spelled} == {accepts}


FOUR = ("low", "medium", "high", "max")
FIVE = ("low", "medium", "high", "xhigh", "max")


@pytest.mark.parametrize(
    ("names", "efforts", "system_turns", "structured", "web_search"),
    [
        ("claude-2.1 claude-v2:1 claude-instant-v1 claude-3-opus claude-3-5-sonnet",
         (), False, False, False),
        ("claude-3-7-sonnet claude-opus-4-20250514 claude-opus-4-1", (), False, False, True),
        ("claude-sonnet-4-5 claude-haiku-4-5", (), False, True, True),
        ("claude-opus-4-5", FIVE[:3], False, True, True),
        ("claude-opus-4-6 claude-sonnet-4-6 claude-sonnet-4-7 claude-mythos-preview",
         FOUR, False, True, True),
        ("claude-opus-4-7", FIVE, False, True, True),
        ("claude-opus-4-8 claude-sonnet-5 claude-haiku-5-5 claude-fable-5-1 claude-mythos-5",
         FIVE, True, True, True),
        ("claude claude-opus claude-next us.anthropic.claude-zeta-v1:0", FIVE, True, True, True),
        ("glm-4.7 z-ai/GLM-9 kimi-k3 MiniMax-M3[1m] deepseek-chat Qwen3-Max gpt-6 sim-1 x"
         " qwen3-14b-claude-4.5-opus", (), False, False, False),
    ],
)  # fmt: skip
def test_claude_capabilities_are_as_documented(
    names: str, efforts: tuple[str, ...], system_turns: bool, structured: bool, web_search: bool
) -> None:
    for name in names.split():
        accepts = shipped(name)
        assert (accepts.efforts, accepts.system_turns) == (efforts, system_turns), name
        assert (accepts.structured, accepts.web_search) == (structured, web_search), name


def test_an_unknown_claude_is_a_current_model() -> None:
    current = shipped("claude-opus-5-5")
    for name in ("claude", "claude-next", "claude-opus", "claude-20270101", "claude-zeta-preview"):
        assert shipped(name) == current


def test_known_vendors_think_by_budget_and_others_do_not() -> None:
    careful = Capabilities(structured=False)
    assert shipped("gpt-6") == shipped("my-model") == shipped("glm") == shipped("") == careful
    for name in ("glm-4.7", "moonshotai/kimi-k3", "MiniMax-M3[1m]", "deepseek-chat", "qwen3"):
        assert shipped(name) == Capabilities(thinking="budget", structured=False)


ROUTED = """
[[upstream]]
name = "a"
base_url = "http://a"
api_key = "k"

[[model]]
id = "m"
accepts = { efforts = ["max", "low"], prefill = false }
routes = [
  { upstream = "a" },
  { upstream = "a", model = "claude-opus-4-5", accepts = { efforts = [], thinking = "none" } },
]
"""


def test_a_route_overrides_its_model_which_overrides_the_table() -> None:
    settings = config.parse(tomllib.loads(ROUTED))
    [model] = settings.model
    assert model.routes is not None
    known = Capabilities(efforts=("low", "max"), prefill=False, structured=False)
    assert config.accepts_of(model, None, "m") == known
    assert config.accepts_of(model, model.routes[0], "m") == known
    assert config.accepts_of(model, model.routes[1], "claude-opus-4-5") == Capabilities(
        sampling="one", thinking="none", efforts=(), prefill=False, web_search=True
    )


@pytest.mark.parametrize("name", ["m", "claude-opus-4-8", "claude-sonnet-4-5", "glm-4.7"])
@pytest.mark.parametrize(
    "accepts",
    [
        {"sampling": "both", "thinking": "budget", "efforts": ["high"], "prefill": True},
        {"sampling": "none", "thinking": "none", "efforts": [], "prefill": False},
        {"system_turns": True, "structured": True, "web_search": True},
        {"system_turns": False, "structured": False, "web_search": False},
        {},
    ],
)
def test_every_capability_can_be_overridden(name: str, accepts: dict[str, Any]) -> None:
    settings = config.parse({"model": [{"id": "m", "accepts": accepts}]})
    [model] = settings.model
    found = config.accepts_of(model, None, name)
    for setting in Capabilities.__struct_fields__:
        known = getattr(shipped(name), setting)
        wanted = accepts.get(setting, known)
        assert getattr(found, setting) == (tuple(wanted) if setting == "efforts" else wanted)


def test_only_given_overrides_are_shown_and_read_back_alike() -> None:
    settings = config.parse(tomllib.loads(ROUTED))
    tree = config.effective(settings, lambda text: text)
    [model] = tree["model"]
    assert model["accepts"] == {"efforts": ["max", "low"], "prefill": False}
    assert [route["accepts"] for route in model["routes"]] == [
        None,
        {"efforts": [], "thinking": "none"},
    ]
    assert config.parse(tree) == settings
