"""A relay of several processes as its operator meets it: reload, signals, stuck workers."""

import asyncio
import os
import signal
import time
from pathlib import Path

from tests.durability.metered import STREAM, opened
from tests.durability.process import Running, relay, serving
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

from .everywhere import Everywhere, everywhere, in_force
from .processes import is_alive, workers_of
from .shared import Shared, body, settings, together
from .test_exact import PLANS, new_keys

FOREVER = "x-simulate: tokens=1000;pace=5\r\n"
IMPATIENT = (
    "-c",
    "from relay.workers import owner; owner._STUCK_SECONDS = 3.0;"
    "from relay.cli import main; main()",
)

SHORT_OF_FILES = (
    "-c",
    """
from relay.workers.nursery import Nursery
begun, start_worker = [], Nursery.start_worker

def fails_once(self, *worker):
    begun.append(self)
    if len(begun) == 3:
        raise OSError(24, "Too many open files")
    start_worker(self, *worker)

Nursery.start_worker = fails_once
from relay.cli import main
main()
""",
)


async def begin_streams(all_three: Everywhere, key: str, fields: str) -> None:
    """Begin a stream in each process."""
    heads = await together(*(one.begin(key, STREAM, fields=fields) for one in all_three.callers))
    assert heads == [200] * 3


def error_log(running: Running) -> str:
    """The error log of a relay that has ended."""
    assert running.process.stderr is not None
    return running.process.stderr.read().decode()


# --- reload ---


async def test_a_reload_reaches_every_process(simulator: str, tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    text = settings(simulator)
    path.write_text(text)
    with serving(tmp_path) as running:
        shared = Shared(running, tmp_path, simulator)
        key = await shared.key("two")
        async with everywhere(running) as all_three:
            await all_three.knows(key)
            assert await all_three.statuses(key, body("new")) == [404] * 3
            assert await all_three.statuses(key, body("main")) == [200, 200, 429]
            changed = text.replace("requests = 2,", "requests = 8,")
            changed = changed.replace('api_key = "main"', 'api_key = "other"')
            path.write_text(changed + '[[model]]\nid = "new"\nroutes = [{ upstream = "main", '
                            'model = "claude-sonnet-4-7" }]\n')  # fmt: skip
            running.signal(signal.SIGHUP)

            async def knows_new() -> bool:
                listed = await all_three.ask(key, b"", method="GET", target="/v1/models")
                return all(b'"new"' in one.payload for one in listed)

            async with asyncio.timeout(5):
                while not await knows_new():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.02)
            await shared.forget()
            assert await all_three.statuses(key, body("new")) == [200] * 3
            assert await shared.reached() == ["other"] * 3
            assert await all_three.statuses(key, body("main")) == [200] * 3
            assert await all_three.statuses(key, body("main")) == [429] * 3

            # A file that cannot be used changes nothing, anywhere.
            for broken in (text + "broken =", text.replace('id = "open"', 'id = "open"\nx = 1')):
                path.write_text(broken)
                done = relay(tmp_path, "reload")
                assert done.returncode != 0
                assert await knows_new()
            assert (
                await all_three.statuses(await shared_key(shared, text), body("new")) == [200] * 3
            )


async def shared_key(shared: Shared, text: str) -> str:
    """A key of a plan without limits, in force everywhere; `text` is a relay.toml in order."""
    (shared.folder / "relay.toml").write_text(text)
    key = await shared.key()
    await in_force(shared.running, [key])
    return key


# --- the end ---


async def test_sigterm_lets_the_streams_of_all_finish(several: tuple[Path, str]) -> None:
    folder, key = several
    with serving(folder) as running:
        workers = workers_of(running)
        async with everywhere(running) as all_three:
            await begin_streams(all_three, key, "x-simulate: tokens=10;pace=10\r\n")
            running.signal()
            for rest in await together(*(one.rest() for one in all_three.callers)):
                assert b"message_stop" in rest
            assert await running.exited(10) == 0
    assert not any(map(is_alive, workers))
    assert [line["outcome"] for line in running.log() if line.get("model")] == ["whole"] * 3
    with opened(folder) as connection:
        rules = [row["rule"] for row in connection.execute("SELECT rule FROM usage")]
    assert rules == ["reported"] * 3


async def test_a_second_sigterm_reports_what_it_cuts(several: tuple[Path, str]) -> None:
    folder, key = several
    with serving(folder) as running:
        workers = workers_of(running)
        async with everywhere(running) as all_three:
            await begin_streams(all_three, key, FOREVER)
            running.signal()
            await asyncio.sleep(0.2)
            running.signal()
            assert await running.exited(5) == 0
        assert "gone with" not in error_log(running)
    assert not any(map(is_alive, workers))
    outcomes = [line["outcome"] for line in running.log() if line.get("model")]
    assert len(outcomes) == 3
    assert len(set(outcomes)) == 1  # the same from each process
    with opened(folder) as connection:
        rules = {row["rule"] for row in connection.execute("SELECT rule FROM usage")}
    assert len(rules) == 1


# --- a worker that is stuck ---


async def test_a_stuck_worker_is_replaced(
    several: tuple[Path, str], record_property: RecordProperty
) -> None:
    folder, _ = several
    path = folder / "relay.toml"
    path.write_text(path.read_text() + PLANS)
    with serving(folder, program=IMPATIENT) as running:
        [key, other] = new_keys(folder, "forty", 2)
        await in_force(running, [key, other])
        before = workers_of(running)
        async with everywhere(running) as all_three:
            first, stuck, third = all_three.callers
            for _ in range(6):  # it has slots ahead of need
                assert (await stuck.ask(key)).status == 200
            os.kill(stuck.pid, signal.SIGSTOP)
            stopped = time.monotonic()
            admitted, slowest = 6, 0.0
            for _ in range(40):
                started = time.monotonic()
                admitted += (await first.ask(key)).status == 200
                slowest = max(slowest, time.monotonic() - started)
            assert admitted <= 40
            assert slowest < 2  # the answer of a worker that is stuck is awaited once
            assert (await third.ask(other)).status == 200
            await until(lambda: len(set(workers_of(running)) - set(before)) == 1, within=15)
            replaced = time.monotonic() - stopped
            assert not is_alive(stuck.pid)
        async with everywhere(running) as all_three:
            await all_three.knows(other)
            for _ in range(40 - admitted):  # what it held has come back
                assert (await all_three.callers[0].ask(key)).status == 200
            assert await all_three.statuses(key) == [429] * 3
    record_property("figure", f"replaced {replaced:.1f} s after it stopped, with 3 s of patience")


async def test_a_worker_that_cannot_start_is_tried_again(several: tuple[Path, str]) -> None:
    folder, key = several
    with serving(folder, program=SHORT_OF_FILES) as running:
        before = workers_of(running)
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: len(set(workers_of(running)) - set(before)) == 1)
        async with everywhere(running) as all_three:
            assert await all_three.statuses(key) == [200] * 3
        running.signal()
        assert await running.exited(10) == 0
        assert "cannot be started; another try follows" in error_log(running)
