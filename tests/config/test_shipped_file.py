"""The relay.toml of this repository."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from relay import config

ROOT = Path(__file__).parents[2]


def test_every_setting_is_in_the_shipped_file() -> None:
    text = (ROOT / "relay.toml").read_text(encoding="utf-8")
    tree = tomllib.loads(re.sub(r"(?m)^# (?=\[|\w+ = )", "", text))
    settings = config.parse(tree)

    def has_every_setting(section: type[msgspec.Struct], *tables: dict[str, object]) -> None:
        assert {name for table in tables for name in table} == set(section.__struct_fields__)

    has_every_setting(config.Settings, tree)
    has_every_setting(config.ServerSettings, tree["server"])
    has_every_setting(config.PoolSettings, tree["pool"])
    has_every_setting(config.UpstreamSettings, *tree["upstream"])
    has_every_setting(config.ModelSettings, *tree["model"])
    has_every_setting(
        config.Capabilities, *(model["accepts"] for model in tree["model"] if "accepts" in model)
    )
    for model in settings.model:  # the example equals the default
        bare = msgspec.structs.replace(model, accepts=None)
        known = config.accepts_of(bare, None, model.id)
        assert config.accepts_of(model, None, model.id) == known
    has_every_setting(config.PlanSettings, *tree["plan"])
    assert all(plan.cache_breakpoints for plan in settings.plan)
    has_every_setting(config.VendorSettings, *tree["vendor"])
    has_every_setting(
        config.RuleSettings, *(rule for vendor in tree["vendor"] for rule in vendor["rules"])
    )
    has_every_setting(config.PlanPollSettings, tree["vendor"][0]["quota"])
    has_every_setting(config.MailSettings, tree["mail"])
    has_every_setting(config.WebSettings, tree["web"])
    has_every_setting(config.OidcSettings, *tree["web"]["oidc"])
    has_every_setting(config.PaymentsSettings, tree["payments"])
    has_every_setting(config.OfferSettings, *tree["payments"]["offer"])
    assert settings.web == config.WebSettings(oidc=settings.web.oidc)
    assert settings.pool == config.PoolSettings()
    assert settings.server.timeouts == config.ServerTimeoutSettings()
    assert settings.server.limits == config.HeadLimitSettings()
    assert config.vendor_of(settings, settings.upstream[1]).name == "anthropic"


@pytest.mark.skipif(not (ROOT / "relay.toml").exists(), reason="no relay.toml in the root yet")
def test_the_shipped_file_has_the_plans_and_models() -> None:
    settings = config.load(ROOT / "relay.toml")
    limits = {
        plan.id: {str(limit.per): limit.requests for limit in plan.limits if limit.requests}
        for plan in settings.plan
    }
    assert [(each.get("5h"), each.get("7d")) for each in limits.values()] == [
        (40, 200), (400, 2_000), (1_200, 6_000), (3_000, 15_000),
    ]  # fmt: skip
    assert {model.id for model in settings.model} == {
        "claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5",
    }  # fmt: skip
