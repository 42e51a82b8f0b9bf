"""Rounds of an open loop: requests and streams that start at a constant rate.

Decides at which rates a proxy is tried, and which of them it has kept. A request's time counts
from when it was due, so a proxy that cannot keep the rate shows it in its times. oha sends where
it is installed, clients in Python elsewhere. Must not know how a rival is configured.
"""

from dataclasses import dataclass

from bench.dialects import MESSAGES
from bench.first import FirstClient
from bench.headroom import LimitedError
from bench.loadgen import JsonLoad
from bench.oha import Oha, Report
from bench.pacing import Pace, RateMissedError
from bench.process import Process
from bench.programs import program
from bench.rivals.rival import Rival
from bench.rounds import check_text, judged, latency, saturated, upstream_of_json
from bench.stage import Figures, Stage, Window, json_load, request_of

# The definition of a rate that a proxy can take.
_MAX_P99_US = 1_000.0
_CONNECTIONS = 64
_STEPS = 6  # of the bisection: the rate is known to a 64th of the most that the proxy can do
_WINDOW_S = 2.0
_WARM_S = 0.5
# Starts a second, each with one piece of content behind it.
_STARTS = 1_000.0
_FIRST_ANSWER = "tokens=1"


@dataclass(frozen=True, slots=True)
class _Trial:
    """One window at one rate: whether it was kept, and who was the limit where it was not."""

    rate: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    limited: LimitedError | None = None

    @property
    def kept(self) -> bool:
        return self.limited is None and 0 < self.p99_us <= _MAX_P99_US


async def rate_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """The most requests a second with p99 of 1 ms at most and no failure, by bisection.

    Raises:
        LimitedError: the clients could not send enough.
    """
    load = json_load(rival)
    upstream = stage.testbeds[upstream_of_json()].upstream
    try:
        figures = await saturated(stage, rival, load, process, upstream, _CONNECTIONS)
        judged(rival, figures, busy=True)
    finally:
        load.close()
    most = figures["requests_s"]
    best = _Trial(0.0)
    low, high = 0.0, most
    limit: LimitedError | None = None
    for _ in range(_STEPS):
        trial = await _trial(stage, rival, process, (low + high) / 2)
        if trial.kept:
            best, low = trial, trial.rate
        else:
            high, limit = trial.rate, trial.limited
    if limit is not None:
        raise limit
    found = {"requests_s": best.rate, "most_s": most}
    # Where no rate was kept, there are no times at it.
    return found | ({"p50_us": best.p50_us, "p99_us": best.p99_us} if best.kept else {})


async def _trial(stage: Stage, rival: Rival, process: Process, rate: float) -> _Trial:
    """One window; a rate that was missed has no p99."""
    seconds = min(_WINDOW_S, stage.settings.seconds)
    window = Window(stage.cores, process, stage.testbeds[upstream_of_json()].upstream)
    try:
        report = await _requests(stage, rival, rate, seconds)
        judged(rival, window.close(report.requests, "requests"), busy=False)
    except LimitedError as error:
        return _Trial(rate, limited=error)
    except RateMissedError:
        return _missed(rival, window, rate, seconds)
    return _Trial(rate, report.p50_us, report.p99_us)


def _missed(rival: Rival, window: Window, rate: float, seconds: float) -> _Trial:
    """A rate that was missed by the proxy, if its core was full, or else by the clients."""
    try:
        judged(rival, window.close(max(1, round(rate * seconds)), "requests"), busy=True)
    except LimitedError as error:
        return _Trial(rate, limited=error)
    return _Trial(rate)


async def _requests(stage: Stage, rival: Rival, rate: float, seconds: float) -> Report:
    """Small requests at a rate."""
    load = json_load(rival)
    if program("oha") is None:
        return await _paced(stage, load, rate, seconds)
    try:
        await load.open(1)
        await check_text(stage, load)
    finally:
        load.close()
    body = len(load.answer.partition(b"\r\n\r\n")[2])
    oha = Oha(rival.folder, load.port, load.payload, body)
    return await oha.run(rate, _CONNECTIONS, seconds)


async def _paced(stage: Stage, load: JsonLoad, rate: float, seconds: float) -> Report:
    """The same by clients in Python; of streams the first content is timed."""
    pace = Pace(load, rate)
    try:
        await load.open(_CONNECTIONS)
        with pace.running():
            await load.run(_WARM_S)
            load.recording = True
            answers = await pace.window(seconds)
        found = latency(load)
        p50, p99 = found["p50_us"], found["p99_us"]
        return Report(answers, seconds, p50, p99, p50, p99)
    finally:
        load.close()


async def starts_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Streams that start at a constant rate: the time to their first octets."""
    payload = request_of(rival, MESSAGES, rival.sse_port, _FIRST_ANSWER, stream=True)
    seconds = stage.settings.seconds
    load = JsonLoad(rival.sse_port, payload, MESSAGES, FirstClient)
    upstream = stage.testbeds["stream"].upstream
    window = Window(stage.cores, process, upstream)
    try:
        if program("oha") is None:
            report = await _paced(stage, load, _STARTS, seconds)
        else:
            await load.open(1)
            await load.settled()
            window = Window(stage.cores, process, upstream)
            oha = Oha(rival.folder, rival.sse_port, payload, 0)
            report = await oha.run(_STARTS, _CONNECTIONS, seconds)
    except RateMissedError:
        return {"refused": 1}
    finally:
        load.close()
    figures = judged(rival, window.close(report.requests, "starts"), busy=False)
    return figures | {"first_p50_us": report.first_p50_us, "first_p99_us": report.first_p99_us}
