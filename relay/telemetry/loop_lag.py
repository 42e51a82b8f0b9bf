"""How late the event loop is: the delay of a timer that fires twenty times a second.

A loop with more to do than it has time for is late at its timers. One late timer is a stall, as a
large body may cause it. Timers that are late one after another are overload: the lowest of the
last few delays is the lag that stands (as in CoDel, RFC 8289 §3).

Must not know the work of the loop.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from relay.telemetry.histogram import SHARE_BOUNDS, Histogram

INTERVAL_SECONDS: Final = 0.05
_STANDING_TIMERS: Final = 4  # late timers in a row, a fifth of a second


class LoopLag:
    """`standing` is the lag that stands, `latest` the last delay; both in seconds."""

    __slots__ = ("_due", "_handle", "_longest", "_loop", "_observers", "_recent", "delays",
                 "latest", "standing")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.delays = Histogram(SHARE_BOUNDS)
        self.latest = 0.0
        self.standing = 0.0
        self._longest = 0.0
        self._recent = [0.0] * _STANDING_TIMERS
        self._loop = loop
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._observers: list[Callable[[float], None]] = []

    def start(self) -> None:
        """Start to measure."""
        self._due = time.monotonic() + INTERVAL_SECONDS
        self._handle = self._loop.call_later(INTERVAL_SECONDS, self._on_timer)

    def stop(self) -> None:
        """Stop measuring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def each_time(self, observer: Callable[[float], None]) -> None:
        """Call `observer` with the lag that stands, twenty times a second."""
        self._observers.append(observer)

    def take_longest(self) -> float:
        """The longest delay since the last call, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _on_timer(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        self.start()
        self.latest = late
        self.delays.add(int(late * 1e6))
        self._longest = max(self._longest, late)
        self._recent.append(late)
        del self._recent[0]
        self.standing = min(self._recent)
        for observer in self._observers:
            observer(self.standing)
