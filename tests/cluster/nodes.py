"""Nodes in this process and in processes of their own, and a proxy that cuts them off."""

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from relay.cluster.limits import SharedLimits
from relay.cluster.node import ClusterNode, ClusterSettings
from relay.cluster.outage import OnOutage
from relay.cluster.waiting import LedgerAwayError, LimitReachedError
from relay.cluster.windows import Held, SharedLimit

HOUR = 3600
FIVE_HOURS = (SharedLimit("key", "requests", 5 * HOUR, 40),)


@contextlib.asynccontextmanager
async def running_node(
    url: str, name: str = "a", on_outage: OnOutage = "refuse", changes: Any = None
) -> AsyncIterator[ClusterNode]:
    """A node in this process. `changes`: a list that gets kind and id of each change."""
    heard = [] if changes is None else changes
    node = await ClusterNode.open(
        ClusterSettings(url, name, on_outage), lambda kind, id: heard.append((kind, id))
    )
    try:
        yield node
    finally:
        await node.close()


async def outcome(
    limits: SharedLimits, plan: Sequence[SharedLimit], key: str = "k", account: str = "a",
    tokens: int = 0, cost: int = 0,
) -> Held | str:  # fmt: skip
    """One request: held, "refused" or "away"."""
    try:
        return await limits.reserve(account, key, plan, tokens, cost)
    except LimitReachedError:
        return "refused"
    except LedgerAwayError:
        return "away"


async def burst(
    limits: SharedLimits, plan: Sequence[SharedLimit], count: int, key: str = "k"
) -> Counter[str]:
    """So many requests at once, all of which are kept."""
    done = await asyncio.gather(*[outcome(limits, plan, key) for _ in range(count)])
    return Counter("admitted" if isinstance(one, Held) else one for one in done)


class NodeProcess:
    """A node in a process of its own: see `tests.cluster.node_program`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Let it do something, and return its answer."""
        self.begin(do, **arguments)
        return await self.answer()

    def begin(self, do: str, **arguments: Any) -> None:
        """Let it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")

    async def answer(self) -> Any:
        """The answer to the earliest thing that has none yet."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, "the node has ended"
        return json.loads(line)

    async def kill(self) -> None:
        """End it at once."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> None:
        """Let it give its leases back and end."""
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await asyncio.wait_for(self.process.wait(), 30)


@contextlib.asynccontextmanager
async def node_process(
    url: str, name: str, *, on_outage: OnOutage = "refuse", journal: Path | None = None,
    command: Sequence[str] = (),
) -> AsyncIterator[NodeProcess]:  # fmt: skip
    """A node that has joined. `journal`: where it notes the use of its leases. `command` that it is
    started by."""
    process = await asyncio.create_subprocess_exec(
        *command, sys.executable, "-m", "tests.cluster.node_program", url, name, on_outage,
        *([str(journal)] if journal else []),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    node = NodeProcess(process)
    try:
        assert await node.answer() == "ready"
        yield node
    finally:
        await node.end()


class Wire:
    """A proxy of octets before the server, on an address of this machine."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.port = 0
        self._address = address
        self._target = port
        self._drops = (False, False)  # what nodes send, what the server sends
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, self._address, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self, *, only_replies: bool = False) -> None:
        """Let all octets vanish from now on, in silence."""
        self._drops = (not only_replies, True)

    def restore(self) -> None:
        """Pass octets again. Connections that lost some stay as they are."""
        self._drops = (False, False)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(back)
            await asyncio.gather(self._pass(reader, back, 0), self._pass(there, writer, 1))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int
    ) -> None:
        is_lost = False
        while octets := await reader.read(65536):
            is_lost = is_lost or self._drops[way]
            if not is_lost:
                writer.write(octets)
        if not is_lost:
            writer.close()
