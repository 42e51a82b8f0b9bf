"""A handler that runs without a task of its own ends as one that has one."""

import asyncio
from typing import Any

import pytest

from relay.net.runner import CoroutineRunner, Waiter


async def test_a_cancel_is_not_lost_on_what_is_done_already() -> None:
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()
    went = []

    async def handler() -> None:
        try:
            await waiting
            went.append("on")
        except asyncio.CancelledError:
            went.append("cancelled")

    drive = CoroutineRunner(handler())
    drive.step()
    waiting.set_result(None)  # the handler is to go on at the loop's next turn …
    drive.cancel()  # … but its caller leaves in this one
    await asyncio.sleep(0)
    assert went == ["cancelled"]


@pytest.mark.parametrize("kind", [asyncio.Future, Waiter])
async def test_a_cancel_comes_once(kind: type[Any]) -> None:
    first, second = kind(), kind()
    went = []

    async def handler() -> None:
        try:
            await first
        except asyncio.CancelledError:
            went.append("cancelled")
            went.append(await second)

    drive = CoroutineRunner(handler())
    drive.step()
    drive.cancel()
    await asyncio.sleep(0)
    assert went == ["cancelled"]
    second.set_result("tidied up")
    await asyncio.sleep(0)
    assert went == ["cancelled", "tidied up"]


async def test_a_cancel_before_the_first_wait_ends_that_wait() -> None:
    went = []
    drives = []

    async def handler() -> None:
        drives[0].cancel()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            went.append("cancelled")

    drives.append(CoroutineRunner(handler()))
    drives[0].step()
    await asyncio.sleep(0)
    assert went == ["cancelled"]


async def test_a_cancel_after_a_turn_of_the_loop_without_a_wait() -> None:
    went = []

    async def handler() -> None:
        try:
            await asyncio.sleep(0)
            went.append("on")
        except asyncio.CancelledError:
            went.append("cancelled")

    drive = CoroutineRunner(handler())
    drive.step()
    drive.cancel()
    await asyncio.sleep(0)
    assert went == ["cancelled"]
