"""The calls of the database's thread, one at a time, so that the loop knows whether it may write.

SQLite has one writer, and an attempt to be a second one fails. Decides which call is next: the loop
itself (`on_free`) before all that wait. Must not know what the calls do.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from relay.store.executor import ExecutorClosedError, PendingCall, ThreadExecutor

T = TypeVar("T")


class Turns:
    """The queue of a thread. All methods are for the loop."""

    def __init__(self, executor: ThreadExecutor) -> None:
        self._executor = executor
        self._waiting: deque[_Call] = deque()
        self._running: _Call | None = None
        self._closed = False
        self.on_free: Callable[[], None] | None = None  # called after such a call

    @property
    def is_writing(self) -> bool:
        """Whether a call that may write is under way.

        It is not from the moment on that the thread has ended it: a loop with much to do hears of
        that tens of milliseconds later, for which nothing would be written.
        """
        running = self._running
        return running is not None and running.writes and not running.ended

    async def call(self, function: Callable[[], T], *, writes: bool) -> T:
        """Run `function` on the thread, after all earlier calls; see `ThreadExecutor.call`.

        Raises:
            ExecutorClosedError: `close` was called before.
            BaseException: the function raised it.
        """
        if self._closed:
            raise ExecutorClosedError
        result: T = await self._queue(function, writes)
        return result

    async def close(self, last: Callable[[], None]) -> None:
        """Run all earlier calls, then `last`, then end the thread."""
        self._closed = True
        await self._queue(last, True)
        await self._executor.close()

    def _queue(self, function: Callable[[], object], writes: bool) -> "asyncio.Future[Any]":
        call = _Call(function, self, writes)
        self._waiting.append(call)
        self._go_on()
        return call.future

    def end(self) -> None:
        """A call has ended. Only for the call."""
        ended, self._running = self._running, None
        if ended is not None and ended.writes and self.on_free is not None:
            self.on_free()
        self._go_on()

    def _go_on(self) -> None:
        if self._running is None and self._waiting:
            self._running = self._waiting.popleft()
            self._executor.start(self._running)


class _Call(PendingCall):
    """A function in the queue."""

    __slots__ = ("_turns", "writes")

    def __init__(self, function: Callable[[], object], turns: Turns, writes: bool) -> None:
        super().__init__(function)
        self._turns = turns
        self.writes = writes

    def resolve(self, result: object, error: BaseException | None) -> None:
        super().resolve(result, error)
        self._turns.end()
