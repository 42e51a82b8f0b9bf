"""At three times the load that it can serve, the relay serves as much as at its best."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.durability.process import data, relay, serving, write_settings
from tests.fakes.caller import BODY, request
from tests.scoreboard import RecordProperty

ROOT = Path(__file__).parents[2]


@dataclass
class Load:
    """One measurement: streams that came complete, and what was shed, with its times."""

    complete: int = 0
    shed: list[float] = field(default_factory=list)
    without_retry: int = 0
    broken: int = 0


@contextlib.contextmanager
def streaming_upstream() -> Iterator[int]:
    """Runs the upstream; yields its port."""
    command = [sys.executable, "-m", "tests.attacks.streaming_upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def caller(port: int, octets: bytes, until: float, load: Load) -> None:
    """Ask again and again; a refusal is followed by a short pause, not by what it asks for."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            load.broken += 1
            await asyncio.sleep(0.05)
            continue
        try:
            while time.monotonic() < until:
                began = time.monotonic()
                writer.write(octets)
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 503"):
                    load.shed.append(time.monotonic() - began)
                    load.without_retry += b"retry-after" not in head
                    length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                    await reader.readexactly(int(length))
                    await asyncio.sleep(0.2)
                else:
                    await reader.readuntil(b"\r\n0\r\n\r\n")
                    load.complete += 1
        except (OSError, asyncio.IncompleteReadError):
            load.broken += 1
        finally:
            writer.transport.abort()


async def offered(port: int, octets: bytes, callers: int, seconds: float) -> Load:
    load = Load()
    until = time.monotonic() + seconds
    async with asyncio.timeout(seconds + 10):
        await asyncio.gather(*(caller(port, octets, until, load) for _ in range(callers)))
    return load


@pytest.mark.alone
@pytest.mark.parametrize(
    ("seconds", "goodput", "p99"),
    [
        pytest.param(2.0, 0.6, 0.5, id="short"),  # beside other work of the machine
        pytest.param(30.0, 0.9, 0.05, marks=pytest.mark.long, id="30s"),
    ],
)
async def test_three_times_the_load_costs_no_goodput(
    tmp_path: Path, seconds: float, goodput: float, p99: float, record_property: RecordProperty
) -> None:
    cap = 24
    with streaming_upstream() as upstream_port:
        write_settings(tmp_path, f"http://127.0.0.1:{upstream_port}")
        settings = (tmp_path / "relay.toml").read_text()
        limits = f"[server]\nlimits = {{ in_flight = {cap} }}\n"
        (tmp_path / "relay.toml").write_text(settings.replace("[server]\n", limits, 1))
        await asyncio.to_thread(relay, tmp_path, "user", "create", "ada@example.com")
        made = await asyncio.to_thread(data, tmp_path, "key", "create", "--user", "ada@example.com")
        octets = request(made["key"], {**BODY, "stream": True})
        with serving(tmp_path) as running:
            await offered(running.port, octets, cap, 0.5)
            peak = await offered(running.port, octets, cap, seconds)
            over = await offered(running.port, octets, 3 * cap, seconds)
            after = await offered(running.port, octets, cap, 0.5)
            running.signal()
            assert await running.exited(within=6) == 0
        own = [line["us"] / 1e6 for line in running.log() if line["status"] == 503]
    shown = json.dumps(
        {
            "peak": peak.complete / seconds,
            "over": over.complete / seconds,
            "shed": len(over.shed),
            "shed_p99_ms": statistics.quantiles(over.shed, n=100)[98] * 1000,
            "shed_own_p99_ms": statistics.quantiles(own, n=100)[98] * 1000,
            "cores": os.cpu_count(),
        }
    )
    record_property("figure", f"goodput {over.complete / peak.complete:.0%} of peak")
    assert over.complete >= goodput * peak.complete, shown
    assert over.without_retry == over.broken == peak.broken == after.broken == 0, shown
    assert statistics.quantiles(over.shed, n=100)[98] <= 2 * p99, shown  # the callers' time, too
    assert statistics.quantiles(own, n=100)[98] <= p99, shown
    assert after.shed == []
