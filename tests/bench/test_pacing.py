"""A window that missed its rate, or had one failure, is no figure."""

import asyncio

import pytest

from bench.first import FirstClient, stream_text
from bench.loadgen import JsonLoad, LoadError
from bench.pacing import Pace
from bench.wrk import read_report
from tests.fakes.listening import listening

_MESSAGE = b'{"type":"message","content":[]}'
_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_MESSAGE), _MESSAGE)
_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_DELTA = b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"hi"}}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_RATE = 100.0
_ANY_DELAY = 10**12  # of the clients, in nanoseconds


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_JSON)
    except asyncio.IncompleteReadError:
        writer.close()


def _stream(*events: bytes) -> bytes:
    return _HEAD + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in events) + b"0\r\n\r\n"


async def test_requests_come_at_the_rate() -> None:
    async with listening(_serve) as port:
        load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n")
        pace = Pace(load, _RATE)
        await load.open(4)
        before = load.completed
        with pace.running():
            while load.completed < before + 20:
                await load.run(0.05)
        await load.settled()
        load.close()
    assert load.completed >= before + 20


async def test_a_window_that_missed_its_rate_is_refused() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_JSON)
        await reader.read()
        writer.close()

    async with listening(answer_once) as port:
        load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n")
        pace = Pace(load, _RATE, _ANY_DELAY)
        await load.open(1)
        with pace.running(), pytest.raises(LoadError, match="instead of"):
            await pace.window(0.2)
        load.close()


@pytest.mark.alone
async def test_requests_that_are_late_at_the_end_are_counted() -> None:
    due: list[float] = []

    async def stall_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            due.append(0.0)
            if len(due) == 200:  # of some 440
                await asyncio.sleep(4.5)
            writer.write(_JSON)

    async with listening(stall_at_the_end) as port:
        load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n")
        pace = Pace(load, _RATE, _ANY_DELAY)
        await load.open(40)
        with pace.running():
            load.recording = True
            answers = await pace.window(4.0)
        load.close()
    assert answers == len(load.latencies) == len(due) - 40
    assert max(load.latencies) > 4_000_000_000


async def _first(answer: bytes) -> JsonLoad:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    async with listening(answers) as port:
        load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n", new_client=FirstClient)
        load.recording = True
        try:
            await load.open(1)
        finally:
            load.close()
    return load


async def test_the_first_event_of_a_complete_stream_is_timed() -> None:
    load = await _first(_stream(_DELTA, _STOP))
    assert (load.completed, len(load.latencies), stream_text(load)) == (1, 1, "hi")


@pytest.mark.parametrize(
    "answer",
    [_stream(_DELTA), _stream(_STOP), _stream(_DELTA, _STOP).replace(b"200", b"500")],
    ids=["no end", "no content", "status"],
)
async def test_a_wrong_stream_is_no_time(answer: bytes) -> None:
    with pytest.raises(LoadError, match="a stream is wrong"):
        await _first(answer)


_REPORT = (
    b'Running\n{"requests":10,"microseconds":1000000,"octets":%d,"failed":%d,"p50_us":5,"p99_us":9}'
)


def test_the_figures_of_wrk_are_those_it_printed() -> None:
    assert read_report(_REPORT % (2000, 0), 200).requests == 10


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (_REPORT % (2000, 1), "1 requests failed"),
        (_REPORT % (9000, 0), "900 octets on average"),
        (b"unable to connect", "unable to connect"),
    ],
)
def test_a_run_of_wrk_with_a_failure_is_refused(printed: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        read_report(printed, 200)
