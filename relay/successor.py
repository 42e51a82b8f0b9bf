"""Starts the process that is to take this one's place, at the operator's request.

Decides which command starts it: the one that started this process, by the name it was given, so
that a link to another version is followed. Must not know how the place is handed over.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from relay.errors import CONFLICT, INTERNAL, RelayError
from relay.handover.offer import READY_SECONDS, Offer

_START_SECONDS: Final = 30.0  # until it has let this process stop
_OWN_ENVIRONMENT: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")


class Successor:
    """`POST /handover` of the admin listener."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._running = False

    async def answer(self) -> object:
        """Start another process and wait until it serves.

        Raises:
            RelayError: 409, one is starting already; 500, it does not serve, and this one does.
        """
        if self._running or self._offer.left.is_set():
            raise RelayError(CONFLICT, "Another process is about to take over already.")
        self._running = True
        try:
            task = asyncio.get_running_loop().create_task(self._start())
            return await task  # a request has no task of its own
        finally:
            self._running = False

    async def _start(self) -> object:
        offer = self._offer
        offer.failed.clear()
        offer.failure = ""
        environment = {
            name: value for name, value in os.environ.items() if name not in _OWN_ENVIRONMENT
        }
        loop = asyncio.get_running_loop()
        process, program = await loop.run_in_executor(None, _spawned, environment)
        ends = (offer.left.wait(), offer.failed.wait(), _end_of(process))
        tasks = [asyncio.ensure_future(end) for end in ends]
        await asyncio.wait(
            tasks, timeout=_START_SECONDS + READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in tasks:
            task.cancel()
        if offer.left.is_set():
            return {"pid": process.pid, "version": offer.version, "program": program}
        reason = f"it ended with status {process.poll()}; see the log"
        if process.poll() is None:
            reason = f"it did not serve within {_START_SECONDS + READY_SECONDS:.0f} s"
            offer.give_up(reason)
            process.kill()  # SIGTERM would be heeded once it has the place
        raise RelayError(
            INTERNAL,
            f"The new process does not serve: {offer.failure or reason}. This one goes on.",
        )


def command() -> list[str]:
    """The command that started this process, with `--takeover`."""
    own = Path(sys.argv[0])
    beside = own.parent / "bin" / "relay"
    if own.suffix == ".pyz":  # its first line may name another Python than that of its version
        is_version = os.access(beside, os.X_OK)
        words = [str(beside), *sys.argv[1:]] if is_version else list(sys.orig_argv)
    elif own.name == "__main__.py" or not os.access(own, os.X_OK):
        words = list(sys.orig_argv)
    else:
        words = list(sys.argv)
    return words if "--takeover" in words else [*words, "--takeover"]


def _spawned(environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the new process; returns its program's path, without links, too. Blocks."""
    words = command()
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603
    return process, os.path.realpath(words[0])


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110 - a loop on uvloop has no child watcher of ours
        await asyncio.sleep(0.05)
