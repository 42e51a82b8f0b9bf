"""A handler that runs without a task is cancelled as a task would be."""

import asyncio
from typing import Any

import pytest

from relay.net.runner import CoroutineRunner, Waiter


async def test_a_cancel_after_the_awaited_result_still_counts() -> None:
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()
    steps: list[str] = []

    async def handler() -> None:
        try:
            await waiting
            steps.append("went on")
        except asyncio.CancelledError:
            steps.append("cancelled")

    runner = CoroutineRunner(handler())
    runner.step()
    waiting.set_result(None)  # the handler would resume on the loop's next turn …
    runner.cancel()  # … but its caller leaves in this one
    await asyncio.sleep(0)
    assert steps == ["cancelled"]


@pytest.mark.parametrize("kind", [asyncio.Future, Waiter])
async def test_a_cancel_is_raised_once(kind: type[Any]) -> None:
    first, second = kind(), kind()
    steps: list[str] = []

    async def handler() -> None:
        try:
            await first
        except asyncio.CancelledError:
            steps.append("cancelled")
            steps.append(await second)

    runner = CoroutineRunner(handler())
    runner.step()
    runner.cancel()
    await asyncio.sleep(0)
    assert steps == ["cancelled"]
    second.set_result("tidied up")
    await asyncio.sleep(0)
    assert steps == ["cancelled", "tidied up"]


async def test_a_cancel_before_the_first_wait_ends_that_wait() -> None:
    steps: list[str] = []
    runners: list[CoroutineRunner] = []

    async def handler() -> None:
        runners[0].cancel()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps.append("cancelled")

    runners.append(CoroutineRunner(handler()))
    runners[0].step()
    await asyncio.sleep(0)
    assert steps == ["cancelled"]


async def test_a_cancel_during_sleep_0_is_raised() -> None:
    steps: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.sleep(0)
            steps.append("went on")
        except asyncio.CancelledError:
            steps.append("cancelled")

    runner = CoroutineRunner(handler())
    runner.step()
    runner.cancel()
    await asyncio.sleep(0)
    assert steps == ["cancelled"]
