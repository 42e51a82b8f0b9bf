"""The command line in this process: run a command, and read what it prints."""

import json
import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result

from relay.cli import main

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


def run(*arguments: str, typed: str | None = None) -> Result:
    """Run a command to its end; `typed` is its standard input."""
    return CliRunner().invoke(main, arguments, input=typed)


def done(*arguments: str) -> str:
    """The standard output of a command that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def data(*arguments: str) -> Any:
    """The JSON that a command prints."""
    return json.loads(done(*arguments, "--json"))


def refused(status: int, *arguments: str) -> str:
    """The one line on standard error of a command that fails with this status."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.rstrip("\n")


def relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, timeout=30
    )
