"""The relay inside callgrind: `python launcher.py WISHES ANSWERS ARGUMENT…`, those of `relay`.

Decides where a count begins and ends, and when time passes. It reads wishes, an octet each, from
the descriptor WISHES, and writes each to ANSWERS when it is done:

- `m`  callgrind writes its counts down and starts again from zero, as it does before each call of
       `getloadavg`, which nothing else calls
- `r`  the reference workload runs
- `t`  a twentieth of a second passes

Two things would make one count differ from the next. The collector is off, since a collection falls
into a count or does not. Timers fire only when time is let pass: by the clock, those that fire four
times a second would fire fifty times as often for each request, since all is that much slower.

Run by file name, so it imports nothing of the bench.
"""

import asyncio
import gc
import heapq
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvloop

STEP_SECONDS = 0.05


class SteppedLoop(uvloop.Loop):
    """uvloop with timers that fire in `step` alone."""

    latest: "SteppedLoop"

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._passed = 0.0
        self._number = 0
        SteppedLoop.latest = self

    def call_later(  # type: ignore[override]  # without the types of `values`
        self, delay: float, callback: Callable[..., object], *values: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self.time() + delay, callback, values, self, context)
        self._number += 1
        heapq.heappush(self._timers, (self._passed + delay, self._number, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """`TimerHandle.cancel` calls this; a cancelled timer stays queued and does nothing."""

    def step(self) -> None:
        """Let time pass. Timers that are set meanwhile count from its end."""
        self._passed += STEP_SECONDS
        due = []
        while self._timers and self._timers[0][0] <= self._passed:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            if not timer.cancelled():
                timer._run()


class Node:
    """For the reference workload: attributes and calls."""

    __slots__ = ("count", "name", "rest")

    def __init__(self, name: bytes, rest: "Node | None") -> None:
        self.name = name
        self.rest = rest
        self.count = 0

    def visit(self, seen: dict[bytes, int]) -> int:
        self.count = seen.get(self.name, 0) + 1
        seen[self.name] = self.count
        return self.count


def reference() -> int:
    """Plain Python of the kind that a relay is made of: the cost of the interpreter itself."""
    total = 0
    for turn in range(1000):
        seen: dict[bytes, int] = {}
        node: Node | None = None
        for field in (b"host: a\r\nx-api-key: %d\r\naccept: */*\r\n" % turn).split(b"\r\n"):
            name, _, value = field.partition(b":")
            node = Node(name.strip().lower(), node)
            total += len(value) + node.visit(seen)
        while node is not None:
            total += sum([len(node.name), node.count])
            node = node.rest
    return total


def _serve(wishes: int, answers: int) -> None:
    while wish := os.read(wishes, 1):
        if wish == b"m":
            os.getloadavg()
        elif wish == b"r":
            reference()
        else:
            SteppedLoop.latest.call_soon_threadsafe(SteppedLoop.latest.step)
        os.write(answers, wish)


def main() -> None:
    wishes, answers = int(sys.argv[1]), int(sys.argv[2])
    gc.disable()
    uvloop.Loop = SteppedLoop  # type: ignore[misc]  # `uvloop.run` makes one of these
    threading.Thread(target=_serve, args=(wishes, answers), daemon=True).start()
    from relay.cli import main as relay

    relay(sys.argv[3:], prog_name="relay")


if __name__ == "__main__":
    main()
