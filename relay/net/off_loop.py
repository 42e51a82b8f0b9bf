"""One blocking call on a thread of its own, for a coroutine that awaits it.

For rare calls that may hang: a slow disk, a silent server. asyncio's own executor would not do:
its threads keep a process from ending. Must not know the calls.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def off_loop(name: str, function: Callable[[], T]) -> T:
    """Call `function` on a daemon thread named `name`. A caller that is cancelled stops waiting;
    the call goes on.

    Raises:
        BaseException: the function raised it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(error: BaseException | None, value: Any) -> None:
        if future.done():  # cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def run() -> None:
        error: BaseException | None = None
        value = None
        try:
            value = function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


class Once(Generic[T]):
    """A value that the first caller makes, on a thread, and all others get."""

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._name = name
        self._make = make
        self._made: T | None = None
        self._making: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value. A caller that is cancelled stops waiting; the others get it.

        Raises:
            BaseException: `make` raised it; the next caller tries again.
        """
        if self._made is not None:
            return self._made
        making = self._making
        if making is None or (making.done() and making.exception() is not None):
            work = off_loop(self._name, self._make)
            making = self._making = asyncio.get_running_loop().create_task(work)
        self._made = await asyncio.shield(making)
        return self._made


class BusyError(Exception):
    """Too many calls are made at once."""


class BoundedThreads:
    """Calls off the loop, at most so many at once."""

    def __init__(self, limit: int) -> None:
        self._places = threading.BoundedSemaphore(limit)

    async def call(self, name: str, function: Callable[[], T]) -> T:
        """As `off_loop`. Its place is free again when the thread ends, whoever waits for it.

        Raises:
            BusyError: all places are taken, or no thread can be started.
            BaseException: the function raised it.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError
        is_started = False

        def work() -> T:
            nonlocal is_started
            is_started = True
            try:
                return function()
            finally:
                self._places.release()

        try:
            return await off_loop(name, work)
        except RuntimeError:
            if is_started:
                raise
            self._places.release()
            raise BusyError from None
