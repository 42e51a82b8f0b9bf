"""The command line as a whole: options, errors, and how fast a command starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import done, refused, relay, run

pytestmark = pytest.mark.usefixtures("folder")


def test_a_missing_settings_file_is_named_with_the_option(folder: Path) -> None:
    (folder / "relay.toml").unlink()
    for command in ("check", "serve", "demo", "user list"):
        line = refused(2, *command.split())
        assert "cannot read relay.toml: No such file" in line
        assert "--config PATH" in line


def test_a_variable_names_the_settings_file_and_the_option_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "relay.toml").rename(folder / "other.toml")
    monkeypatch.setenv("RELAY_CONFIG", "other.toml")
    done("user", "list")
    assert "cannot read relay.toml" in refused(2, "user", "list", "--config", "relay.toml")
    monkeypatch.setenv("RELAY_CONFIG", "none.toml")
    assert "cannot read none.toml" in refused(2, "user", "list")
    done("user", "list", "--config", "other.toml")


@pytest.mark.parametrize(
    "command",
    ["--config other.toml user list", "user --config other.toml list",
     "user list --config other.toml", "--config none.toml user list --config other.toml"],
)  # fmt: skip
def test_the_config_option_may_stand_anywhere(folder: Path, command: str) -> None:
    (folder / "relay.toml").rename(folder / "other.toml")
    done("user", "create", "ann@example.com", "--config", "other.toml")
    assert "ann@example.com" in done(*command.split())


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "simulate", "check", "user create", "user list", "user set-plan",
     "user suspend", "user resume", "user credit", "user statement", "key create", "key list",
     "key revoke", "usage", "backup", "restore", "database status", "database shrink",
     "move export", "move import", "import", "alerts test"],
)  # fmt: skip
def test_every_command_takes_config_and_explains_itself(command: str) -> None:
    text = done(*command.split(), "--help")
    assert "--config PATH" in text
    assert ("--json" in text) == (command not in ("serve", "demo", "simulate"))


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
def test_a_usage_error_is_one_line_that_names_the_help(command: str, words: str) -> None:
    assert words in refused(2, *command.split())


def test_an_unexpected_exception_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("a mistake\nof ours")

    monkeypatch.setattr("relay.config.effective", fail)
    line = refused(1, "check")
    assert "internal error: LookupError: a mistake of ours (test_program.py:" in line


def test_a_process_prints_no_traceback_and_exits_with_a_status() -> None:
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


def test_serve_imports_no_other_command_no_rich_and_no_sqlite() -> None:
    code = (
        "import sys; from relay.cli import main; assert main.get_command(None, 'serve'); "
        "assert 'relay.cli.serve' in sys.modules; unused = {'relay.cli.accounts', 'relay.app', "
        "'relay.store', 'rich', 'sqlite3'}; assert not unused & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_an_ascii_output_gets_everything_it_can_encode() -> None:
    done("user", "create", "ann@example.com")
    done("key", "create", "--user", "ann@example.com")
    shown = subprocess.run(
        [sys.executable, "-m", "relay", "key", "list"],
        capture_output=True, timeout=30, env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert shown.returncode == 0
    assert b"key_" in shown.stdout
