"""The thread for large requests works for each key in turn."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from relay.gateway.fair_thread import FairThread
from tests.fakes.until import until


class Work:
    """Pieces of work that note their order; `hold` is one that waits for `release`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.running = threading.Event()
        self.release = threading.Event()

    def piece(self, name: str) -> Callable[[], str]:
        def work() -> str:
            self.done.append(name)
            return name

        return work

    def hold(self) -> None:
        self.running.set()
        self.release.wait(5)


@pytest.mark.parametrize("keys", [2, 5])
async def test_a_key_waits_for_one_piece_of_each_other_key(keys: int) -> None:
    thread, work = FairThread("test"), Work()
    tasks = [asyncio.create_task(thread.call("a", work.hold))]
    await until(work.running.is_set)
    names = [f"a{number}" for number in range(7)]
    names += [f"{key}{number}" for key in "bcdef"[: keys - 1] for number in range(2)]
    given = [asyncio.create_task(thread.call(name[0], work.piece(name))) for name in names]
    await asyncio.sleep(0)
    work.release.set()
    assert await asyncio.gather(*given) == names  # each has its own result
    await asyncio.gather(*tasks)
    others = "bcdef"[: keys - 1]
    assert work.done[:keys] == ["a0", *(f"{key}0" for key in others)]
    assert work.done[keys : 2 * keys] == ["a1", *(f"{key}1" for key in others)]
    assert work.done[2 * keys :] == [f"a{number}" for number in range(2, 7)]


async def test_work_of_a_caller_who_left_is_dropped() -> None:
    thread, work = FairThread("test"), Work()
    running = asyncio.create_task(thread.call("a", work.hold))
    await until(work.running.is_set)

    class Body:
        def work(self) -> None:
            work.done.append("dropped")

    body = Body()
    held = weakref.ref(body)
    left = asyncio.create_task(thread.call("a", body.work))
    stays = asyncio.create_task(thread.call("a", work.piece("stays")))
    await asyncio.sleep(0)
    left.cancel()
    del body
    await asyncio.wait([left])
    del left
    gc.collect()
    assert held() is None
    work.release.set()
    assert await stays == "stays"
    await running
    assert work.done == ["stays"]


async def test_an_error_reaches_its_caller_and_stops_nothing() -> None:
    thread = FairThread("test")

    def fail() -> None:
        raise KeyError("odd")

    for _ in range(2):
        with pytest.raises(KeyError, match="odd"):
            await thread.call("a", fail)
    assert await thread.call("b", lambda: 7) == 7


async def test_an_error_after_its_caller_left_is_nobodys() -> None:
    thread, work = FairThread("test"), Work()

    def fail() -> None:
        work.hold()
        raise KeyError("odd")

    running = asyncio.create_task(thread.call("a", fail))
    await until(work.running.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    work.release.set()
    assert await thread.call("a", lambda: 7) == 7
    gc.collect()  # the fixture `loop_without_warnings` looks for an unretrieved exception
