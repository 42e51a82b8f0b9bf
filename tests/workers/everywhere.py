"""Callers that reach every process of a relay, since a test cannot choose which one accepts."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.durability.process import Running
from tests.fakes.caller import read_answer, read_head, request

from .processes import workers_of

_AT_ONCE = 12  # connections, so that no process accepts all of them


@dataclass
class Answer:
    """What a process has answered."""

    status: int
    fields: dict[bytes, bytes]
    payload: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


@dataclass
class Caller:
    """A connection, and the process that has accepted it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int

    async def ask(self, key: str | None, body: Any = None, **options: Any) -> Answer:
        """Send one request and read its answer; see `tests.fakes.caller.request`."""
        self.writer.write(request(key, body, **options))
        async with asyncio.timeout(20):
            return Answer(*await read_answer(self.reader))

    async def begin(self, key: str, body: Any, **options: Any) -> int:
        """Send one request and read the head of its answer; returns the status."""
        self.writer.write(request(key, body, **options))
        async with asyncio.timeout(20):
            return (await read_head(self.reader))[0]

    async def rest(self) -> bytes:
        """The payload of the answer that has begun, in chunks, up to the last one."""
        async with asyncio.timeout(20):
            return await self.reader.readuntil(b"\r\n0\r\n\r\n")


class Everywhere:
    """A connection to each process of a relay, to its first one first."""

    def __init__(self, callers: list[Caller]) -> None:
        self.callers = callers

    async def ask(self, key: str | None, body: Any = None, **options: Any) -> list[Answer]:
        """The answer of each process to the same request, one after the other."""
        return [await one.ask(key, body, **options) for one in self.callers]

    async def statuses(self, key: str | None, body: Any = None, **options: Any) -> list[int]:
        """The status of each."""
        return [one.status for one in await self.ask(key, body, **options)]

    async def knows(self, key: str, within: float = 5.0) -> None:
        """Wait until every process accepts a key; this uses nothing."""
        async with asyncio.timeout(within):
            while set(await self.listed(key)) != {200}:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)

    async def listed(self, key: str) -> list[int]:
        """The status of the list of models in each process."""
        return await self.statuses(key, b"", method="GET", target="/v1/models")


@contextlib.asynccontextmanager
async def everywhere(
    running: Running,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    others: Sequence[int] = (),
) -> AsyncIterator[Everywhere]:
    """Connect until every process of a relay has accepted a connection. `others`: workers of a
    nursery that is gone."""
    port = port or running.port
    missing = [running.process.pid, *workers_of(running), *others]
    order = list(missing)
    found: dict[int, Caller] = {}
    opened: list[asyncio.StreamWriter] = []
    try:
        async with asyncio.timeout(20):
            while missing:
                for caller in await _connect(port, tls, order, opened):
                    if caller.pid in missing:
                        missing.remove(caller.pid)
                        found[caller.pid] = caller
        for writer in opened:
            if not any(one.writer is writer for one in found.values()):
                writer.transport.abort()
        yield Everywhere([found[pid] for pid in order])
    finally:
        for writer in opened:
            writer.transport.abort()


async def _connect(
    port: int, tls: ssl.SSLContext | None, pids: list[int], opened: list[asyncio.StreamWriter]
) -> list[Caller]:
    """Several connections at once, each with the process that accepted it."""
    name = None if tls is None else "localhost"
    pairs = await asyncio.gather(
        *(
            asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
            for _ in range(_AT_ONCE)
        )
    )
    opened += [writer for _, writer in pairs]
    ports = {writer.get_extra_info("sockname")[1]: (reader, writer) for reader, writer in pairs}
    callers: list[Caller] = []
    while ports:
        for mine, pid in _accepted(port, pids).items():
            if mine in ports:
                callers.append(Caller(*ports.pop(mine), pid))
        await asyncio.sleep(0.005 if ports else 0)
    return callers


def _accepted(port: int, pids: list[int]) -> dict[int, int]:
    """Which of the processes holds the other end of each connection to a port, by this end's."""
    held = {link: pid for pid in pids for link in _sockets(pid)}
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and (pid := held.get(f"socket:[{inode}]")):
            found[int(remote.rpartition(":")[2], 16)] = pid
    return found


def _sockets(pid: int) -> Iterator[str]:
    """The descriptors of a process, as the system shows them."""
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it is closed meanwhile
            yield os.readlink(one)


async def in_force(running: Running, keys: list[str]) -> None:
    """Wait until every process knows the keys; asking uses nothing."""
    async with everywhere(running) as found:
        for key in keys:
            await found.knows(key)
