"""Rounds of an open loop: requests and streams that start at a constant rate.

Decides at which rates a proxy is tried, and which of them it has kept: two windows of three decide.
Where p99 is no better without a proxy, the round is refused. A request's time counts from when it
was due, so a proxy that cannot keep the rate shows it in its times. oha sends requests where it is
installed, clients in Python elsewhere and streams always. Must not know how a rival is configured.
"""

from dataclasses import dataclass

from bench.dialects import MESSAGES
from bench.first import FirstClient, stream_text
from bench.headroom import LimitedError
from bench.loadgen import JsonLoad, LoadError
from bench.oha import Oha, Report
from bench.pacing import Pace, RateMissedError
from bench.process import NoProcess, Process
from bench.programs import program
from bench.rivals.direct import Direct
from bench.rivals.rival import Rival
from bench.rounds import check_text, judged, latency, saturated, upstream_of_json
from bench.stage import Figures, Stage, Window, json_load, request_of

# The definition of a rate that a proxy can take.
_MAX_P99_US = 1_000.0
_CONNECTIONS = 64
_STEPS = 5  # of the bisection: the rate is known to a 32nd of the most that the proxy can do
_WINDOWS = 3  # at one rate, of which two agree
_WINDOW_S = 1.5
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
        LimitedError: the clients could not send enough, or p99 is no better without the proxy.
    """
    load = json_load(rival)
    testbed = stage.testbeds[upstream_of_json()]
    try:
        figures = await saturated(stage, rival, load, process, testbed.upstream, _CONNECTIONS)
        judged(rival, figures, busy=True)
    finally:
        load.close()
    most = figures["requests_s"]
    best = _Trial(0.0)
    low, high = 0.0, most
    missed: _Trial | None = None
    for _ in range(_STEPS):
        trial = await _decided(stage, rival, process, (low + high) / 2)
        if trial.kept:
            best, low = trial, trial.rate
        else:
            missed, high = trial, trial.rate
    if missed is not None:
        await _expect_floor(stage, rival, testbed.port, missed)
    found = {"requests_s": best.rate, "most_s": most}
    # Where no rate was kept, there are no times at it.
    return found | ({"p50_us": best.p50_us, "p99_us": best.p99_us} if best.kept else {})


async def _expect_floor(stage: Stage, rival: Rival, port: int, missed: _Trial) -> None:
    """Check that the lowest rate that was missed is kept without a proxy.

    Raises:
        LimitedError: it is not: the proxy may not have been the limit.
    """
    if missed.limited is not None:
        raise missed.limited
    if not rival.is_proxy:
        return
    floor = await _decided(stage, Direct(rival.folder / "floor", port), NoProcess(), missed.rate)
    if not floor.kept:
        raise floor.limited or LimitedError(
            f"without a proxy p99 is {floor.p99_us / 1e3:.1f} ms already at {missed.rate:,.0f}/s"
        )


async def _decided(stage: Stage, rival: Rival, process: Process, rate: float) -> _Trial:
    """The middle one of three windows, or the second of two that agree."""
    trials: list[_Trial] = []
    while len(trials) < _WINDOWS:
        trials.append(await _trial(stage, rival, process, rate))
        agreeing = [one for one in trials if one.kept == trials[-1].kept]
        if len(agreeing) > _WINDOWS // 2:
            break
    return max(agreeing, key=lambda one: one.p99_us)


async def _trial(stage: Stage, rival: Rival, process: Process, rate: float) -> _Trial:
    """One window; a rate that was missed has no p99."""
    seconds = min(_WINDOW_S, stage.settings.seconds)
    window = Window(stage, process, stage.testbeds[upstream_of_json()].upstream)
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
    """Small requests at a rate, on connections that were opened before."""
    load = json_load(rival)
    try:
        if program("oha") is None:
            await load.open(_CONNECTIONS)
            pace = Pace(load, rate)
            with pace.running():
                await load.run(_WARM_S)
                load.recording = True
                answers = await pace.window(seconds)
            times = latency(load)
            return Report(answers, times["p50_us"], times["p99_us"])
        await load.open(1)
        await check_text(stage, load)
    finally:
        load.close()
    body = len(load.answer.partition(b"\r\n\r\n")[2])
    oha = Oha(rival.folder, load.port, load.payload, body)
    return await oha.run(rate, _CONNECTIONS, _WARM_S, seconds)


async def starts_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Streams that start at a constant rate on open connections: the time to their first content.

    Every stream is read to its end and checked.
    """
    payload = request_of(rival, MESSAGES, rival.sse_port, _FIRST_ANSWER, stream=True)
    load = JsonLoad(rival.sse_port, payload, MESSAGES, FirstClient)
    pace = Pace(load, _STARTS)
    try:
        await load.open(_CONNECTIONS)
        with pace.running():
            await load.run(max(_WARM_S, rival.warm_s))
            load.recording = True
            window = Window(stage, process, stage.testbeds["stream"].upstream)
            answers = await pace.window(stage.settings.seconds)
            figures = judged(rival, window.close(answers, "starts"), busy=False)
        if stream_text(load) != (text := await stage.stream_text(_FIRST_ANSWER)):
            raise LoadError(f"a stream has another text than the upstream: not {text[:200]!r}")
    except RateMissedError:
        return {"refused": 1}
    finally:
        load.close()
    times = latency(load)
    return figures | {"first_p50_us": times["p50_us"], "first_p99_us": times["p99_us"]}
