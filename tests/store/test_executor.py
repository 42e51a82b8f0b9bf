import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from functools import partial

import pytest

from relay.store.executor import ExecutorClosedError, ThreadExecutor


@pytest.fixture
async def executor() -> AsyncIterator[ThreadExecutor]:
    executor = ThreadExecutor("test")
    yield executor
    await executor.close()


async def test_calls_run_in_order_on_one_other_thread(executor: ThreadExecutor) -> None:
    ran: list[int] = []

    def record(number: int) -> threading.Thread:
        ran.append(number)
        return threading.current_thread()

    calls = (executor.call(partial(record, number)) for number in range(500))
    threads = set(await asyncio.gather(*calls))
    assert ran == [*range(500)]
    assert len(threads) == 1
    assert threads.pop() is not threading.current_thread()


@pytest.mark.parametrize("error", [LookupError("no"), StopIteration(1)])
async def test_an_error_reaches_the_caller_and_ends_nothing(
    executor: ThreadExecutor, error: Exception
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(BaseException) as caught:
        await asyncio.wait_for(executor.call(fail), 5)
    assert error in (caught.value, caught.value.__cause__)
    assert await executor.call(lambda: 7) == 7


async def test_a_cancelled_call_runs_and_the_next_one_works(executor: ThreadExecutor) -> None:
    started, may_go_on, ran = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        may_go_on.wait(10)
        ran.set()

    task = asyncio.create_task(executor.call(work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    assert await executor.call(ran.is_set)


async def test_closing_runs_earlier_calls_and_refuses_later_ones() -> None:
    executor = ThreadExecutor("closing")
    earlier = [asyncio.create_task(executor.call(lambda: 1)) for _ in range(20)]
    await asyncio.sleep(0)
    await executor.close()
    assert [await call for call in earlier] == [1] * 20
    assert all(thread.name != "closing" for thread in threading.enumerate())
    with pytest.raises(ExecutorClosedError):
        await executor.call(lambda: 1)
    await executor.close()


async def test_a_waiting_executor_holds_no_result(executor: ThreadExecutor) -> None:
    class Big:
        pass

    held = weakref.ref(await executor.call(Big))
    await executor.call(lambda: None)
    await asyncio.sleep(0)
    assert held() is None


def test_a_result_after_the_loop_has_closed_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    go_on, left = threading.Event(), threading.Event()

    async def leave() -> ThreadExecutor:
        executor = ThreadExecutor("leaving")
        for work in (lambda: go_on.wait(10), left.set):
            asyncio.create_task(executor.call(work))  # noqa: RUF006 - cancelled with the loop
        await asyncio.sleep(0)
        return executor

    executor = asyncio.run(leave())
    go_on.set()
    assert left.wait(10)  # the thread survived the first call
    asyncio.run(executor.close())
    assert capfd.readouterr().err == ""
    assert sys.exc_info() == (None, None, None)


async def test_an_abandoned_executor_still_runs_its_earlier_calls() -> None:
    executor = ThreadExecutor("abandoned")
    go_on, ran = threading.Event(), threading.Event()
    waiting = asyncio.ensure_future(executor.call(lambda: go_on.wait(10)))
    last = asyncio.ensure_future(executor.call(ran.set))
    await asyncio.sleep(0)
    executor.abandon()  # returns at once, though a call is under way
    executor.abandon()
    with pytest.raises(ExecutorClosedError):
        await executor.call(bool)
    go_on.set()
    assert await waiting
    await last
    assert ran.is_set()
