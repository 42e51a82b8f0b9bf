"""A relay in a process of its own, whose loop and memory are watched.

The work of callers and upstreams is none of its own there. `python -m tests.attacks.relay_process`
takes the arguments of `running_relay` as JSON, prints its port and key, and then answers one
command a line.
"""

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.fakes.live import EMAIL, Live, running_relay

TICK_SECONDS = 0.001


class Turns:
    """The longest turns of this thread's loop, in seconds.

    `own` is the loop's own CPU time. `process` counts the CPU time of other threads as well, which
    may hold the interpreter's lock meanwhile, but no more than has passed: the time that the loop
    stood still on a machine with nothing else to do.
    """

    def __init__(self) -> None:
        self._own = self._process = 0.0

    def take(self) -> tuple[float, float]:
        """The longest turns since the last call, `own` and `process`."""
        longest = self._own, self._process
        self._own = self._process = 0.0
        return longest

    async def watch(self) -> None:
        """Measure until cancelled."""
        passed, own, process = time.monotonic(), time.thread_time(), time.process_time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            before = passed, own, process
            passed, own, process = time.monotonic(), time.thread_time(), time.process_time()
            self._own = max(self._own, own - before[1])
            self._process = max(self._process, min(passed - before[0], process - before[2]))


class RelayProcess:
    """What a test has of such a relay."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, key: str) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.port = port
        self.key = key

    async def turns(self) -> tuple[float, float]:
        """The longest turns of the loop since the last call: see `Turns`."""
        own, process = await self._ask("turns")
        return own, process

    async def memory(self) -> int:
        """The octets in memory."""
        return int(await self._ask("memory"))

    async def held(self) -> int:
        """The octets that are held for requests."""
        return int(await self._ask("held"))

    async def states(self) -> dict[str, str]:
        """The state of each upstream."""
        return dict(await self._ask("states"))

    async def new_key(self, email: str = EMAIL) -> str:
        """A key of this user, whose account is new if nobody has had it yet."""
        return str(await self._ask("new_key", email))

    async def call(self, name: str, *arguments: Any) -> Any:
        """The result of an operator's command."""
        return await self._ask(name, *arguments)

    async def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
            async with asyncio.timeout(20):
                return json.loads(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def relay_process(upstreams: Any, **sections: Any) -> AsyncIterator[RelayProcess]:
    """Starts a relay with these arguments of `running_relay`."""
    arguments = json.dumps([upstreams, sections])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.relay_process", arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            port, key = json.loads(await process.stdout.readline())
        yield RelayProcess(process, port, key)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Commands:
    """Answers the commands of the process's standard input."""

    def __init__(self, live: Live, turns: Turns) -> None:
        self._live = live
        self._turns = turns
        self._emails = {EMAIL}

    async def turns(self) -> tuple[float, float]:
        return self._turns.take()

    async def memory(self) -> int:
        return int(psutil.Process().memory_info().rss)

    async def held(self) -> int:
        return int(self._live.app.server.budget.held)

    async def states(self) -> dict[str, str]:
        return {str(row["name"]): str(row["state"]) for row in self._live.app.upstreams.view()}

    async def new_key(self, email: str) -> str:
        if email not in self._emails:
            self._emails.add(email)
            await self._live.create_user(email)
        return await self._live.new_key(email)


def _read_commands(commands: _Commands, loop: asyncio.AbstractEventLoop) -> None:
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        work = getattr(commands, name)(*arguments)
        print(json.dumps(asyncio.run_coroutine_threadsafe(work, loop).result()), flush=True)
    os._exit(0)


async def _serve() -> None:
    upstreams, sections = json.loads(sys.argv[1])
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder:
        async with running_relay(Path(folder), upstreams, **sections) as live:
            gc.collect()  # as `relay serve` does
            gc.freeze()
            gc.set_threshold(10_000, 20, 50)
            watching = asyncio.create_task(turns.watch())
            print(json.dumps([live.port, live.key]), flush=True)
            reading = (_Commands(live, turns), asyncio.get_running_loop())
            threading.Thread(target=_read_commands, args=reading, daemon=True).start()
            await watching


if __name__ == "__main__":
    uvloop.run(_serve())
