"""The command line: what it prints, what it refuses, and that it keeps its secrets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay.cli.program import main

SETTINGS = """
[server]
public_url = "https://relay.example"

[[upstream]]
name = "main"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"

[[model]]
id = "claude-sonnet-4-7"

[[plan]]
id = "free"
max_keys = 2

[[plan]]
id = "pro"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a relay.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(SETTINGS)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def data(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def refused(status: int, *arguments: str) -> str:
    """The one line on standard error that a refused command leaves."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.rstrip("\n")


def relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, timeout=30
    )


# check


def test_check_says_ok_and_shows_every_setting_with_secrets_masked() -> None:
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


def test_check_names_a_wrong_setting_by_its_path_and_what_is_accepted(folder: Path) -> None:
    (folder / "relay.toml").write_text("[server]\nlisen = []\n")
    line = refused(2, "check")
    assert line.startswith("relay.toml: server.lisen: unknown setting; accepted here: admin_listen")
    assert refused(2, "check", "--json") == line


def test_check_names_every_credential_that_cannot_be_had(
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


def test_check_misses_certificates_that_are_not_there(folder: Path) -> None:
    tls = 'public_url = "https://relay.example"\ntls = { cert = "c.pem", key = "k.pem" }'
    text = SETTINGS.replace('public_url = "https://relay.example"', tls)
    (folder / "relay.toml").write_text(text)
    (folder / "c.pem").write_text("")
    assert "relay.toml: server.tls.key: cannot read" in refused(2, "check")


def test_a_missing_file_is_told_with_its_name_and_the_option(folder: Path) -> None:
    (folder / "relay.toml").unlink()
    for command in ("check", "serve", "demo", "user list"):
        line = refused(2, *command.split())
        assert "cannot read relay.toml: No such file" in line
        assert "--config PATH" in line


# --config


@pytest.mark.parametrize(
    "command",
    ["--config other.toml user list", "user --config other.toml list",
     "user list --config other.toml", "--config none.toml user list --config other.toml"],
)  # fmt: skip
def test_the_settings_may_be_named_anywhere(folder: Path, command: str) -> None:
    (folder / "relay.toml").rename(folder / "other.toml")
    done("user", "create", "ann@example.com", "--config", "other.toml")
    assert "ann@example.com" in done(*command.split())


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "simulate", "check", "user create", "user list", "user set-plan",
     "user suspend", "user resume", "user credit", "user statement", "key create", "key list",
     "key revoke", "usage", "backup"],
)  # fmt: skip
def test_every_command_takes_config_and_explains_itself(command: str) -> None:
    text = done(*command.split(), "--help")
    assert "--config PATH" in text
    assert ("--json" in text) == (command not in ("serve", "demo", "simulate"))


# errors


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("frob", "No such command 'frob'. See `relay --help`."),
        ("user frob", "See `relay user --help`."),
        ("user list --frob", "No such option"),
        ("user create", "Missing argument 'EMAIL'. See `relay user create --help`."),
        ("key create", "Missing option '--user'"),
        ("simulate", "Missing option '--port'"),
        ("simulate --port 65536", "0<=x<=65535"),
        ("demo --port x", "not a valid integer"),
        ("user list x", "unexpected extra argument"),
    ],
)
def test_a_misuse_is_one_line_that_says_where_to_look(command: str, words: str) -> None:
    assert words in refused(2, *command.split())


def test_what_nobody_thought_of_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("a mistake\nof ours")

    monkeypatch.setattr("relay.config.effective", fail)
    line = refused(1, "check")
    assert "internal error: LookupError: a mistake of ours (test_program.py:" in line


# the real command


def test_the_command_itself_prints_no_traceback_and_ends_with_the_status() -> None:
    assert "relay, version" in relay("--version").stdout
    wrong = relay("user", "create", "ann")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    made = relay("user", "create", "ann@example.com", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["email"] == "ann@example.com"


def test_without_arguments_it_shows_the_commands() -> None:
    result = run()
    assert result.exit_code == 2
    for command in ("serve", "simulate", "check", "user", "key", "usage", "backup"):
        assert f"\n  {command} " in result.stderr


def test_serving_does_not_wait_for_commands_that_are_not_asked_for() -> None:
    code = (
        "import sys; from relay.cli.program import main; assert main.get_command(None, 'serve'); "
        "assert not {'relay.cli.accounts', 'relay.store', 'rich', 'sqlite3'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_an_output_that_lacks_a_character_gets_the_rest() -> None:
    done("user", "create", "ann@example.com")
    done("key", "create", "--user", "ann@example.com")
    shown = subprocess.run(
        [sys.executable, "-m", "relay", "key", "list"],
        capture_output=True, timeout=30, env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert shown.returncode == 0
    assert b"key_" in shown.stdout
