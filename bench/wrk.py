"""wrk as the clients of JSON answers: cheap enough to keep nginx busy from one core.

Decides how wrk is run and when its figures are refused: one failed request or an answer of another
size than the checked one. Must not know which proxy answers, nor read /proc.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.dialects import HOST
from bench.loadgen import LoadError
from bench.programs import printed, program

_SCRIPT = """\
function init(arguments)
  local file = io.open(arguments[1], "rb")
  local payload = file:read("*a")
  file:close()
  -- Called once, while a function `request` would be called for each request.
  wrk.format = function() return payload end
  if arguments[3] then
    -- The same request with each of the keys in turns.
    local payloads = {}
    for key in io.lines(arguments[3]) do
      local at, till = payload:find(arguments[2], 1, true)
      payloads[#payloads + 1] = payload:sub(1, at - 1) .. key .. payload:sub(till + 1)
    end
    local turn = 0
    request = function()
      turn = turn % #payloads + 1
      return payloads[turn]
    end
  end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"microseconds":%d,"octets":%d,"failed":%d,"p50_us":%d,"p99_us":%d}',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
_SPARE_S = 30.0
# Fields that count down or tell the time: an answer's length varies by some digits.
_DIGITS = 64


class Report(msgspec.Struct, frozen=True):
    """The figures of wrk."""

    requests: int
    microseconds: int
    octets: int
    failed: int
    p50_us: int
    p99_us: int


class Wrk:
    """One request, sent by wrk on many connections as fast as it is answered.

    `answer` is the length of an answer that was checked.
    """

    def __init__(
        self, folder: Path, port: int, payload: bytes, answer: int, *, secure: bool = False
    ) -> None:
        self._script = folder / "wrk.lua"
        self._script.write_text(_SCRIPT)
        self._payload = folder / "wrk.request"
        self._payload.write_bytes(payload)
        self._url = f"{'https' if secure else 'http'}://{HOST}:{port}/"
        self._answer = answer
        self._keys: list[str] = []

    def spread(self, key: str, keys: Sequence[str]) -> None:
        """Send the request with each of `keys` in turns, in place of `key`."""
        path = self._payload.with_suffix(".keys")
        path.write_text("".join(f"{one}\n" for one in keys))
        self._keys = [key, str(path)]

    async def run(self, connections: int, seconds: float) -> Report:
        """Send for so long; raises LoadError when an answer was wrong."""
        found = program("wrk")
        assert found is not None
        # wrk counts in whole seconds.
        argv = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s")
        script = ("-s", str(self._script), self._url, "--", str(self._payload), *self._keys)
        output = await printed((found, *argv, *script), seconds + _SPARE_S)
        return read_report(output, self._answer)


def read_report(output: bytes, answer: int) -> Report:
    """The figures in the last line that wrk printed.

    Raises:
        LoadError: wrk failed, a request did, or answers were not `answer` octets long.
    """
    try:
        report = msgspec.json.decode(output.rpartition(b"\n")[2], type=Report)
    except msgspec.DecodeError:
        raise LoadError(f"wrk failed: {output.decode(errors='replace')[-600:]}") from None
    if report.failed or not report.requests:
        raise LoadError(f"{report.failed} requests failed, {report.requests} were answered")
    length = report.octets / report.requests
    if abs(length - answer) > _DIGITS:
        raise LoadError(f"answers had {length:.0f} octets on average, the checked one {answer}")
    return report
