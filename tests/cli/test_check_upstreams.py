"""`relay check` on upstreams: warnings, vendors in use and proxies."""

import re
from pathlib import Path

import pytest

from tests.cli.two_upstreams import ROUTES, SETTINGS, configure
from tests.durability.process import data, relay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose relay.toml has two upstreams."""
    return configure(tmp_path)


def test_check_warns_of_an_admin_listener_others_can_reach(folder: Path) -> None:
    for admin, warned in [
        ("127.0.0.1:1", False), ("[::1]:1", False), ("localhost:1", False), ("", False),
        ("unix:/run/a", False), ("0.0.0.0:1", True), ("[::]:1", True), ("192.0.2.1:1", True),
        ("relay.example:1", True),
    ]:  # fmt: skip
        text = SETTINGS.format(admin=admin, database="relay.db", routes=ROUTES)
        (folder / "relay.toml").write_text(text)
        done = relay(folder, "check")
        assert done.returncode == 0
        assert ("server.admin_listen: " in done.stderr) == warned, admin


def test_check_shows_the_vendors_in_use_or_changed_and_terms(folder: Path) -> None:
    own = '[[vendor]]\nname = "mine"\n[[vendor]]\nname = "kimi"\nthinking = "other"\n'
    with (folder / "relay.toml").open("a") as file:
        file.write(own)
    done = relay(folder, "check")
    shown = re.findall(r'^vendor\[\d\].name = "(.*)"$', done.stdout, re.MULTILINE)
    assert sorted(shown) == ["generic", "glm", "kimi", "mine"]
    assert re.search(r"^vendor\[\d\].rules = \d+$", done.stdout, re.MULTILINE)
    assert "rules[" not in done.stdout
    assert "not in force" not in done.stdout
    assert done.stderr.startswith("upstream two: ")
    assert done.stderr.count("\n") == 1
    vendors = data(folder, "check")["settings"]["vendor"]
    assert len(vendors) > 4
    assert any(one["rules"] for one in vendors)


def test_check_names_a_model_that_no_upstream_serves(folder: Path) -> None:
    text = (folder / "relay.toml").read_text().replace(ROUTES, "")
    first, _, rest = text.partition('[[upstream]]\nname = "one"')
    (folder / "relay.toml").write_text(first + "[[upstream]]" + rest.partition("[[upstream]]")[2])
    done = relay(folder, "check")
    assert done.returncode == 0
    assert "no upstream serves claude-sonnet-4-7 under its own name; give it routes" in done.stderr


@pytest.mark.parametrize(
    ("egress", "reason"),
    [
        ("env:RELAY_TEST_NO_PROXY", "RELAY_TEST_NO_PROXY is not set"),
        ("http://a%3Ab:pw-canary@proxy:1", "has no colon"),
        ("socks5://pw-canary@proxy:1", "both user and password, or neither"),
    ],
)
def test_check_and_serve_refuse_an_unusable_proxy(folder: Path, egress: str, reason: str) -> None:
    text = (folder / "relay.toml").read_text()
    text = text.replace('vendor = "glm"', f'vendor = "glm"\negress = "{egress}"')
    (folder / "relay.toml").write_text(text)
    for command in ("check", "serve"):
        done = relay(folder, command)
        assert done.returncode == 2
        assert done.stderr.startswith("relay.toml: upstream[1].egress: ")
        assert reason in done.stderr
        assert "canary" not in done.stderr
