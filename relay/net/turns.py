"""Shares the loop's time among those with much to do at once.

Fifty upstreams may each bring 56 KiB of tiny events in one turn of the loop, and each event is work
of its own. Everybody else would wait for all of them.

Decides whose turn it is, and when the loop goes on with other things. Must not know the work.
"""

import asyncio
import time
from typing import Final, Protocol

_SECONDS: Final = 0.005  # of work in one turn of the loop


class Worker(Protocol):
    """Does its work in small parts."""

    def take_turn(self) -> bool:
        """Do the next part; return whether there is more to do now."""
        ...


class Turns:
    """Workers, one after another, each with a part of its work."""

    __slots__ = ("_is_due", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Worker, None] = {}
        self._is_due = False  # the loop will call `_work`

    def add(self, worker: Worker) -> None:
        """Let `worker` take turns until it has no more to do."""
        self._waiting[worker] = None
        self._call()

    def _call(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._is_due = False
        waiting = self._waiting
        end = time.monotonic() + _SECONDS
        try:
            while waiting and time.monotonic() < end:
                worker = next(iter(waiting))
                del waiting[worker]
                if worker.take_turn():
                    waiting[worker] = None  # behind the others
        finally:
            self._call()
