"""Runs a handler's coroutine without a Task of its own.

`asyncio.Task` enters itself into a weak set and starts on a later turn of the loop: 2.5 µs
of the 30 that a relayed request costs in all. A `CoroutineRunner` takes the first step at once and
each further one when the awaited future is done. What is missing: `asyncio.timeout`,
`TaskGroup` and whatever else asks for the current task; a handler that needs those awaits
a task (`await loop.create_task(…)`), as net.pool does for connecting.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Waiter(Generic[T]):
    """A value to come, for one coroutine of a `CoroutineRunner`: it goes on within `set_result`.

    A Future would have it wait for the loop's next turn, which costs a microsecond.
    """

    __slots__ = ("_asyncio_future_blocking", "_error", "_resume", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._resume: Callable[[object], None] | None = None
        self._error: BaseException | None = None

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value

    def set_result(self, value: T) -> None:
        """The value is here."""
        self._value: T = value
        self._go_on()

    def set_exception(self, error: BaseException) -> None:
        """It will never be."""
        self._error = error
        self._go_on()

    def cancel(self) -> bool:
        """Nobody wants it any more. As a Future has it: whether there was still time."""
        if self.done:
            return False
        self.set_exception(asyncio.CancelledError())
        return True

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        """As a Future has it, for one callback."""
        self._resume = callback

    def _go_on(self) -> None:
        self.done = True
        resume, self._resume = self._resume, None
        if resume is not None:
            resume(self)


class CoroutineRunner:
    """One coroutine on its way. It must catch what is raised in it, `CancelledError` too."""

    __slots__ = ("_cancelled", "_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = coroutine
        self._waiting: asyncio.Future[Any] | Waiter[Any] | None = None
        self._cancelled = False

    def step(self, _: object = None) -> None:
        """Run until the next await that does not return at once."""
        coroutine = self._coroutine
        if coroutine is None:
            return
        try:
            if self._cancelled:
                self._cancelled = False
                waiting = coroutine.throw(asyncio.CancelledError())
            else:
                waiting = coroutine.send(None)
        except StopIteration:
            self._coroutine = self._waiting = None
            return
        if waiting is None:  # asyncio.sleep(0)
            self._waiting = None
            asyncio.get_running_loop().call_soon(self.step)
            return
        waiting._asyncio_future_blocking = False
        self._waiting = waiting
        waiting.add_done_callback(self.step)
        if self._cancelled:  # by itself, before it came to wait
            self._cancelled = not waiting.cancel()

    def cancel(self) -> None:
        """Raise `CancelledError` where the coroutine waits."""
        # Where the future is done already, the next step has yet to come: it raises.
        self._cancelled = self._waiting is None or not self._waiting.cancel()
