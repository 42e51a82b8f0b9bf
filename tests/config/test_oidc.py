"""`[[web.oidc]]`: what a provider's settings may be."""

from typing import Any

import pytest

from relay import config

ROW = {
    "name": "main",
    "issuer": "https://id.example",
    "client_id": "relay",
    "client_secret": "secret",
}


def parse(*rows: dict[str, Any]) -> config.Settings:
    return config.parse({"web": {"oidc": list(rows)}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a b"}, "is no name"),
        ({"issuer": ""}, "issuer: is needed"),
        ({"issuer": "http://id.example"}, "issuer: must begin with https://"),
        ({"issuer": "id.example"}, "issuer: must begin with"),
        ({"client_id": ""}, "client_id: must be"),
        ({"client_secret": ""}, "client_secret: is needed"),
        ({"client_secret": "${SECRET}"}, "write env:SECRET"),
        ({"scopes": ["email"]}, 'scopes: must have "openid"'),
        ({"scopes": ["openid email"]}, "is no scope"),
        ({"domains": ["Example.com"]}, "in lower case"),
        ({"domains": ["@example.com"]}, "in lower case"),
        ({"kind": "saml"}, "kind"),
        ({"title": "a\x00"}, "title: must have"),
    ],
)
def test_what_cannot_be_used_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        parse({**ROW, **change})
    assert words in str(caught.value)
    assert "web.oidc" in str(caught.value)


def test_names_and_issuers_are_given_once() -> None:
    for change in ({"name": "other"}, {"issuer": "https://other.example"}):
        with pytest.raises(config.ConfigError, match="is given twice"):
            parse(ROW, {**ROW, **change})


def test_github_needs_no_issuer() -> None:
    row = {name: value for name, value in ROW.items() if name != "issuer"}
    [one] = parse({**row, "kind": "github"}).web.oidc
    assert one.issuer_url == "https://github.com"
    assert one.wanted_scopes == ["read:user", "user:email"]
    assert one.shown == "main"
