"""`relay check`: what it refuses and shows."""

import json
from pathlib import Path

import pytest

from tests.cli.command import SETTINGS, data, done, refused, run

pytestmark = pytest.mark.usefixtures("folder")


def test_check_shows_every_setting_with_secrets_masked() -> None:
    out = done("check")
    assert out.startswith("ok: relay.toml (1 upstream, 1 model, 2 plans)\n")
    assert 'server.public_url = "https://relay.example"\n' in out
    assert "server.timeouts.idle = 75.0\n" in out
    assert 'upstream[0].api_key = "•••"\n' in out
    assert "canary" not in out


def test_check_prints_the_same_as_json() -> None:
    shown = data("check")
    assert shown["ok"] is True
    assert shown["settings"]["plan"][1]["id"] == "pro"
    assert "canary" not in json.dumps(shown)


def test_check_names_a_wrong_setting_and_the_accepted_ones(folder: Path) -> None:
    (folder / "relay.toml").write_text("[server]\nlisen = []\n")
    line = refused(2, "check")
    assert line.startswith("relay.toml: server.lisen: unknown setting; accepted here: admin_listen")
    assert refused(2, "check", "--json") == line


def test_check_names_every_credential_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_TEST_UNSET", raising=False)
    more = '[[upstream]]\nname = "{}"\nbase_url = "http://a"\napi_key = "{}"\n'
    (folder / "relay.toml").write_text(SETTINGS + more.format("b", "env:RELAY_TEST_UNSET"))
    line = refused(2, "check")
    assert line == (
        "relay.toml: upstream[1].api_key: the environment variable RELAY_TEST_UNSET is not set"
    )
    assert refused(2, "serve") == line  # and serving does not begin without it
    (folder / "relay.toml").write_text(
        SETTINGS + more.format("b", "env:RELAY_TEST_UNSET") + more.format("c", "file:none")
    )
    result = run("check")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "upstream[1].api_key",
        "upstream[2].api_key",
    ]
    monkeypatch.setenv("RELAY_TEST_UNSET", "sk-env-canary")
    (folder / "none").write_text("sk-file-canary\n")
    assert "canary" not in done("check")


def test_check_names_a_certificate_file_that_is_missing(folder: Path) -> None:
    tls = 'public_url = "https://relay.example"\ntls = { cert = "c.pem", key = "k.pem" }'
    text = SETTINGS.replace('public_url = "https://relay.example"', tls)
    (folder / "relay.toml").write_text(text)
    (folder / "c.pem").write_text("")
    assert "relay.toml: server.tls.key: cannot read" in refused(2, "check")


def test_a_trace_header_that_cannot_be_read_is_named(folder: Path) -> None:
    path = folder / "relay.toml"
    path.write_text(path.read_text() + '\n[traces]\nheaders = { "x-key" = "env:NO_SUCH_NAME" }\n')
    line = refused(2, "check")
    assert "traces.headers.x-key: the environment variable NO_SUCH_NAME is not set" in line


def test_check_takes_patterns_and_names_two_that_are_the_same(folder: Path) -> None:
    model = '[[model]]\nid = "{}"\naliases = ["house-*"]\nprice = {{ input = 1.0, output = 1.0 }}\n'
    (folder / "relay.toml").write_text(SETTINGS + model.format("first"))
    assert 'model[1].aliases = ["house-*"]\n' in done("check")
    (folder / "relay.toml").write_text(SETTINGS + model.format("first") + model.format("second"))
    line = refused(2, "check")
    assert line == (
        "relay.toml: model[2].aliases: 'house-*' is given twice: model 'first' has it already; "
        "leave out one"
    )
