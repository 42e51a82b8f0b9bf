"""A storm of log-ins beside streams: relay, upstream and attackers in processes of their own."""

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.relay_process import relay_process
from tests.durability.process import Running, data, serving, write_settings
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import upstream_row
from tests.web.visitor import PASSWORD

EMAIL = "grace@example.com"
STREAMS, PACE, SECONDS, PER_SECOND = 20, 50, 2, 50
MOST_MORE = 0.010  # of the p99 of gaps, in seconds
WEB = "\n[web]\nlog_ins_per_account = 100000\nlog_ins_per_address = 100000\n"
# Half of them have the right password. Ends with its input, and prints the number of each status.
STORM = """
import collections, json, socket, sys, threading, time
port, rate, email, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
statuses, over = collections.Counter(), threading.Event()
def log_in(number):
    who = email if number % 2 else f"a{number}@example.com"
    body = f"email={who}&password={password}".replace(" ", "+")
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(
            f"POST /login HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n"
            "content-type: application/x-www-form-urlencoded\\r\\nsec-fetch-site: same-origin\\r\\n"
            f"content-length: {len(body)}\\r\\n\\r\\n{body}".encode()
        )
        octets = b""
        while part := peer.recv(65536):
            octets += part
    statuses[octets.split()[1].decode()] += 1
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
number, due = 0, time.monotonic()
while not number or not over.is_set():
    last = threading.Thread(target=log_in, args=(number,), daemon=True)
    last.start()
    number, due = number + 1, due + 1 / rate
    over.wait(max(0, due - time.monotonic()))
last.join(5)
print(json.dumps({"sent": number, **statuses}))
"""


async def gaps(port: int, key: str) -> list[float]:
    """The gaps between the octets of some streams that come at once, in seconds."""
    events = f"x-simulate: tokens={PACE * SECONDS};pace={PACE}\r\n"

    async def one() -> list[float]:
        moments = []
        async with connected(port, wait=30) as (reader, writer):
            writer.write(request(key, {**BODY, "stream": True, "max_tokens": 4096}, fields=events))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            while b"message_stop" not in (octets := await reader.read(65536)):
                assert octets
                moments.append(time.perf_counter())
        return [later - before for before, later in itertools.pairwise(moments)]

    found = await asyncio.gather(*(one() for _ in range(STREAMS)))
    return list(itertools.chain.from_iterable(found))


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


def prepared(folder: Path, upstream: str) -> str:
    """A key of somebody who has a password."""
    write_settings(folder, upstream)
    path = folder / "relay.toml"
    path.write_text(path.read_text() + WEB)
    made = subprocess.run(
        [sys.executable, "-m", "relay", "user", "create", EMAIL, "--password-stdin"],
        cwd=folder, input=PASSWORD, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return str(data(folder, "key", "create", "--user", EMAIL)["key"])


def log_in_once(running: Running) -> None:
    """Load the pages and the hasher."""
    arguments = [sys.executable, "-c", STORM, str(running.port), "1", EMAIL, PASSWORD]
    done = subprocess.run(arguments, input="", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["sent"] >= 1


@pytest.mark.long
@pytest.mark.alone
async def test_a_storm_of_log_ins_leaves_streams_alone(
    tmp_path: Path, record_property: Any
) -> None:
    """50 log-ins a second: the p99 of the gaps between a stream's events grows by 10 ms at most."""
    with serving(tmp_path, ("simulate", "--port", "0")) as simulator:
        key = prepared(tmp_path, f"http://127.0.0.1:{simulator.port}")
        with serving(tmp_path) as running:
            log_in_once(running)
            await asyncio.sleep(1)
            quiet = p99(await gaps(running.port, key))
            storm = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", STORM, str(running.port), str(PER_SECOND), EMAIL, PASSWORD],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            await asyncio.sleep(1)
            busy = p99(await gaps(running.port, key))
            answered = json.loads(storm.communicate()[0])
            await asyncio.sleep(1)  # what waited for its hash is through
            quiet = max(quiet, p99(await gaps(running.port, key)))  # others may use the machine
    figure = f"p99 {quiet * 1000:.1f} → {busy * 1000:.1f} ms; {answered}"
    print(figure)
    record_property("figure", figure)
    assert answered["sent"] > PER_SECOND * SECONDS
    assert answered["303"] + answered["401"] > 0
    assert busy - quiet <= MOST_MORE


@pytest.mark.alone
async def test_a_storm_of_log_ins_takes_short_turns(record_property: Any) -> None:
    """The loop's longest turn, in CPU time, which others on the machine do not change."""
    web = {"log_ins_per_account": 100_000, "log_ins_per_address": 100_000}
    upstreams = [upstream_row("main", "http://127.0.0.1:9")]
    with relay_process(upstreams, web=web) as running:
        arguments = [sys.executable, "-c", STORM, str(running.port)]
        for rate in (1, PER_SECOND):
            process = subprocess.Popen(  # noqa: ASYNC220
                [*arguments, str(rate), EMAIL, PASSWORD],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            await asyncio.sleep(SECONDS)
            answered = json.loads(process.communicate()[0])
            longest = running.longest_turn()
    figure = f"longest turn {longest * 1000:.1f} ms; {answered}"
    print(figure)
    record_property("figure", figure)
    assert answered["401"] > 0
    assert longest <= MOST_MORE
