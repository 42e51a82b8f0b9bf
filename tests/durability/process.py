"""The relay as an operator runs it: a process with a relay.toml, and commands beside it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from relay.cli import main
from tests.fakes.until import until

SETTINGS = """
[server]
listen = [{listen}]
admin_listen = ""
timeouts = {{ drain = 30 }}

[[upstream]]
name = "main"
base_url = "{upstream}"
api_key = "sim-key"

[[model]]
id = "claude-sonnet-4-7"

[[plan]]
id = "free"
max_keys = 50
"""


# Commands that run in this process, since a new one costs many times as much as they do. The
# others serve, or tell of the process itself.
_HERE = (
    "audit",
    "check",
    "code",
    "explain",
    "key",
    "metrics",
    "reload",
    "upstreams",
    "usage",
    "user",
)

_PATIENCE_SECONDS = 30
_one_at_a_time = threading.Lock()  # the folder and standard output are those of the process


def relay(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. Meanwhile the folder may be that of this process."""
    if arguments[0] in _HERE:
        done: Future[subprocess.CompletedProcess[str]] = Future()

        def run() -> None:
            try:
                done.set_result(_run_here(folder, *arguments))
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()  # there is a loop on this one
        return done.result(_PATIENCE_SECONDS)
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
    )


def _run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with _one_at_a_time, contextlib.chdir(folder):
        done = CliRunner().invoke(main, arguments)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def data(folder: Path, *arguments: str) -> Any:
    """The JSON that a command prints."""
    done = relay(folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[bytes]
    folder: Path
    said: str  # on standard error, once it listens
    ready_after: float  # seconds
    stderr: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.said.split("://")[1].split(",")[0].rpartition(":")[2])

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def exited(self, within: float) -> int:
        """The exit status; fails after `within` seconds."""
        await until(lambda: self.process.poll() is not None, within=within)
        return self.process.returncode

    def log(self) -> list[dict[str, Any]]:
        """The access log, once the process has ended."""
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]


def write_settings(folder: Path, upstream: str, *listen: str) -> None:
    listen = listen or ("127.0.0.1:0",)
    text = SETTINGS.format(listen=", ".join(map(repr, listen)), upstream=upstream)
    (folder / "relay.toml").write_text(text)


@contextlib.contextmanager
def serving(folder: Path, command: Sequence[str] = ("serve",), **options: Any) -> Iterator[Running]:
    """A server, once it has printed that it listens; it is killed at the end. `program`: the
    interpreter's arguments, if they are not `-m relay`."""
    started = time.monotonic()
    with (folder / "out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *options.pop("program", ("-m", "relay")), *command],
            cwd=folder,
            stdout=out,
            stderr=subprocess.PIPE,
            env={**os.environ, **options.pop("env", {})},
            **options,
        )
    assert process.stderr is not None
    try:
        said = process.stderr.readline().decode()
        while said and "listens on" not in said:  # warnings may come before
            said = process.stderr.readline().decode()
        yield Running(process, folder, said, time.monotonic() - started)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()
