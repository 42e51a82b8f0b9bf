"""Random requests harm nobody: no 500, no stall of the loop, no growth, each error in its shape.

A run of half an hour: `FUZZ_SECONDS=1800 python -m pytest -m long tests/attacks/test_fuzz.py`.
Numbers that found a fault stay in `SEEDS`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest

from tests.attacks.grammar import Case, case
from tests.attacks.relay_process import RelayProcess, relay_process
from tests.fakes.caller import read_answer
from tests.fakes.live import running_simulator, upstream_row

SEEDS: list[int] = [1086, 1132, 1148, 1202, 1290, 3950]
STALL_SECONDS = 0.05  # of the loop's CPU time, so that other work of the machine does not count
GROWTH_OCTETS = 64 * 1024 * 1024


@pytest.fixture
async def watched() -> AsyncIterator[RelayProcess]:
    async with running_simulator() as (_, url):
        with relay_process([upstream_row("one", url)]) as relay:
            yield relay


async def run(relay: RelayProcess, one: Case) -> str:
    """Send a case; its result: the status, or `left`.

    Raises:
        AssertionError: the answer is none, or its error has another dialect's shape.
    """
    octets = one.octets(relay.key)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=2**26)
    try:
        if one.cut is not None:
            writer.write(octets[: int(len(octets) * one.cut)])
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return "left"
        writer.write(octets)
        async with asyncio.timeout(30):
            status, fields, payload = await read_answer(reader)
        check(one, status, fields, payload)
        return str(status)
    finally:
        writer.transport.abort()


def check(one: Case, status: int, fields: dict[bytes, bytes], payload: bytes) -> None:
    assert status in (200, 400, 404, 413, 415, 429), (status, payload[:300])
    assert b"request-id" in fields
    if status == 200:
        return
    assert fields[b"content-type"].startswith(b"application/json")
    error = json.loads(payload)["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    openai = one.dialect not in ("messages", "count_tokens")
    assert ("param" in error) == openai


async def fuzz(relay: RelayProcess, numbers: Iterable[int], seconds: float) -> Counter[str]:
    """Run cases for so long. Raises AssertionError with the number of each that found a fault."""
    results: Counter[str] = Counter()
    faults: list[str] = []
    end, number = time.monotonic() + seconds, -1
    for number in numbers:
        if time.monotonic() > end or len(faults) > 20:
            break
        one = case(number)
        shown = f"{number} ({one.dialect}, {len(one.body)} octets {one.encoding}): "
        relay.longest_turn()
        try:
            results[await run(relay, one)] += 1
            stall = relay.longest_turn()
            for _ in range(3):  # a stall that is the case's own comes again
                if stall > STALL_SECONDS:
                    await run(relay, one)
                    stall = min(stall, relay.longest_turn())
            if stall > STALL_SECONDS:
                faults.append(f"{shown}the loop stood still for {stall:.3f} s")
        except Exception as fault:
            faults.append(f"{shown}{type(fault).__name__} {fault}"[:400])
    print(f"{results.total()} requests {dict(results)}, {len(faults)} faults, up to {number}")
    assert not faults, "\n".join(faults)
    return results


async def test_seeds_and_random_requests_are_answered(watched: RelayProcess) -> None:
    results = await fuzz(watched, [*SEEDS, *range(60)], 60)
    assert results["200"] > 8
    assert results["400"] > 10


@pytest.mark.long
async def test_half_an_hour_of_random_requests(watched: RelayProcess) -> None:
    seconds = float(os.environ.get("FUZZ_SECONDS", "1800"))
    start = int(os.environ.get("FUZZ_START", "1000"))
    await fuzz(watched, range(start, start + 300), 60)
    before = watched.memory()
    results = await fuzz(watched, itertools.count(start + 300), seconds)
    grown = watched.memory() - before
    print(f"{results.total()} requests, grown by {grown / 2**20:.1f} MiB")
    assert grown < GROWTH_OCTETS
