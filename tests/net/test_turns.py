"""Much work is done in small parts, in turns with other workers and with the rest of the loop."""

import asyncio
import time

import pytest

from relay.net.turns import Turns


class Work:
    """So many parts of `seconds` each; notes its name when it has a turn."""

    def __init__(self, name: str, parts: int, seen: list[str], seconds: float = 0.0) -> None:
        self.parts = parts
        self.done = asyncio.Event()
        self._name = name
        self._seen = seen
        self._seconds = seconds

    def take_turn(self) -> bool:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            pass
        self._seen.append(self._name)
        self.parts -= 1
        if not self.parts:
            self.done.set()
        return self.parts > 0


async def test_workers_take_turns() -> None:
    seen: list[str] = []
    turns = Turns(asyncio.get_running_loop())
    works = [Work("a", 3, seen), Work("b", 1, seen), Work("c", 2, seen)]
    for work in works:
        turns.add(work)
        turns.add(work)  # it waits already
    await asyncio.gather(*(work.done.wait() for work in works))
    assert seen == ["a", "b", "c", "a", "c", "a"]


async def test_the_loop_goes_on_between_turns() -> None:
    seen: list[str] = []
    turns = Turns(asyncio.get_running_loop())
    work = Work("work", 20, seen, seconds=0.004)
    turns.add(work)
    ticks = 0
    while not work.done.is_set():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks >= 10  # a turn of the loop has two parts at most


async def test_a_failing_worker_stops_no_other() -> None:
    class Failing(Work):
        def take_turn(self) -> bool:
            raise ValueError("a fault")

    faults: list[str] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    try:
        seen: list[str] = []
        turns = Turns(loop)
        turns.add(Failing("failing", 1, seen))
        work = Work("a", 2, seen)
        turns.add(work)
        await asyncio.wait_for(work.done.wait(), 5)
    finally:
        loop.set_exception_handler(before)
    assert (seen, faults) == (["a", "a"], ["a fault"])


@pytest.mark.parametrize("again", [False, True])
async def test_a_worker_may_come_back(again: bool) -> None:
    seen: list[str] = []
    turns = Turns(asyncio.get_running_loop())
    for _ in range(1 + again):
        work = Work("a", 2, seen)
        turns.add(work)
        await work.done.wait()
    assert len(seen) == 2 + 2 * again
