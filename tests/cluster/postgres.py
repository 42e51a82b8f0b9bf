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

_ROOM = 2_000_000_000  # octets of memory that the servers of a run may take
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",  # no database lives long enough
    "min_wal_size": "4MB",
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
        # initdb and postgres refuse root.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)

    def create(self) -> None:
        """Make an empty server on the disk."""
        command = [str(self._bin / "initdb"), "-D", str(self.folder / "data"), "-U", "relay"]
        command += ["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        command += ["--wal-segsize=1"]  # it is copied a few times
        subprocess.run(
            command, user=self.user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL
        )

    def copy_from(self, folder: Path) -> None:
        """Have the disk of another server, which is stopped."""
        subprocess.run(["cp", "-a", folder / "data", self.folder / "data"], check=True)

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
                    command, user=self.user, cwd=self.folder, stdout=log, stderr=log
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

    def save(self) -> None:
        """Keep the state of its disk, while it is stopped."""
        subprocess.run(["cp", "-a", self.folder / "data", self.folder / "saved"], check=True)

    def put_back(self) -> None:
        """Put the saved state of its disk back, while it is stopped."""
        shutil.rmtree(self.folder / "data")
        (self.folder / "saved").rename(self.folder / "data")

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        processes = [pid, *map(int, children.read_text().split())] if children.exists() else [pid]
        # A stop goes through its first process; a kill leaves none that could answer once more.
        for one in processes if number == signal.SIGKILL else [pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
        self._process.wait(30)
        self._process = None

    def url(self, database: str, port: int = 0, address: str = "127.0.0.1") -> str:
        """Over TCP; `port` and `address` of a proxy before it."""
        return f"postgresql://relay@{address}:{port or self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Over its Unix socket."""
        return f"postgresql://relay@/{database}?host={self.folder}&port={self.port}"

    def drop_database(self, name: str) -> None:
        """Delete a database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def new_database(self, template: str = "template1", name: str = "") -> str:
        """The name of a new database."""
        name = name or f"relay_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name


@contextlib.contextmanager
def new_postgres() -> Iterator[Postgres]:
    """A server that has no disk yet, and ends with the block; skips the test where there is no
    program."""
    bin = programs()
    if bin is None:
        pytest.skip("needs Debian's package postgresql")
    # Not below pytest's folder, which other users may not enter; short, for the socket's path.
    memory = Path("/dev/shm")  # thousands of small files are made and deleted
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    folder = Path(tempfile.mkdtemp(prefix="relay-pg-", dir=memory if has_room else None))
    server = Postgres(folder, bin)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
