"""The bench as a process, as `python -m bench` runs it."""

import os
import subprocess
import sys

import click
import pytest

from bench.__main__ import program
from bench.rivals.relay import TREE

_TIMEOUT_S = 240
# Tests run beside each other: no round of theirs is refused for that.
ENVIRONMENT = {**os.environ, "RELAY_BENCH_MOST_OTHERS": "1"}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run with these arguments, once it has ended."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=_TIMEOUT_S,
    )


def refusal(*arguments: str) -> str:
    """The sentence that refuses such arguments. They are only read, in this process."""
    command = program.commands[arguments[0] if arguments[0] in program.commands else "run"]
    with pytest.raises(click.UsageError) as refused:
        command.make_context("bench", [one for one in arguments if one not in program.commands])
    return refused.value.format_message()
