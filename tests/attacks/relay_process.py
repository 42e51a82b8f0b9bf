"""A relay in a process of its own, whose loop and memory are watched.

The work of callers and upstreams is none of its own there. `python -m tests.attacks.relay_process`
takes the arguments of `running_relay` as JSON, prints its port and key, and then answers one
command a line.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import uvloop

from relay.memory import freeze_objects, map_large_blocks
from tests.fakes.live import EMAIL, Live, running_relay

TICK_SECONDS = 0.001


class Turns:
    """Measures this thread's loop."""

    def __init__(self) -> None:
        self._longest = 0.0

    def longest(self) -> float:
        """The longest turn since the last call, in seconds of CPU time."""
        longest, self._longest = self._longest, 0.0
        return longest

    async def watch(self) -> None:
        """Measure until cancelled."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.thread_time()
            self._longest = max(self._longest, now - before)
            before = now


class RelayProcess:
    """What a test has of such a relay."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port, self.key = self._answer()

    def longest_turn(self) -> float:
        """The loop's longest turn since the last call, in seconds of CPU time."""
        return float(self._ask("longest_turn"))

    def memory(self) -> int:
        """The octets in memory."""
        return int(self._ask("memory"))

    def held(self) -> dict[str, int]:
        """What requests may hold of the process, by kind."""
        return dict(self._ask("held"))

    def failed(self) -> int:
        """The number of requests that failed by the relay's own fault."""
        return int(self._ask("failed"))

    def new_key(self, email: str = EMAIL) -> str:
        """A key of this user, whose account is new if nobody has had it yet."""
        return str(self._ask("new_key", email))

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def relay_process(upstreams: list[dict[str, Any]], **sections: Any) -> Iterator[RelayProcess]:
    """Starts a relay with these arguments of `running_relay`."""
    arguments = json.dumps([upstreams, sections])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.relay_process", arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield RelayProcess(process)
        finally:
            process.kill()


class _Commands:
    """Answers the commands of the process's standard input."""

    def __init__(self, live: Live, turns: Turns) -> None:
        self._live = live
        self._turns = turns
        self._emails = {EMAIL}

    async def longest_turn(self) -> float:
        return self._turns.longest()

    async def memory(self) -> int:
        return int(psutil.Process().memory_info().rss)

    async def held(self) -> dict[str, int]:
        app = self._live.app
        return {
            "descriptors": psutil.Process().num_fds(),
            "tasks": len(asyncio.all_tasks()),
            "connections": len(app.server.connections),
            "octets": app.server.budget.held,
            "upstream places": sum(one.in_flight for one in app.upstreams),
            "waiting": app.upstreams.waiting,
            "upstream connections": sum(one.pool.idle for one in app.upstreams),
            "reservations": sum(one.in_flight for one in app.ledger.counters()),
            "keys in use": sum(one.in_flight for one in app.ledger.key_states()),
            "money": sum(one.held for one in app.ledger.balances()),
            "unwritten": app.journal.unwritten,
        }

    async def failed(self) -> int:
        return sum(line["outcome"] == "failed" for line in self._live.log())

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
    map_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        async with running_relay(Path(folder), upstreams, **sections) as live:
            freeze_objects()  # as `relay serve` does
            watching = asyncio.create_task(turns.watch())
            print(json.dumps([live.port, live.key]), flush=True)
            reading = (_Commands(live, turns), asyncio.get_running_loop())
            threading.Thread(target=_read_commands, args=reading, daemon=True).start()
            await watching


if __name__ == "__main__":
    uvloop.run(_serve())
