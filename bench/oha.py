"""oha as the clients of an open loop: requests that start at a constant rate, whatever happens.

Decides how oha is run and when its figures are refused: one failed request, fewer answers than
the rate demands, or answers of another size than the checked one. A request's time counts from
when it was due (`--latency-correction`), so a proxy that stalls is charged for every request that
it delayed. Answers that are missing when the time is up are waited for (`-w`): a stall at the end
counts as well. oha wakes up once in a millisecond and sends what has become due. Must not know
which proxy answers, nor read /proc.
"""

from pathlib import Path

import msgspec

from bench.dialects import HOST
from bench.loadgen import LoadError
from bench.pacing import LEAST, RateMissedError
from bench.programs import printed, program, taken_apart

_SPARE_S = 20.0
_DIGITS = 64  # as of wrk: answers vary by some digits


class _Summary(msgspec.Struct, frozen=True):
    total: float
    sizePerRequest: float  # noqa: N815 - named by oha


class _Percentiles(msgspec.Struct, frozen=True):
    p50: float | None
    p99: float | None


class _Output(msgspec.Struct, frozen=True):
    """The members of oha's output that are read; times in seconds."""

    summary: _Summary
    latencyPercentiles: _Percentiles  # noqa: N815
    firstBytePercentiles: _Percentiles  # noqa: N815
    statusCodeDistribution: dict[str, int]  # noqa: N815
    errorDistribution: dict[str, int]  # noqa: N815


class Report(msgspec.Struct, frozen=True):
    """The figures of oha, in microseconds: complete answers, and their first octets."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    first_p50_us: float
    first_p99_us: float


class Oha:
    """One request, sent by oha at a constant rate; `answer` is the length of a checked body, or 0
    for answers whose length varies."""

    def __init__(self, folder: Path, port: int, payload: bytes, answer: int) -> None:
        path, self._fields, body = taken_apart(payload)
        self._body = folder / "oha.body"
        self._body.write_bytes(body)
        self._url = f"http://{HOST}:{port}{path}"
        self._answer = answer

    async def run(self, rate: float, connections: int, seconds: float) -> Report:
        """Send for so long.

        Raises:
            RateMissedError: there were fewer answers than the rate demands.
            LoadError: an answer was wrong.
        """
        found = program("oha")
        assert found is not None
        argv = [
            *(found, "--no-tui", "--output-format", "json", "--latency-correction", "-w"),
            *("-z", f"{round(seconds * 1000)}ms", "-q", f"{rate:.0f}", "-c", str(connections)),
            *("--disable-compression", "--worker-threads", "1"),
            *("-m", "POST", "-D", str(self._body), *self._fields, self._url),
        ]
        return read_report(await printed(argv, seconds + _SPARE_S), rate, seconds, self._answer)


def read_report(output: bytes, rate: float, seconds: float, answer: int) -> Report:
    """The figures of oha's JSON; raises as `Oha.run`."""
    try:
        read = msgspec.json.decode(output, type=_Output)
    except msgspec.DecodeError as error:
        said = output.decode(errors="replace")[-600:]
        raise LoadError(f"oha printed something else ({error}): {said}") from None
    requests = read.statusCodeDistribution.get("200", 0)
    others = {code: n for code, n in read.statusCodeDistribution.items() if code != "200"}
    if read.errorDistribution or others:
        raise LoadError(f"requests failed: {read.errorDistribution | others}")
    if requests < LEAST * rate * seconds:
        raise RateMissedError(f"{requests} answers came in {seconds:g} s at {rate:g}/s")
    if answer and abs(read.summary.sizePerRequest - answer) > _DIGITS:
        raise LoadError(
            f"answers had {read.summary.sizePerRequest:.0f} octets on average, "
            f"the checked one {answer}"
        )
    latency, first = read.latencyPercentiles, read.firstBytePercentiles
    return Report(
        requests, read.summary.total,
        *((one or 0.0) * 1e6 for one in (latency.p50, latency.p99, first.p50, first.p99)),
    )  # fmt: skip
