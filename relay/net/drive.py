"""Runs a handler's coroutine without a Task of its own.

`asyncio.Task` enters itself into a weak set and starts on a later turn of the loop: 2.5 µs
of the 30 that a relayed request costs in all. A `Drive` takes the first step at once and
each further one when the awaited future is done. What is missing: `asyncio.timeout`,
`TaskGroup` and whatever else asks for the current task; a handler that needs those awaits
a task (`await loop.create_task(…)`), as net.pool does for connecting.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Drive:
    """One coroutine on its way. It must catch what is raised in it, `CancelledError` too."""

    __slots__ = ("_cancelled", "_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = coroutine
        self._waiting: asyncio.Future[Any] | None = None
        self._cancelled = False

    def step(self, _: object = None) -> None:
        """Run until the next await that does not return at once."""
        coroutine = self._coroutine
        if coroutine is None:
            return
        try:
            waiting = coroutine.send(None)
        except StopIteration:
            self._coroutine = self._waiting = None
            return
        if waiting is None:  # asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self.step)
            return
        waiting._asyncio_future_blocking = False
        self._waiting = waiting
        waiting.add_done_callback(self.step)
        if self._cancelled:
            waiting.cancel()

    def cancel(self) -> None:
        """Raise `CancelledError` where the coroutine waits."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()
