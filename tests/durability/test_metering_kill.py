"""kill -9 while requests are served: no answer that was received completely is lost."""

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.caller import BODY, connected, read_answer, read_head, request

from .metered import CREDIT_MICRO, LAST_CHUNK, LIMIT_REQUESTS, STREAM, bucket_state, opened
from .process import Running, serving

SCRIPTS = ["", "tokens=5", "tokens=40;pace=400", "delay=0.02", "tokens=30;split=7", "thinking=1"]
CALLERS = 24


@dataclass
class Seen:
    """The answers that the callers of one process received."""

    complete: list[str] = field(default_factory=list)  # ids of requests
    started: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)


async def one_caller(port: int, key: str, seen: Seen, dice: random.Random) -> None:
    """Send requests until the relay is gone."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        try:
            while True:
                script = dice.choice(SCRIPTS)
                fields = f"x-simulate: {script}\r\n" if script else ""
                body = STREAM if dice.random() < 0.5 else BODY
                writer.write(request(key, body, fields=fields))
                status, fields_received = await read_head(reader)
                number = fields_received[b"request-id"].decode()
                seen.started.add(number)
                if b"content-length" in fields_received:
                    await reader.readexactly(int(fields_received[b"content-length"]))
                else:
                    await reader.readuntil(LAST_CHUNK)
                if status == 200:
                    seen.complete.append(number)
                seen.statuses[status] += 1
        finally:
            writer.transport.abort()


async def left(port: int, key: str) -> int:
    """The requests that the plan has left; asking uses none."""
    async with connected(port) as (reader, writer):
        writer.write(request(key, b"", method="GET", target="/v1/models"))
        status, fields_received, _ = await read_answer(reader)
        assert status == 200
        return int(fields_received[b"x-ratelimit-remaining"])


async def killed_at_random(running: Running, key: str, dice: random.Random) -> Seen:
    """Load a relay, and kill it after a random moment."""
    seen = Seen()
    callers = [
        asyncio.create_task(one_caller(running.port, key, seen, random.Random(dice.random())))
        for _ in range(CALLERS)
    ]
    await asyncio.sleep(0.02 + dice.random() ** 2 * 0.5)
    os.kill(running.process.pid, signal.SIGKILL)
    await running.exited(2)
    async with asyncio.timeout(5):
        await asyncio.gather(*callers)
    return seen


def adds_up(folder: Path, seen: Seen) -> int:
    """Check the database of a relay that was killed and started again; returns the number of
    requests in it that count."""
    with opened(folder) as connection:
        [integrity] = connection.execute("PRAGMA integrity_check").fetchone()
        assert integrity == "ok"
        rows = {row["id"]: row for row in connection.execute("SELECT * FROM usage")}
        lost = [number for number in seen.complete if number not in rows]
        assert not lost, (
            f"{len(lost)} of {len(seen.complete)} answers that were received completely are lost"
        )
        assert not connection.execute("SELECT id FROM running").fetchall()
        assert {row["rule"] for row in rows.values()} <= {
            *("reported", "partial", "refunded", "crashed"),
        }
        bucket = bucket_state(connection, "requests", 18000)
        counted = [row for row in rows.values() if row["rule"] != "refunded"]
        assert bucket["used"] == len(counted)
        cost = sum(row["cost_micro"] for row in rows.values())
        [account] = connection.execute("SELECT * FROM balance")
        assert (account["credited"], account["charged"]) == (CREDIT_MICRO, cost)
        [[total]] = connection.execute("SELECT sum(amount_micro) FROM statement")
        assert total == account["micro"] == CREDIT_MICRO - cost
        return len(counted)


async def kill_again_and_again(folder: Path, key: str, rounds: int, seconds: float) -> None:
    """So many kills, or as many as fit into `seconds`, but 8 at least."""
    dice = random.Random()
    started = time.monotonic()
    ready, complete, crashed = [], 0, 0
    count = 0
    running: Running
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(folder))
        while count < rounds and (count < 8 or time.monotonic() - started < seconds):
            count += 1
            seen = await killed_at_random(running, key, dice)
            assert set(seen.statuses) <= {200}
            complete += len(seen.complete)
            running = stack.enter_context(serving(folder))
            assert running.said.startswith("relay"), running.said
            now_left = await left(running.port, key)
            ready.append(running.ready_after)
            counted = adds_up(folder, seen)
            assert now_left == LIMIT_REQUESTS - counted
            assert counted >= complete  # what was granted stays granted
            with opened(folder) as connection:
                [[crashed]] = connection.execute(
                    "SELECT count(*) FROM usage WHERE rule = 'crashed'"
                )
    print(
        f"{count} kills in {time.monotonic() - started:.1f} s: {complete} complete answers, "
        f"{crashed} requests interrupted; ready after {statistics.median(ready):.2f} s, "
        f"at worst {max(ready):.2f} s"
    )
    assert complete > 10 * count
    assert crashed
    is_quiet = os.getloadavg()[0] < (os.cpu_count() or 1)
    assert statistics.median(ready) < (1 if is_quiet else 3)  # a start takes a second of CPU time


async def test_a_kill_loses_no_answer_that_was_received_completely(
    metered: tuple[Path, str],
) -> None:
    await kill_again_and_again(*metered, rounds=4, seconds=8)


@pytest.mark.long
async def test_many_kills_lose_no_answer(metered: tuple[Path, str]) -> None:
    await kill_again_and_again(*metered, rounds=25, seconds=120)
