"""Many streams, hand-overs, quota and agents are measured, and curves have a figure per size."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench import stage as stages
from bench.conversations import CONVERSATIONS, data
from bench.crowds import takes_http2
from bench.filling import fill_keys, fill_usage, key_of
from bench.handovers import handover_round
from bench.http import answer_of
from bench.loadgen import LoadError
from bench.process import BenchError, Cores, refusal
from bench.rivals.relay import PLAN, Relay
from bench.scale import CURVES
from bench.stage import Settings, Stage, UpstreamKind
from bench.stamps import StampedLoad, end, release, tick
from bench.upstreams import start_simulator, start_ticking
from tests.fakes.listening import listening

from .runs import bench

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DELTA = b'event: content_block_delta\ndata: {"text":"hi"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_OPENING = _HEAD + b"%x\r\n%b\r\n" % (len(_DELTA), _DELTA)
_ENDING = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_STOP), _STOP)
_REQUEST = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


def _rounds(path: Path, *arguments: str) -> dict[str, Any]:
    """The figures of the only round of each scenario, by rival."""
    done = bench("--rounds", "1", "--rival", "relay", "--json", str(path), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = {}
    for scenario, rivals in orjson.loads(path.read_bytes())["rounds"].items():
        found[scenario] = {name: rounds[0] for name, rounds in rivals.items()}
    return found


async def test_events_carry_the_time_at_which_they_were_sent(tmp_path: Path) -> None:
    process, port = start_ticking(tmp_path, 0, _OPENING, _ENDING)
    with process:
        load = StampedLoad(port, _REQUEST)
        load.since = 0
        await load.open(4)
        await tick(port, 0.01)
        while load.stamps < 4 * 20:
            await load.run(0.01)
        assert load.completed == 0  # until they are ended, however long that takes
        sent = await end(port)
        await load.ended(20.0, equal=False)
        load.close()
        assert load.stamps == sent >= 4 * 20
        assert sum(load.counts) == sent + 4 * 2
        assert len(load.gaps) == sent - 4
        # The sum of the differences is how much later the last event came than the first one.
        assert abs(sum(load.gaps)) < 4 * 2_000_000_000


async def test_an_event_held_back_beyond_the_window_counts() -> None:
    held = asyncio.Event()

    def event(sent: int) -> bytes:
        data = b'event: content_block_delta\ndata: {"text":"@%019d"}\n\n' % sent
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for sent in (100, 200):
            writer.write((_OPENING if sent == 100 else b"") + event(sent))
            await held.wait()
        writer.write(event(300) + _ENDING)
        await reader.read()

    async with listening(serve) as port:
        load = StampedLoad(port, _REQUEST)
        load.since = 0
        await load.open(1)
        while not load.stamps:
            await load.run(0.01)
        load.until = 300  # the second event was sent, and has not come
        held.set()
        await load.ended(20.0)
        load.close()
    assert len(load.gaps) == 1


async def test_silent_streams_end_when_they_are_released(tmp_path: Path) -> None:
    process, port = start_ticking(tmp_path, 0, _OPENING, _ENDING)
    with process:
        load = StampedLoad(port, _REQUEST)
        await load.open(30)
        while len(load.first_content) < 30:
            await load.run(0.01)
        assert load.completed == 0
        await release(port)
        await load.ended(20.0)
        load.close()
    assert load.counts == [2] * 30


def test_streams_beyond_the_descriptors_share_connections() -> None:
    assert not takes_http2(10)
    assert takes_http2(10_000_000)


@pytest.mark.thorough
def test_crowds_and_quota_have_figures_in_a_quick_run(tmp_path: Path) -> None:
    names = ("idle-streams", "idle-streams-10k", "live-streams", "gaps", "quota")
    only = [part for name in names for part in ("--only", name)]
    small = ("--seconds", "1", "--idle-streams", "60", "--live-streams", "60")
    found = _rounds(tmp_path / "figures.json", *only, *small)
    assert found["idle-streams"]["relay"]["streams"] == 60
    assert found["idle-streams-10k"]["relay"]["stream_kib"] < 500
    assert found["live-streams"]["relay"]["streams"] == 60
    assert found["live-streams"]["relay"]["events_s"] > 1
    assert {"direct", "relay"} == set(found["gaps"])
    assert "gap_p99_us" in found["gaps"]["relay"]
    quota = found["quota"]["relay"]
    assert (quota["admitted"], quota["turned_away"], quota["off_by"]) == (40, 960, 0)


@pytest.mark.long
def test_agents_and_hand_overs_have_figures(tmp_path: Path) -> None:
    only = ("--only", "agents", "--only", "handover", "--streams", "40", "--seconds", "1")
    found = _rounds(tmp_path / "figures.json", *only)
    agents, handover = found["agents"]["relay"], found["handover"]["relay"]
    assert (agents["failures"], agents["ledger_off"]) == (0, 0)
    assert agents["left"] > 0
    assert agents["turns"] > 100
    assert (handover["cut_streams"], handover["failed_requests"]) == (0, 0)
    assert handover["requests"] > 0


@pytest.mark.long
def test_tls_rates_and_starts_have_figures(tmp_path: Path) -> None:
    names = ("rate", "starts", "tls-json", "tls-http2-json", "tls-sse", "http2-json")
    only = [part for name in names for part in ("--only", name)]
    found = _rounds(tmp_path / "figures.json", *only, "--seconds", "1", "--streams", "20")
    assert found.keys() == set(names)
    for name in ("tls-json", "tls-http2-json", "tls-sse", "http2-json"):
        assert {"cpu_us", "limited"} & found[name]["relay"].keys()


@pytest.mark.long
def test_a_curve_has_figures_at_each_size(tmp_path: Path) -> None:
    found = _rounds(tmp_path / "figures.json", "--curves", "--largest", "100", "--seconds", "1")
    assert found.keys() == CURVES.keys()
    for name, curve in CURVES.items():
        sizes = {int(figure.partition("@")[2]) for figure in found[name]["relay"]}
        assert sizes == set(curve.up_to(100))


@pytest.mark.long
async def test_a_hand_over_that_fails_says_why(tmp_path: Path) -> None:
    simulator, port = start_simulator(tmp_path, Cores.choose().load)
    with simulator:
        relay = Relay(tmp_path / "relay", port)
        testbeds: dict[UpstreamKind, stages.Testbed] = {
            "simulator": stages.Testbed(simulator, port, [relay])
        }
        stage = Stage(Settings(streams=2), Cores.choose(), testbeds, lambda *round: None)
        process, _ = relay.start(stage.cores.proxy)
        with process:
            relay.config.unlink()  # so that no successor starts
            with pytest.raises(BenchError, match="no hand-over"):
                await handover_round(stage, relay, process)


async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(ignore) as port:
        with pytest.raises(LoadError, match="/page was not answered: TimeoutError"):
            await answer_of("127.0.0.1", port, "/page", within=0.05)


def test_keys_that_were_filled_in_are_accepted(tmp_path: Path) -> None:
    relay = Relay(tmp_path / "relay", 9)
    fill_keys(relay.database, 20, PLAN)
    process, _ = relay.start(0)
    with process:
        for number in (0, 19):
            asked = asyncio.run(_usage_of(relay.json_port, key_of(number)))
            assert asked.startswith(b"HTTP/1.1 200 ")
        assert asyncio.run(_usage_of(relay.json_port, key_of(20))).startswith(b"HTTP/1.1 401 ")


def test_usage_that_was_filled_in_is_summed_up(tmp_path: Path) -> None:
    relay = Relay(tmp_path / "relay", 9)
    fill_usage(relay.database, 2_000)
    with contextlib.closing(sqlite3.connect(relay.database)) as database:
        [(sums, users)] = database.execute(
            "SELECT sum(requests), count(DISTINCT user_id) FROM usage_sums"
        )
    assert (sums, users) == (2_000, 100)
    process, _ = relay.start(0)
    with process:
        assert not refusal(relay.json_port, "/readyz")
        assert " 2000 " in relay.run("usage", "--since", "31d", "--by", "model")


async def _usage_of(port: int, key: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/usage HTTP/1.1\r\nhost: a\r\nx-api-key: %b\r\n\r\n" % key.encode())
    start = await reader.readuntil(b"\r\n")
    writer.close()
    return start


_CHAT = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function",'
    b'"function":{"name":"exec_command","arguments":""}}]}}]}\n\n'
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}\n\n'
    b"data: [DONE]\n\n"
)


def test_a_tool_call_of_a_stream_is_in_the_next_request() -> None:
    talk = CONVERSATIONS["chat"]()
    talk.say("go")
    assert talk.take(_CHAT, "done")
    *_, call, result = orjson.loads(talk.body())["messages"]
    assert call["tool_calls"][0]["function"] == {"name": "exec_command", "arguments": "{}"}
    assert result == {"role": "tool", "tool_call_id": "a", "content": "done"}
    assert len(list(data(_CHAT))) == 3
