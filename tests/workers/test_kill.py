"""kill -9 of one of several processes: no complete answer is lost, and no limit is exceeded."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tests.durability.process import Running, serving
from tests.durability.test_metering_kill import CALLERS, Seen, adds_up, one_caller
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

from .everywhere import everywhere
from .processes import children, is_alive, nursery_of, workers_of


async def _killed_meanwhile(running: Running, key: str, dice: random.Random) -> Seen:
    """Load a relay, kill a worker in between, and end the relay as an operator does."""
    seen = Seen()

    def some_callers() -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(one_caller(running.port, key, seen, random.Random(dice.random())))
            for _ in range(CALLERS)
        ]

    callers = some_callers()
    await until(lambda: len(seen.complete) > 20, within=10)
    await asyncio.sleep(dice.random() * 0.2)
    before = workers_of(running)
    os.kill(dice.choice(before), signal.SIGKILL)
    await until(lambda: len(set(workers_of(running)) - set(before)) == 1, within=10)
    callers += some_callers()  # all of the first may have been with that worker
    count = len(seen.complete)
    await until(lambda: len(seen.complete) > count + 50, within=10)
    running.signal()
    assert await running.exited(20) == 0
    async with asyncio.timeout(5):
        await asyncio.gather(*callers)
    return seen


async def _kill_workers(folder: Path, key: str, rounds: int) -> int:
    dice = random.Random()
    seen = Seen()
    for _ in range(rounds):
        with serving(folder) as running:
            found = await _killed_meanwhile(running, key, dice)
        assert set(found.statuses) <= {200}
        seen.complete += found.complete
        adds_up(folder, seen)
    return len(seen.complete)


async def test_a_killed_worker_loses_no_answer(
    several: tuple[Path, str], record_property: RecordProperty
) -> None:
    complete = await _kill_workers(*several, rounds=1)
    record_property("figure", f"a worker killed, {complete} answers, none lost")


@pytest.mark.long
async def test_forty_killed_workers_lose_no_answer(several: tuple[Path, str]) -> None:
    await _kill_workers(*several, rounds=40)


async def test_a_killed_nursery_is_replaced(several: tuple[Path, str]) -> None:
    folder, key = several
    seen = Seen()
    with serving(folder) as running:
        nursery, before = nursery_of(running), workers_of(running)
        callers = [
            asyncio.create_task(one_caller(running.port, key, seen, random.Random(number)))
            for number in range(CALLERS)
        ]
        await until(lambda: len(seen.complete) > 20, within=10)
        os.kill(nursery, signal.SIGKILL)
        await until(lambda: set(children(running.process.pid)) - {nursery}, within=10)
        await until(lambda: not is_alive(nursery), within=10)
        assert all(map(is_alive, before))
        count = len(seen.complete)
        await until(lambda: len(seen.complete) > count + 20, within=10)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(workers_of(running)) == 2, within=20)
        [first, second] = workers_of(running)
        async with everywhere(running) as all_three:
            assert await all_three.statuses(key) == [200] * 3
        nursery = nursery_of(running)
        os.kill(nursery, signal.SIGKILL)
        os.kill(first, signal.SIGKILL)
        await until(lambda: set(children(running.process.pid)) - {nursery}, within=10)
        await until(lambda: not is_alive(nursery), within=10)
        await until(lambda: len(workers_of(running)) == 1, within=20)
        async with everywhere(running, others=[second]) as all_three:
            assert await all_three.statuses(key) == [200] * 3
        running.signal()
        assert await running.exited(20) == 0
        async with asyncio.timeout(5):
            await asyncio.gather(*callers)
    assert set(seen.statuses) <= {200}
    adds_up(folder, seen)


async def test_killed_owners_lose_no_answer(several: tuple[Path, str]) -> None:
    folder, key = several
    dice = random.Random()
    seen = Seen()
    for _ in range(2):
        with serving(folder) as running:
            others = [nursery_of(running), *workers_of(running)]
            callers = [
                asyncio.create_task(one_caller(running.port, key, seen, dice))
                for _ in range(CALLERS)
            ]
            await until(lambda: len(seen.complete) > 20, within=10)
            await asyncio.sleep(dice.random() * 0.2)
            os.kill(running.process.pid, signal.SIGKILL)
            await running.exited(2)
            await until(lambda: not any(map(is_alive, others)), within=5)  # noqa: B023
            async with asyncio.timeout(5):
                await asyncio.gather(*callers)
    with serving(folder) as running:
        running.signal()
        await running.exited(10)
    assert set(seen.statuses) <= {200, 503}  # a worker may still say that the owner is gone
    adds_up(folder, seen)
