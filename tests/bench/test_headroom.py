"""A round in which the clients were the limit says nothing of a proxy, and is refused."""

import asyncio
import time
from pathlib import Path

import orjson
import pytest

from bench.headroom import (
    LimitedError,
    check,
    check_core,
    check_outlived,
    check_pace,
    refusal,
)
from bench.loadgen import JsonLoad
from bench.pacing import Pace
from tests.fakes.listening import listening

from .runs import bench

_ANSWER = b'{"type":"message","content":[]}'
_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_FULL = {"share": 0.6, "others": 0.1, "load_share": 0.97, "full_load": 0.99}


def test_a_full_core_of_the_load_is_refused() -> None:
    with pytest.raises(LimitedError, match="used 97 % of their core, the proxy 60 % of its own"):
        check(_FULL, busy=True)


def test_a_busy_proxy_may_be_the_limit_beside_a_full_load() -> None:
    check(_FULL | {"share": 0.9}, busy=True)
    with pytest.raises(LimitedError):
        check(_FULL | {"share": 0.9}, busy=False)


def test_a_load_with_headroom_is_not_refused() -> None:
    check(_FULL | {"full_load": 0.9}, busy=True)
    check(_FULL | {"full_load": 0.9}, busy=False)


def test_a_small_load_is_not_the_limit_of_a_full_core() -> None:
    check(_FULL | {"load_share": 0.1}, busy=False)


def test_streams_slower_than_their_pace_are_refused() -> None:
    figures = _FULL | {"events_s": 800.0}
    check_pace(figures, 850.0)
    check_pace(figures | {"share": 0.9}, 1_000.0)
    with pytest.raises(LimitedError, match="800 of 1,000 events a second came"):
        check_pace(figures, 1_000.0)


def test_a_load_that_waits_for_other_processes_is_refused() -> None:
    with pytest.raises(LimitedError, match="other processes 59 %"):
        check(_FULL | {"load_share": 0.4}, busy=False)


def test_a_refused_round_keeps_only_what_says_why() -> None:
    with pytest.raises(LimitedError) as refused:
        check(_FULL | {"requests_s": 9.0}, busy=True)
    figures = {**refused.value.figures, "limited": 2.0}
    assert "requests_s" not in figures
    assert refusal(figures) == f"{refused.value}"
    assert not refusal({"requests_s": 9.0})


def test_a_proxy_whose_core_others_use_is_refused() -> None:
    check_core(_FULL | {"others": 0.5}, 0.5)
    with pytest.raises(LimitedError, match="other processes used 62 % of the proxy's core") as one:
        check_core(_FULL | {"others": 0.62}, 0.5)
    assert refusal({**one.value.figures, "limited": 2.0}) == str(one.value)


def test_streams_that_ended_too_early_are_the_fault_of_the_load() -> None:
    check_outlived(0, "the window was over")
    with pytest.raises(LimitedError, match="3 streams came to their end before the window") as one:
        check_outlived(3, "the window was over")
    assert "the load was late" in refusal({**one.value.figures, "limited": 2.0})


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(_JSON)


async def test_a_generator_that_is_late_by_itself_is_refused() -> None:
    def burn() -> None:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        loop.call_later(0.001, burn)

    loop = asyncio.get_running_loop()
    async with listening(_serve) as port:
        load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n")
        pace = Pace(load, 50.0)
        await load.open(50)
        burn()
        with pace.running(), pytest.raises(LimitedError, match="late"):
            await pace.window(1.0)
        load.close()


@pytest.mark.alone
def test_a_saturated_generator_is_refused_in_a_run(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    # 400,000 events a second are several times as many as the clients can read.
    flood = ("--only", "sse", "--rival", "relay", "--streams", "400", "--pace", "1000")
    done = bench("--rounds", "1", "--seconds", "1", *flood, "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the clients and the upstream used" in done.stdout
    (round_,) = orjson.loads(figures.read_bytes())["rounds"]["sse"]["relay"]
    assert round_["limited"] == 2
    assert "events_s" not in round_
    assert "cpu_us" not in round_
