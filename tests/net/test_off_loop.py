"""A value that is made once, whoever waits for it."""

import asyncio
import threading

import pytest

from relay.net.off_loop import Once


async def test_all_callers_get_one_value() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    once = Once("one", make)
    found = await asyncio.gather(*(once.get() for _ in range(5)))
    assert [*found, await once.get()] == made * 6


async def test_a_value_is_kept_though_nobody_waits_for_it() -> None:
    goes_on = threading.Event()
    made: list[bool] = []

    def make() -> str:
        made.append(goes_on.wait(5))
        return "value"

    once = Once("one", make)
    waiting = asyncio.create_task(once.get())
    await asyncio.sleep(0)
    waiting.cancel()
    goes_on.set()
    assert await once.get() == "value"
    assert made == [True]


async def test_a_failure_is_followed_by_another_try() -> None:
    tries: list[int] = []

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return "value"

    once = Once("one", make)
    with pytest.raises(OSError, match="not yet"):
        await once.get()
    assert await once.get() == "value"
