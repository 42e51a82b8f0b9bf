"""Rounds of time and CPU: JSON answers, streams, latency, first content.

Decides what the clients of a round do, and which figures it yields. Must not know how a rival
is configured, in which order rounds run, or how figures are summed up.

CPU per request is the proxy's own cost, even where something else limits the run. Requests per
second are a limit of the proxy only while its core is busy all the time; `share`, the part of one
core that the proxy used, shows whether it was. Where relay translates, nginx carries the same
turn in the upstream's own dialect, with the same events behind it.
"""

import time
from statistics import median

from bench.bodies import octets
from bench.dialects import CHAT, MESSAGES, Dialect
from bench.first import FirstClient, stream_text
from bench.h2load import H2load
from bench.headroom import check, check_outlived, check_pace
from bench.http2 import STREAMS_A_CONNECTION
from bench.loadgen import JsonLoad, LoadError, quantile
from bench.pacing import Pace, RateMissedError
from bench.process import Process, awake
from bench.programs import program
from bench.rivals.nginx import nginx_program
from bench.rivals.rival import Rival
from bench.stage import (
    Figures,
    Stage,
    UpstreamKind,
    Window,
    json_load,
    request_of,
    spoken,
    stream_load,
    weighed,
)
from bench.streams import StreamLoad
from bench.wrk import Wrk

_JSON_WARM_S = 0.7
_PACED_WINDOWS = 3  # of which the first that kept the rate is the figure
STREAM_OPEN_S = 1.0
_STREAM_SETTLE_S = 0.5
# On a busy machine the streams take longer to open; they must still outlive the window.
_STREAM_SPARE_S = 2.0
# One token: anything after the first content would only disturb the next stream.
_FIRST_ANSWER = "tokens=1"
_FIRST_WARM = 20  # streams of each dialect
_FIRST_STEP_S = 0.001


def upstream_of_json(*, large: bool = False) -> UpstreamKind:
    """The upstream of small requests is nginx where wrk sends them: a program in Python would be
    the limit. nginx answers before it has read a large body, so that has the program."""
    return "replay" if large or program("wrk") is None or nginx_program() is None else "static"


def upstream_of_http2() -> UpstreamKind:
    """As of JSON answers: nginx where h2load sends the requests."""
    return "replay" if program("h2load") is None or nginx_program() is None else "static"


def judged(rival: Rival, figures: Figures, *, busy: bool) -> Figures:
    """The figures, unless the load was the limit. Without a proxy it always is in a busy round.

    Raises:
        LimitedError: it was.
    """
    if rival.is_proxy or not busy:
        check(figures, busy=busy)
    return figures


async def json_round(
    stage: Stage,
    rival: Rival,
    process: Process,
    dialect: Dialect = MESSAGES,
    *,
    connections: int = 0,
    body: str = "",
) -> Figures:
    """As many requests as the proxy can take: small ones, or with bodies of a size."""
    load = json_load(rival, spoken(rival, dialect), octets(body) if body else 0)
    connections = connections or stage.settings.connections
    upstream = stage.testbeds[upstream_of_json(large=bool(body))].upstream
    try:
        figures = await saturated(stage, rival, load, process, upstream, connections)
        return {**judged(rival, figures, busy=True), **rival.own_figures()}
    finally:
        load.close()


async def tls_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """As many small requests over TLS as the proxy can take, on connections that stay open."""
    load = json_load(rival, secure=True)
    upstream = stage.testbeds["tls"].upstream
    try:
        figures = await saturated(stage, rival, load, process, upstream, stage.settings.connections)
        return judged(rival, figures, busy=True)
    finally:
        load.close()


