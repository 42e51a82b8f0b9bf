"""Every deadline of every connection, on one coarse clock.

Setting a deadline is one attribute store, cheap enough for every event. A sweep compares all
deadlines four times a second: a timer wheel with a single slot. Ten thousand connections cost
0.6 ms a sweep, and nothing is queued, moved or cancelled.

Decides when a deadline fires. Must not know the effect.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from relay.net.turns import Turns

NEVER: Final = float("inf")
TICK: float = 0.25  # seconds between two sweeps; not final, so that tests can shorten it


class Deadlined(Protocol):
    """Anything with a `deadline`, in seconds of the loop's clock; `NEVER` for none."""

    deadline: float

    def expire(self) -> None:
        """Called after the deadline; sets a new one or closes."""
        ...


class Deadlines:
    """The sweep.

    `now` is the coarse time, at most one tick ahead and never behind: a deadline counted from it
    never fires early. `swept` is the exact time of the last sweep, against which deadlines are
    compared. `turns`: for those with more work than fits a turn of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turns = Turns(loop)
        self._loop = loop
        self._watched: set[Deadlined] = set()
        self._each_tick: list[Callable[[], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self.swept = loop.time()
        self.now = self.swept + TICK

    def start(self) -> None:
        """Start sweeping."""
        self._sweep()

    def stop(self) -> None:
        """Stop sweeping; no deadline fires any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def each_tick(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every sweep, for work that is cheapest in batches."""
        self._each_tick.append(callback)

    def watch(self, item: Deadlined) -> None:
        """Expire `item` at its deadlines until `forget`."""
        self._watched.add(item)

    def forget(self, item: Deadlined) -> None:
        """Undo `watch`; no effect on an unwatched item."""
        self._watched.discard(item)

    def _sweep(self) -> None:
        self._handle = self._loop.call_later(TICK, self._sweep)
        swept = self.swept = self._loop.time()
        self.now = swept + TICK
        for item in [item for item in self._watched if item.deadline <= swept]:
            if item.deadline <= swept:  # an item before it may have moved its deadline
                item.expire()
        for callback in self._each_tick:
            callback()
