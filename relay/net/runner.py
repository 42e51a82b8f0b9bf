"""Runs a handler's coroutine without a Task of its own.

A trampoline. An `asyncio.Task` enters a weak set and starts on a later turn of the loop, which
costs 2.5 µs of the 30 µs of a relayed request. A `CoroutineRunner` takes the first step
immediately, and each further one when the awaited future is done. `asyncio.timeout`, `TaskGroup`
and other users of the current task do not work in it. A handler that needs them awaits a task
(`await loop.create_task(…)`), as `upstream.connection_pool` does to connect.

Decides when a coroutine takes its next step. Must not know its purpose.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Waiter(Generic[T]):
    """A future for one coroutine of a `CoroutineRunner`, which resumes within `set_result`.

    An `asyncio.Future` resumes it on the loop's next turn, which costs a microsecond.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_error", "_value", "done")

    _value: T

    def __init__(self) -> None:
        self.done = False
        self._callback: Callable[[object], None] | None = None
        self._error: BaseException | None = None

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value

    def set_result(self, value: T) -> None:
        """Set the result and resume the coroutine."""
        self._value = value
        self._finish()

    def set_exception(self, error: BaseException) -> None:
        """Set an exception in place of a result and resume the coroutine."""
        self._error = error
        self._finish()

    def cancel(self) -> bool:
        """Raise `CancelledError` in the coroutine; False if it is done, as with a Future."""
        if self.done:
            return False
        self.set_exception(asyncio.CancelledError())
        return True

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        """As with a Future, but for a single callback."""
        self._callback = callback

    def _finish(self) -> None:
        self.done = True
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)


class CoroutineRunner:
    """Runs one coroutine, which must catch all its exceptions, `CancelledError` included."""

    __slots__ = ("_cancelled", "_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = coroutine
        self._waiting: asyncio.Future[Any] | Waiter[Any] | None = None
        self._cancelled = False

    def step(self, _: object = None) -> None:
        """Run the coroutine until its next await that has to wait."""
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
        if self._cancelled:  # the coroutine cancelled itself before it waited
            self._cancelled = not waiting.cancel()

    def cancel(self) -> None:
        """Raise `CancelledError` where the coroutine waits."""
        # If the future is done already, the next step raises.
        self._cancelled = self._waiting is None or not self._waiting.cancel()
