"""A PostgreSQL server of the tests' own, in a temporary folder: Debian's package postgresql."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.fakes.ports import free_port

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
    "fsync": "off",  # a killed process loses nothing of what the system has
    "full_page_writes": "off",
    "log_min_messages": "log",
}


def programs() -> Path | None:
    """The folder of initdb and postgres; None: not installed."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(os.path.realpath(found)).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: int(it.parent.name))
    return folders[-1] if folders else None


class Postgres:
    """One server. `port` stays the same over restarts."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._bin = bin
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()
        # initdb refuses root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "relay",
                  "-E", "UTF8", "--locale=C", "--no-sync")  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._bin / program, *arguments], user=self._user, cwd=self.folder,
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip

    def start(self, **settings: str) -> None:
        """Start it and wait until it answers. `settings` for this run."""
        values = {**_SETTINGS, "unix_socket_directories": str(self.folder), **settings}
        options = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + 30
        while True:
            command = [str(self._bin / "postgres"), "-D", str(self.folder / "data")]
            command += ["-p", str(self.port), *options]
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, user=self._user, cwd=self.folder, stdout=log, stderr=log
                )
            # After a kill it refuses to start while a process of the earlier run still lives.
            while self._process.poll() is None:
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                    return
                time.sleep(0.02)
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """Let it write everything and end."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would, but for the system's cache."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let no process of it run any more, as if the machine hung."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """After `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def url(self, database: str, port: int = 0) -> str:
        """Over TCP; `port` of a proxy before it."""
        return f"postgresql://relay@127.0.0.1:{port or self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Over its Unix socket."""
        return f"postgresql://relay@/{database}?host={self.folder}&port={self.port}"

    def new_database(self, template: str = "template1") -> str:
        """The name of a new database."""
        name = f"relay_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server, until it is no longer needed; skips the test where there is no program."""
    bin = programs()
    if bin is None:
        pytest.skip("needs Debian's package postgresql")
    # Not below pytest's folder, which other users may not enter; short, for the socket's path.
    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))
    server = Postgres(folder, bin)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
