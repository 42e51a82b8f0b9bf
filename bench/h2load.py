"""h2load as the clients of HTTP/2: a closed loop over few connections with many streams each.

Decides how h2load is run and when its figures are refused: one failed request. It prints no
percentiles, but writes a line for each request, from which they are computed. Must not know which
proxy answers, nor read /proc.
"""

import re
from array import array
from pathlib import Path

import msgspec

from bench.dialects import HOST
from bench.loadgen import LoadError, quantile
from bench.programs import printed, program, taken_apart

_SPARE_S = 30.0
_RATE = re.compile(rb"finished in \S+, ([\d.]+) req/s")
_COUNTS = re.compile(
    rb"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, "
    rb"(\d+) failed, (\d+) errored, (\d+) timeout"
)
_TRAFFIC = re.compile(rb"traffic: .*\((\d+)\) data")
_DIGITS = 64


class Report(msgspec.Struct, frozen=True):
    """The figures of h2load."""

    requests: int
    requests_s: float  # by its own clock, without its start
    octets: int  # of bodies
    p50_us: float
    p99_us: float


class H2load:
    """One request, sent by h2load on many streams as fast as it is answered.

    `answer` is the length of a checked body.
    """

    def __init__(
        self, folder: Path, port: int, payload: bytes, answer: int, *, secure: bool = False
    ) -> None:
        path, self._fields, body = taken_apart(payload)
        self._log = folder / "h2load.log"
        self._body = folder / "h2load.body"
        self._body.write_bytes(body)
        scheme = "https" if secure else "http"
        self._url = f"{scheme}://{HOST}:{port}{path}"
        self._answer = answer

    async def run(self, connections: int, streams: int, seconds: float) -> bytes:
        """Send for so long; the output, which `report` reads when nothing is measured any more."""
        found = program("h2load")
        assert found is not None
        self._log.unlink(missing_ok=True)
        # h2load counts in whole seconds.
        argv = [
            *(found, "-c", str(connections), "-m", str(streams), "-t", "1"),
            *("-D", str(max(1, round(seconds))), "--log-file", str(self._log)),
            *("-d", str(self._body), *self._fields, self._url),
        ]
        return await printed(argv, seconds + _SPARE_S)

    def report(self, output: bytes) -> Report:
        """The figures of the latest run; raises LoadError when a request failed."""
        return read_report(output, self._log.read_bytes(), self._answer)


def read_report(output: bytes, log: bytes, answer: int) -> Report:
    """The figures of what h2load printed, and of its log.

    Raises:
        LoadError: it failed, a request did, or answers were not `answer` octets long.
    """
    counts, traffic, rate = (of.search(output) for of in (_COUNTS, _TRAFFIC, _RATE))
    if counts is None or traffic is None or rate is None:
        raise LoadError(f"h2load failed: {output.decode(errors='replace')[-600:]}")
    _, succeeded, *bad = map(int, counts.groups())
    if any(bad) or not succeeded:
        raise LoadError(f"{sum(bad)} requests failed, {succeeded} were answered")
    octets = int(traffic[1])
    if abs(octets / succeeded - answer) > _DIGITS:
        raise LoadError(
            f"answers had {octets / succeeded:.0f} octets on average, the checked one {answer}"
        )
    latencies = array("Q")
    for line in log.splitlines():
        _, status, microseconds = line.split(b"\t")
        if status != b"200":
            raise LoadError(f"an answer had status {status.decode()}")
        latencies.append(int(microseconds))
    middle, tail = quantile(latencies, 0.50), quantile(latencies, 0.99)
    return Report(succeeded, float(rate[1]), octets, middle, tail)
