"""Relays of one database that take over from each other, and clients that notice nothing."""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fakes.caller import BODY, read_answer, read_head, request
from tests.fakes.until import until


class Relays:
    """The processes of one folder; each takes the place of the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port = 0

    @property
    def last(self) -> subprocess.Popen[bytes]:
        return self.processes[-1]

    def said(self, number: int = -1) -> str:
        """What a process has written to standard error."""
        index = number % len(self.processes)
        return (self.folder / f"err{index}").read_text()

    async def start(self, *arguments: str) -> None:
        """Start a relay that takes over from the last, and wait until it serves."""
        self.spawn(*arguments)
        await until(lambda: "listens on" in self.said(), within=30)
        self.port = int(self.said().split("listens on http://")[1].split()[0].rpartition(":")[2])

    def spawn(self, *arguments: str) -> None:
        """Start a relay that takes over from the last."""
        with (
            (self.folder / "out").open("ab") as out,
            (self.folder / f"err{len(self.processes)}").open("ab") as err,
        ):
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "relay", "serve", "--takeover", *arguments],
                    cwd=self.folder,
                    stdout=out,
                    stderr=err,
                    env={**os.environ},
                )
            )

    async def ended(self, number: int, within: float = 15.0) -> int:
        """The exit status of a process."""
        process = self.processes[number]
        await until(lambda: process.poll() is not None, within=within)
        return process.returncode

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        with contextlib.closing(sqlite3.connect(self.folder / "relay.db")) as connection:
            return connection.execute(statement).fetchall()


class Load:
    """Clients: some keep their connection, some open one for each request, some read streams."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key
        self.stopped = asyncio.Event()
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0  # seconds to connect and be answered
        self.streams: list[bytes] = []

    def has_answers(self, number: int) -> bool:
        """Whether so many requests were answered."""
        return self.outcomes["200"] >= number

    async def ask_on_one_connection(self) -> None:
        reader, writer = await self._connect()
        while not self.stopped.is_set():
            started = time.monotonic()
            writer.write(request(self.key))
            try:
                status, fields, _ = await read_answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.outcomes[f"cut: {error!r}"] += 1
                fields = {b"connection": b"close"}
            else:
                self.outcomes[str(status)] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
            if fields.get(b"connection") == b"close":
                writer.close()
                self.outcomes["reconnected"] += 1
                reader, writer = await self._connect()
        writer.close()

    async def ask_on_new_connections(self) -> None:
        while not self.stopped.is_set():
            started = time.monotonic()
            try:
                reader, writer = await self._connect()
                writer.write(request(self.key, fields="connection: close\r\n"))
                status, _, _ = await read_answer(reader)
                self.outcomes[str(status)] += 1
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.outcomes[f"refused or cut: {error!r}"] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)

    async def read_stream(self, script: str, started: asyncio.Semaphore) -> None:
        reader, writer = await self._connect()
        body = {**BODY, "stream": True}
        writer.write(request(self.key, body, fields=f"x-simulate: {script}\r\n"))
        status, _ = await read_head(reader)
        self.outcomes[str(status)] += 1
        started.release()
        self.streams.append(await reader.readuntil(b"\r\n0\r\n\r\n"))
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)


def balanced(relays: Relays, answered: int) -> None:
    """Assert that journal, limits and money agree with what clients were answered."""
    assert relays.rows("PRAGMA integrity_check") == [("ok",)]
    assert relays.rows("SELECT count(*), count(DISTINCT id) FROM usage") == [(answered, answered)]
    assert relays.rows("SELECT rule, count(*) FROM usage GROUP BY 1") == [("reported", answered)]
    assert relays.rows("SELECT * FROM running") == []
    [(used,)] = relays.rows("SELECT used FROM bucket WHERE kind = 'requests' AND per > 3600")
    assert used == answered
    [(cost,)] = relays.rows("SELECT sum(cost_micro) FROM usage")
    [(charged,)] = relays.rows("SELECT charged FROM balance")
    assert charged == cost


def log_lines(relays: Relays) -> list[dict[str, Any]]:
    """The access log of all processes."""
    return [json.loads(line) for line in (relays.folder / "out").read_text().splitlines()]
