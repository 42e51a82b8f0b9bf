"""One thread that runs functions in the order of their calls, for coroutines that await them.

Decides how results and errors reach the event loop, and how the thread ends. Must not know
SQLite or what the functions do. asyncio's own executor would not do: its threads keep a process
that forgot to close from ending.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class ExecutorClosedError(Exception):
    """The executor was closed; the function did not run."""


class ThreadExecutor:
    """A daemon thread and its queue. All methods are for coroutines of one event loop."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[PendingCall | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the thread, after all earlier calls. A caller that is cancelled
        stops waiting; the function runs all the same.

        Raises:
            ExecutorClosedError: `close` was called before.
            BaseException: the function raised it.
        """
        if self._closed:
            raise ExecutorClosedError
        call = PendingCall(function)
        self._calls.put(call)
        result: T = await call.future
        return result

    def start(self, call: "PendingCall") -> None:
        """Run a call that its caller awaits by itself."""
        self._calls.put(call)

    def post(self, function: Callable[[], object]) -> None:
        """Run `function` on the thread, after all earlier calls; nobody waits for it."""
        if not self._closed:
            self._calls.put(PendingCall(function))

    async def close(self) -> None:
        """Run all earlier calls, then end the thread."""
        if self._closed:
            return
        self._closed = True
        last = PendingCall(bool)
        self._calls.put(last)
        self._calls.put(None)
        await last.future
        self._thread.join()  # it has nothing left to do but return

    def abandon(self) -> None:
        """Let the thread end after the earlier calls, without waiting for it."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)

    def _run(self) -> None:
        for call in iter(self._calls.get, None):
            call.run()
            del call  # else its result would live until the next call


class PendingCall:
    """A function that waits for its thread. `future` gets its result, on the loop of its caller.
    `ended`: the thread is done with it, and the loop may have yet to hear of it."""

    __slots__ = ("_function", "_loop", "ended", "future")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function: Callable[[], Any] | None = function
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()
        self.ended = False

    def run(self) -> None:
        """On the thread."""
        result: Any = None
        error: BaseException | None = None
        function, self._function = self._function, None
        assert function is not None
        try:
            result = function()
        except StopIteration as raised:  # no future takes one; as PEP 479 has it for generators
            error = RuntimeError("the function raised StopIteration")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        del function  # with all that it holds, here and not on the loop
        self.ended = True
        try:
            self._loop.call_soon_threadsafe(self.resolve, result, error)
        except RuntimeError:  # the loop has closed: nobody waits
            pass

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """On the loop, once the function has ended."""
        if self.future.done():  # cancelled
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
