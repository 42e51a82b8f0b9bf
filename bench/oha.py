"""oha as the clients of an open loop: requests that start at a constant rate, whatever happens.

Decides how oha is run and when its figures are refused: one failed request, fewer answers than
the rate demands, or answers of another size than the checked one. A request's time counts from
when it was due (`--latency-correction`), so a proxy that stalls is charged for every request that
it delayed. oha connects while it sends, so the first moments are a warm-up that does not count.
Answers that are missing when the time is up are waited for (`-w`): a stall at the end counts as
well. oha wakes up once in a millisecond and sends what has become due. Must not know which proxy
answers, nor read /proc.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from math import inf
from pathlib import Path

import msgspec

from bench.dialects import HOST
from bench.loadgen import LoadError
from bench.pacing import LEAST, RateMissedError
from bench.programs import printed, program, taken_apart

_SPARE_S = 20.0
_DIGITS = 64  # as of wrk: answers vary by some digits
# Seconds from when a request was due to its answer, of those that were due late enough.
_TIMES = """
SELECT end - coalesce(start_latency_correction, start) FROM oha
WHERE coalesce(start_latency_correction, start) >= ? ORDER BY 1
"""


class _Summary(msgspec.Struct, frozen=True):
    sizePerRequest: float  # noqa: N815 - named by oha


class _Output(msgspec.Struct, frozen=True):
    """The members of oha's output that are read; times in seconds."""

    summary: _Summary
    statusCodeDistribution: dict[str, int]  # noqa: N815
    errorDistribution: dict[str, int]  # noqa: N815


class Report(msgspec.Struct, frozen=True):
    """The figures of oha: all answers, and the times in microseconds after the warm-up."""

    requests: int
    p50_us: float
    p99_us: float


class Oha:
    """One request, sent by oha at a constant rate; `answer` is the length of a checked body."""

    def __init__(self, folder: Path, port: int, payload: bytes, answer: int) -> None:
        path, self._fields, body = taken_apart(payload)
        self._body = folder / "oha.body"
        self._body.write_bytes(body)
        self._times = folder / "oha.db"
        self._url = f"http://{HOST}:{port}{path}"
        self._answer = answer

    async def run(self, rate: float, connections: int, warm: float, seconds: float) -> Report:
        """Send for so long. Connections are opened in the warm-up, whose times are no figure.

        Raises:
            RateMissedError: there were fewer answers than the rate demands.
            LoadError: an answer was wrong.
        """
        found = program("oha")
        assert found is not None
        self._times.unlink(missing_ok=True)
        argv = [
            *(found, "--no-tui", "--output-format", "json", "--latency-correction", "-w"),
            *(
                "-z",
                f"{round((warm + seconds) * 1000)}ms",
                "-q",
                f"{rate:.0f}",
                "-c",
                str(connections),
            ),
            *("--disable-compression", "--worker-threads", "1", "--db-url", str(self._times)),
            *("-m", "POST", "-D", str(self._body), *self._fields, self._url),
        ]
        output = await printed(argv, warm + seconds + _SPARE_S)
        requests = read_requests(output, rate * (warm + seconds), self._answer)
        with closing(sqlite3.connect(self._times)) as database:
            times = [float(time) for (time,) in database.execute(_TIMES, (warm,))]
        return Report(requests, *percentiles(times, round(rate * seconds)))


def read_requests(output: bytes, wanted: float, answer: int) -> int:
    """The number of answers by oha's JSON; raises as `Oha.run`."""
    try:
        read = msgspec.json.decode(output, type=_Output)
    except msgspec.DecodeError as error:
        said = output.decode(errors="replace")[-600:]
        raise LoadError(f"oha printed something else ({error}): {said}") from None
    requests = read.statusCodeDistribution.get("200", 0)
    others = {code: n for code, n in read.statusCodeDistribution.items() if code != "200"}
    if read.errorDistribution or others:
        raise LoadError(f"requests failed: {read.errorDistribution | others}")
    if requests < LEAST * wanted:
        raise RateMissedError(f"{requests} answers came instead of {wanted:.0f}")
    if abs(read.summary.sizePerRequest - answer) > _DIGITS:
        raise LoadError(
            f"answers had {read.summary.sizePerRequest:.0f} octets on average, "
            f"the checked one {answer}"
        )
    return requests


def percentiles(times: Sequence[float], wanted: int) -> tuple[float, float]:
    """p50 and p99 in microseconds. A request that was due and never sent took for ever."""
    ordered = [*sorted(times), *([inf] * (wanted - len(times)))]
    if not ordered:
        return inf, inf
    middle, tail = (ordered[min(len(ordered) - 1, int(it * len(ordered)))] for it in (0.5, 0.99))
    return middle * 1e6, tail * 1e6
