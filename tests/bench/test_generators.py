"""A load generator of another maker has figures only where every request was right."""

import asyncio
from math import inf
from pathlib import Path

import orjson
import pytest

from bench import h2load, oha
from bench.loadgen import LoadError
from bench.pacing import RateMissedError
from bench.programs import missing, program
from bench.scenarios import generators
from tests.fakes.listening import listening

_H2LOAD = (
    b"finished in 2.00s, 1.50 req/s, 450B/s\n"
    b"requests: 3 total, 4 started, 3 done, 3 succeeded, %d failed, 0 errored, 0 timeout\n"
    b"status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx\n"
    b"traffic: 1KB (900) total, 1B (200) headers (space savings 48.57%%), 1KB (600) data\n"
)
_LOG = b"1795966448382304\t200\t485\n1795966448382305\t200\t300\n1795966448382306\t%d\t504\n"


def _oha(statuses: dict[str, int], errors: dict[str, int], size: int = 200) -> bytes:
    return orjson.dumps(
        {
            "summary": {"sizePerRequest": size},
            "statusCodeDistribution": statuses,
            "errorDistribution": errors,
        }
    )


def test_the_answers_of_oha_are_those_it_printed() -> None:
    assert oha.read_requests(_oha({"200": 1999}, {}), 2000, 200) == 1999


def test_a_request_that_was_never_sent_is_the_slowest() -> None:
    times = [0.0001] * 990
    assert oha.percentiles(times, 990) == (100.0, 100.0)
    assert oha.percentiles(times, 1000) == (100.0, inf)


async def test_connecting_is_no_part_of_the_times_of_oha(tmp_path: Path) -> None:
    if program("oha") is None:
        pytest.skip("oha is not installed")
    late = 0.3  # seconds of the first answer of a connection

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        await asyncio.sleep(late)
        while True:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await reader.readuntil(b"{}")

    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    async with listening(serve) as port:
        report = await oha.Oha(tmp_path, port, request, 2).run(100, 8, 1.0, 1.0)
    assert 190 <= report.requests <= 201
    assert report.p50_us < late * 1e6


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (_oha({"200": 1999, "429": 1}, {}), "429"),
        (_oha({"200": 2000}, {"connection closed before message completed": 1}), "closed"),
        (_oha({"200": 1999}, {"aborted due to deadline": 1}), "aborted"),
        (_oha({"200": 2000}, {}, 900), "900 octets"),
        (b"error: no", "something else"),
    ],
)
def test_a_run_of_oha_with_a_failure_is_refused(printed: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        oha.read_requests(printed, 2000, 200)


def test_a_run_of_oha_that_missed_its_rate_is_refused() -> None:
    with pytest.raises(RateMissedError):
        oha.read_requests(_oha({"200": 1900}, {}), 2000, 200)


def test_the_percentiles_of_h2load_come_from_its_log() -> None:
    report = h2load.read_report(_H2LOAD % 0, _LOG % 200, 200)
    assert (report.requests, report.octets, report.p50_us, report.p99_us) == (3, 600, 485, 504)
    assert report.requests_s == 1.5


@pytest.mark.parametrize(
    ("printed", "log", "answer", "message"),
    [
        (_H2LOAD % 1, _LOG % 200, 200, "1 requests failed"),
        (_H2LOAD % 0, _LOG % 503, 200, "status 503"),
        (_H2LOAD % 0, _LOG % 200, 900, "200 octets on average"),
        (b"could not connect", b"", 200, "could not connect"),
    ],
)
def test_a_run_of_h2load_with_a_failure_is_refused(
    printed: bytes, log: bytes, answer: int, message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        h2load.read_report(printed, log, answer)


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (("sse", "memory", "latency", "starts"), []),
        (("json",), ["wrk"]),
        (("rate",), ["wrk", "oha"]),
        (("tls-http2-json",), ["h2load"]),
        (("curve-streams",), []),
        (("curve-body",), ["wrk"]),
    ],
)
def test_a_generator_is_named_only_where_it_is_used(
    names: tuple[str, ...], used: list[str]
) -> None:
    assert generators(names) == used


def test_a_missing_generator_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    assert program("oha") is None
    assert missing(("oha",)) == [
        "oha is not installed (cargo install oha --locked): clients in Python stand in for it."
    ]
