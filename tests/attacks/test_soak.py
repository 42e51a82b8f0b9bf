"""Hours of mixed traffic leave nothing behind: memory stays, and all that was taken comes back.

A run of ten minutes: `python -m pytest -m long tests/attacks/test_soak.py`; SOAK_SECONDS has
another length, SOAK_SEED another order.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.attacks.relay_process import RelayProcess, relay_process
from tests.attacks.soak import Load
from tests.fakes.live import upstream_row
from tests.fakes.until import until
from tests.scoreboard import RecordProperty

CALLERS = 24
PER_SECOND = 100.0
WARM_UP = 0.25  # share of the run
SAMPLE_SECONDS = 0.5
MAX_GROWTH = 2**20  # octets
# Both upstreams' connections go soon after the last request.
OPTIONS = {"timeouts": {"idle": 1}}
PLAN = {
    "id": "free",
    "limits": [
        {"requests": 10_000_000, "per": "5h"},
        {"requests": 10_000_000, "per": "1m"},
        {"tokens": 1_000_000_000, "per": "1m"},
    ],
    "max_keys": 10,
}


@contextlib.contextmanager
def simulator_process() -> Iterator[str]:
    """The URL of a simulator whose work and memory are not the relay's."""
    command = [sys.executable, "-m", "relay", "simulate", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
        process.kill()


def growth(samples: list[tuple[float, int]]) -> float:
    """Octets by which a straight line through the samples rises from the first to the last."""
    times, values = [time for time, _ in samples], [value for _, value in samples]
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((one - mean_time) ** 2 for one in times)
    slope = sum((at - mean_time) * (value - mean) for at, value in samples) / spread
    return slope * (times[-1] - times[0])


async def sample(relay: RelayProcess, end: float) -> list[tuple[float, int]]:
    """The process's memory, again and again."""
    samples = []
    while time.monotonic() < end:
        samples.append((time.monotonic(), relay.memory()))
        await asyncio.sleep(SAMPLE_SECONDS)
    return samples


@pytest.mark.long
async def test_a_soak_leaves_memory_and_everything_held_as_it_was(
    record_property: RecordProperty,
) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", "600"))
    seed = int(os.environ.get("SOAK_SEED", "1"))
    with simulator_process() as url:
        rows = [upstream_row(name, url, OPTIONS) for name in ("one", "two")]
        with relay_process(rows, plan=[PLAN]) as relay:
            before = relay.held()
            end = time.monotonic() + seconds
            load = Load(relay.port, relay.key, end, CALLERS / PER_SECOND)
            warm = time.monotonic() + seconds * WARM_UP
            samples, _ = await asyncio.gather(sample(relay, end), load.run(CALLERS, seed))
            after = await settled(relay, before)
            failed = relay.failed()
    grown = growth([one for one in samples if one[0] > warm])
    results = load.results
    shown = f"{dict(results)}, grown by {grown / 2**20:.2f} MiB, {samples[-1][1] / 2**20:.0f} MiB"
    tenth = len(samples) // 10
    means = [sum(value for _, value in samples[n * tenth : (n + 1) * tenth]) for n in range(10)]
    print("MiB in each tenth:", " ".join(f"{mean / tenth / 2**20:.2f}" for mean in means))
    print(f"{shown}\nbefore {before}\nafter  {after}")
    record_property("figure", f"{results['requests']} requests, {grown / 2**20:+.2f} MiB")
    assert after == before, shown
    assert failed == 0
    assert [name for name in results if name.startswith("broken")] == []
    assert results["shed"] < results["requests"] * 0.01
    assert results["left"] > results["requests"] * 0.01
    assert results["complete"] > 0.85 * results["requests"]
    assert results["requests"] > 0.3 * PER_SECOND * seconds  # beside other work of the machine
    assert grown <= MAX_GROWTH, shown


async def settled(relay: RelayProcess, before: dict[str, int]) -> dict[str, int]:
    """What is held once it is what it was, or after half a minute."""
    held: dict[str, int] = {}

    def is_as_before() -> bool:
        held.update(relay.held())
        return held == before

    with contextlib.suppress(TimeoutError):  # the test shows the difference
        await until(is_as_before, within=30)
    return held