async def http2_round(
    stage: Stage, rival: Rival, process: Process, *, secure: bool = False
) -> Figures:
    """As many small requests over HTTP/2 as the proxy can take."""
    settings = stage.settings
    load = json_load(rival, http2=True, secure=secure)
    upstream = stage.testbeds["tls" if secure else upstream_of_http2()].upstream
    try:
        if program("h2load") is None:
            await load.open(settings.connections)
            await check_text(stage, load)
            figures = await _saturated(stage, load, process, upstream)
            return judged(rival, figures, busy=True)
        await load.open(1)
        await check_text(stage, load)
        h2load = H2load(rival.folder, load.port, load.payload, load.answer_bytes, secure=secure)
        streams = min(STREAMS_A_CONNECTION, settings.connections)
        connections = max(1, settings.connections // streams)
        h2load.report(await h2load.run(connections, streams, max(_JSON_WARM_S, rival.warm_s)))
        window = Window(stage, process, upstream)
        output = await h2load.run(connections, streams, settings.seconds)
        window.stop()
        report = h2load.report(output)
        figures = window.close(report.requests, "requests")
        figures["requests_s"] = report.requests_s
        figures |= {"p50_us": report.p50_us, "p99_us": report.p99_us}
        return judged(rival, figures, busy=True)
    finally:
        load.close()


async def saturated(
    stage: Stage,
    rival: Rival,
    load: JsonLoad,
    process: Process,
    upstream: Process,
    connections: int,
) -> Figures:
    """Costs while so many connections send their next request at once: by wrk if it is there."""
    if program("wrk") is None:
        await load.open(connections)
        await check_text(stage, load)
        return await _saturated(stage, load, process, upstream)
    await load.open(1)
    await check_text(stage, load)
    wrk = Wrk(rival.folder, load.port, load.payload, len(load.answer), secure=bool(load.tls))
    await wrk.run(connections, max(_JSON_WARM_S, rival.warm_s))
    window = Window(stage, process, upstream)
    async with weighed(process, stage.settings.seconds) as weights:
        report = await wrk.run(connections, stage.settings.seconds)
    figures = window.close(report.requests, "requests")
    figures["requests_s"] = report.requests / report.microseconds * 1e6
    figures["rss_mib"] = median(weights) / 2**20
    figures |= {"p50_us": report.p50_us, "p99_us": report.p99_us}
    figures["answer_bytes"] = report.octets / report.requests
    return figures


async def paced_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """The same number of small requests a second for each proxy, at even intervals."""
    load = json_load(rival)
    pace = Pace(load, stage.settings.rate)
    try:
        await load.open(stage.settings.connections)
        await check_text(stage, load)
        with pace.running():
            await load.run(max(_JSON_WARM_S, rival.warm_s))
            for missed in range(_PACED_WINDOWS):
                del load.latencies[:]
                load.recording = True
                window = Window(stage, process, stage.testbeds[upstream_of_json()].upstream)
                try:
                    answers = await pace.window(stage.settings.seconds)
                except RateMissedError:
                    continue
                figures = judged(rival, window.close(answers, "requests"), busy=False)
                load.recording = False
                return {**figures, **latency(load), "refused": missed}
        return {"refused": _PACED_WINDOWS}
    finally:
        load.close()


async def latency_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Latency of one request at a time, on cores that do not sleep in between."""
    load = json_load(rival)
    figures = await _alone(stage, process, rival, load)
    await check_text(stage, load)
    return figures


async def first_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Time to the first content of one stream at a time, on a connection that stays open."""
    payload = request_of(rival, MESSAGES, rival.sse_port, _FIRST_ANSWER, stream=True)
    load = JsonLoad(rival.sse_port, payload, MESSAGES, FirstClient)
    figures = await _alone(stage, process, rival, load)
    text = await stage.stream_text(_FIRST_ANSWER)
    if stream_text(load) != text:
        raise LoadError(f"a stream has another text than the upstream: {load.answer[-300:]!r}")
    return figures | {"max_us": max(load.latencies) / 1e3}


async def _alone(stage: Stage, process: Process, rival: Rival, load: JsonLoad) -> Figures:
    """Latencies of one request at a time."""
    upstream = stage.testbeds["simulator"].upstream
    seconds, warm = stage.settings.seconds, max(_JSON_WARM_S, rival.warm_s)
    try:
        await load.open(1)
        with awake(stage.cores, rival.folder, 2 * (seconds + warm)):
            load.saturate()
            await load.run(warm)
            done = load.completed
            load.recording = True
            window = Window(stage, process, upstream)
            await load.run(seconds)
            figures = window.close(load.completed - done, "requests")
            load.recording = False
        await load.settled()
        return {"others": figures["others"], **latency(load)}
    finally:
        load.close()


async def check_text(stage: Stage, load: JsonLoad) -> None:
    if load.text != (text := await stage.upstream_text()):
        raise LoadError(f"an answer has {load.text[:200]!r}, the upstream {text[:200]!r}")


async def _saturated(stage: Stage, load: JsonLoad, process: Process, upstream: Process) -> Figures:
    """Costs while each connection of `load` sends its next request at once."""
    load.saturate()
    await load.run(_JSON_WARM_S)
    done = load.completed
    load.recording = True
    window = Window(stage, process, upstream)
    async with weighed(process, stage.settings.seconds) as weights:
        await load.run(stage.settings.seconds)
    figures = window.close(load.completed - done, "requests")
    figures["rss_mib"] = median(weights) / 2**20
    load.recording = False
    await load.settled()
    figures |= latency(load)
    figures["answer_bytes"] = load.answer_bytes / load.completed
    return figures


async def sse_round(
    stage: Stage,
    rival: Rival,
    process: Process,
    dialect: Dialect = MESSAGES,
    *,
    http2: bool = False,
    secure: bool = False,
) -> Figures:
    """Paced streams side by side, all read to their end."""
    settings = stage.settings
    dialect = spoken(rival, dialect)
    seconds = STREAM_OPEN_S + _STREAM_SETTLE_S + settings.seconds + _STREAM_SPARE_S
    simulate = f"tokens={max(1, round(seconds * settings.pace))};pace={settings.pace:g}"
    expected = await stage.events_of(simulate, rival, dialect)
    stage.script(rival, simulate)
    load = stream_load(rival, simulate, dialect, http2=http2, secure=secure)
    try:
        await load.open(stage.streams_at_once(rival), STREAM_OPEN_S)
        await load.run(_STREAM_SETTLE_S)
        done = load.events
        window = Window(stage, process, stage.testbeds["simulator"].upstream)
        await load.run(settings.seconds)
        figures = judged(rival, window.close(load.events - done, "events"), busy=False)
        check_outlived(load.completed, "the window was over")
        check_pace(figures, stage.streams_at_once(rival) * settings.pace)
        await load.ended(seconds + 10.0)
        expect_events(load, expected)
        figures.update(rival.own_figures())
        figures["streams"] = stage.streams_at_once(rival)
        figures["first_p50_us"] = quantile(load.first_content, 0.50) / 1e3
        figures["first_p99_us"] = quantile(load.first_content, 0.99) / 1e3
        return figures
    finally:
        load.close()


async def chat_first_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Time to the first content, one stream at a time, the dialects in turns."""
    dialects = (MESSAGES, CHAT) if CHAT.name in rival.dialects else (MESSAGES,)
    stage.script(rival, _FIRST_ANSWER)
    loads = [stream_load(rival, _FIRST_ANSWER, dialect) for dialect in dialects]
    seconds = stage.settings.seconds
    start = time.monotonic()
    try:
        with awake(stage.cores, rival.folder, 3 * seconds + 10.0):
            while time.monotonic() < start + seconds or len(loads[0].counts) <= 2 * _FIRST_WARM:
                for load in loads:
                    await load.open(1)
                    await load.ended(10.0, _FIRST_STEP_S)
        for load in loads:
            expect_events(load, await stage.events_of(_FIRST_ANSWER, rival, load.dialect))
        found = {
            f"{load.dialect.name}_p50_us": quantile(load.first_content[_FIRST_WARM:], 0.50) / 1e3
            for load in loads
        }
        if CHAT in dialects:
            found["more_us"] = found["chat_p50_us"] - found["messages_p50_us"]
        return found
    finally:
        for load in loads:
            load.close()


def latency(load: JsonLoad) -> Figures:
    return {
        "p50_us": quantile(load.latencies, 0.50) / 1e3,
        "p99_us": quantile(load.latencies, 0.99) / 1e3,
    }


def expect_events(load: StreamLoad, events: int) -> None:
    """Check that a stream had all events.

    Raises:
        LoadError: it had another number.
    """
    if load.counts[0] != events:
        raise LoadError(f"streams brought {load.counts[0]} events, the upstream sent {events}")
