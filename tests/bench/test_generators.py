"""A load generator of another maker has figures only where every request was right."""

import orjson
import pytest

from bench import h2load, oha
from bench.loadgen import LoadError
from bench.pacing import RateMissedError
from bench.programs import missing, program

_H2LOAD = (
    b"finished in 2.00s, 1.50 req/s, 450B/s\n"
    b"requests: 3 total, 4 started, 3 done, 3 succeeded, %d failed, 0 errored, 0 timeout\n"
    b"status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx\n"
    b"traffic: 1KB (900) total, 1B (200) headers (space savings 48.57%%), 1KB (600) data\n"
)
_LOG = b"1795966448382304\t200\t485\n1795966448382305\t200\t300\n1795966448382306\t%d\t504\n"


def _oha(statuses: dict[str, int], errors: dict[str, int], size: int = 200) -> bytes:
    percentiles = {"p50": 0.0001, "p99": 0.0005}
    return orjson.dumps(
        {
            "summary": {"total": 2.0, "sizePerRequest": size},
            "latencyPercentiles": percentiles,
            "firstBytePercentiles": percentiles,
            "statusCodeDistribution": statuses,
            "errorDistribution": errors,
        }
    )


def test_the_figures_of_oha_are_those_it_printed() -> None:
    report = oha.read_report(_oha({"200": 1999}, {}), 1000, 2, 200)
    assert (report.requests, report.p50_us, report.first_p99_us) == (1999, 100.0, 500.0)


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
        oha.read_report(printed, 1000, 2, 200)


def test_a_run_of_oha_that_missed_its_rate_is_refused() -> None:
    with pytest.raises(RateMissedError):
        oha.read_report(_oha({"200": 1900}, {}), 1000, 2, 200)


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


def test_a_missing_generator_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    assert program("oha") is None
    assert missing(("oha",)) == [
        "oha is not installed (cargo install oha --locked): clients in Python stand in for it."
    ]
