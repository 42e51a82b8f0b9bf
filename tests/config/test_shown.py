"""Settings as they are shown: secrets masked, nothing left out."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from relay import config
from tests.config.sections import GLM, PLAN, PRICE, UPSTREAM, VENDOR, load


def test_secrets_are_masked_and_references_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = UPSTREAM.replace('"k"', '"sk-canary-1"') + (
        'headers = { "X-Goog-Api-Key" = "sk-canary-2", "anthropic-beta" = "shown" }\n'
    )
    text += 'egress = "socks5h://team:sk-canary-3@proxy:1080"\n'
    text += UPSTREAM.replace('"a"', '"b"').replace('"k"', '"env:SOME_NAME"')
    text += 'egress = "env:OTHER_NAME"\n'
    text += '[responses]\nkey = "sk-canary-4, which is long enough for one"\n'
    text += '[traces]\nheaders = { "x-team" = "sk-canary-6", b = "env:SHOWN" }\n'
    text += '[acme]\neab_key_id = "shown"\neab_key = "sk-canary-5"\n'
    settings = load(tmp_path, text)
    assert "sk-canary" not in repr(settings.acme)
    assert "sk-canary" not in repr(settings.traces)
    tree = config.effective(settings)
    assert "sk-canary" not in str(tree)
    assert tree["upstream"][0]["headers"]["anthropic-beta"] == "shown"
    assert tree["upstream"][0]["egress"] == "socks5h://team:•••@proxy:1080"
    assert tree["upstream"][1]["api_key"] == "env:SOME_NAME"
    assert tree["upstream"][1]["egress"] == "env:OTHER_NAME"
    assert tree["acme"]["eab_key_id"] == "shown"
    assert tree["traces"]["headers"]["b"] == "env:SHOWN"


def test_a_credential_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NAME", "sk-canary")
    upstream = config.UpstreamSettings(name="a", base_url="http://a", api_key="env:SOME_NAME")
    credential = upstream.credential()
    assert credential.reveal() == "sk-canary"
    assert "canary" not in f"{credential!r} {credential} {upstream!r}"
    literal = config.UpstreamSettings(name="a", base_url="http://a", api_key="sk-canary")
    assert "canary" not in repr(config.Settings(upstream=[literal]))


def test_every_setting_is_shown(tmp_path: Path) -> None:
    tree = config.effective(load(tmp_path, UPSTREAM + PRICE + PLAN))

    def names(section: type[msgspec.Struct]) -> set[str]:
        return set(section.__struct_fields__)

    assert set(tree) == names(config.Settings)
    assert set(tree["server"]["timeouts"]) == names(config.ServerTimeoutSettings)
    assert set(tree["upstream"][0]) == names(config.UpstreamSettings)
    assert set(tree["model"][0]["price"]) == names(config.PriceSettings)
    assert set(tree["pool"]) == names(config.PoolSettings)
    assert set(tree["vendor"][0]) == names(config.VendorSettings)


def test_settings_as_shown_are_read_back_alike() -> None:
    settings = config.parse(tomllib.loads(GLM + VENDOR + PRICE.replace('"m"', '"glm-9"') + PLAN))
    assert config.parse(config.effective(settings, lambda text: text)) == settings


def test_the_secret_of_a_provider_is_masked(tmp_path: Path) -> None:
    row = '[[web.oidc]]\nname = "{0}"\nissuer = "https://{0}.example"\nclient_id = "shown"\n'
    text = UPSTREAM + row.format("a") + 'client_secret = "sk-canary"\n'
    text += row.format("b") + 'client_secret = "file:secret.txt"\nca = "ca.pem"\n'
    settings = load(tmp_path, text)
    assert "sk-canary" not in repr(settings.web)
    first, second = config.effective(settings)["web"]["oidc"]
    assert "sk-canary" not in str(first)
    assert first["client_id"] == "shown"
    assert second["client_secret"] == f"file:{tmp_path}/secret.txt"
    assert second["ca"] == f"{tmp_path}/ca.pem"
    assert settings.web.oidc[0].secret().reveal() == "sk-canary"
