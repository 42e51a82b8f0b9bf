"""Rounds of time and CPU: JSON answers, streams, latency, first content.

Decides what the clients of a round do, and which figures it yields. Must not know how a rival
is configured, in which order rounds run, or how figures are summed up.

CPU per request is the proxy's own cost, even where something else limits the run. Requests per
second are a limit of the proxy only while its core is busy all the time; `share`, the part of one
core that the proxy used, shows whether it was. Where relay translates, nginx carries the same
turn in the upstream's own dialect, with the same events behind it.
"""

import time

from bench.dialects import CHAT, MESSAGES, Dialect
from bench.loadgen import JsonLoad, LoadError, quantile
from bench.process import Process, awake
from bench.rivals.rival import Rival
from bench.stage import Figures, Stage, Window, json_load, spoken, stream_load
from bench.streams import StreamLoad

_JSON_WARM_S = 0.7
STREAM_OPEN_S = 1.0
_STREAM_SETTLE_S = 0.5
# On a busy machine the streams take longer to open; they must still outlive the window.
_STREAM_SPARE_S = 2.0
# One token: anything after the first content would only disturb the next stream.
_FIRST_ANSWER = "tokens=1"
_FIRST_WARM = 20  # streams of each dialect
_FIRST_STEP_S = 0.001


async def json_round(
    stage: Stage,
    rival: Rival,
    process: Process,
    dialect: Dialect = MESSAGES,
    *,
    http2: bool = False,
) -> Figures:
    """As many small requests as the proxy can take."""
    settings = stage.settings
    load = json_load(rival, spoken(rival, dialect), http2=http2)
    try:
        await load.open(settings.connections)
        if load.text != (text := await stage.upstream_text()):
            raise LoadError(f"an answer has {load.text[:200]!r}, the upstream {text[:200]!r}")
        load.saturate()
        await load.run(_JSON_WARM_S)
        done = load.completed
        load.recording = True
        window = Window(stage.cores, process, stage.testbeds["replay"].upstream)
        await load.run(settings.seconds)
        figures = window.close(load.completed - done, "requests")
        load.recording = False
        await load.settled()
        figures |= _latency(load)
        figures["answer_bytes"] = load.answer_bytes / load.completed
        return figures
    finally:
        load.close()


async def latency_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Latency of one request at a time, on cores that do not sleep in between."""
    seconds = stage.settings.seconds
    load = json_load(rival)
    try:
        await load.open(1)
        with awake(stage.cores, rival.folder, 2 * (seconds + _JSON_WARM_S)):
            load.saturate()
            await load.run(_JSON_WARM_S)
            load.recording = True
            await load.run(seconds)
            load.recording = False
        await load.settled()
        return _latency(load)
    finally:
        load.close()


async def sse_round(
    stage: Stage,
    rival: Rival,
    process: Process,
    dialect: Dialect = MESSAGES,
    *,
    http2: bool = False,
) -> Figures:
    """Paced streams side by side, all read to their end."""
    settings = stage.settings
    dialect = spoken(rival, dialect)
    seconds = STREAM_OPEN_S + _STREAM_SETTLE_S + settings.seconds + _STREAM_SPARE_S
    simulate = f"tokens={max(1, round(seconds * settings.pace))};pace={settings.pace:g}"
    expected = await stage.events_of(simulate, rival, dialect)
    load = stream_load(rival, simulate, dialect, http2=http2)
    try:
        await load.open(settings.streams, STREAM_OPEN_S)
        await load.run(_STREAM_SETTLE_S)
        done = load.events
        window = Window(stage.cores, process, stage.testbeds["simulator"].upstream)
        await load.run(settings.seconds)
        figures = window.close(load.events - done, "events")
        if load.completed:
            raise LoadError(
                f"{load.completed} streams ended before the window did: is the machine busy?"
            )
        await load.ended(seconds + 10.0)
        expect_events(load, expected)
        figures["first_p50_us"] = quantile(load.first_content, 0.50) / 1e3
        figures["first_p99_us"] = quantile(load.first_content, 0.99) / 1e3
        return figures
    finally:
        load.close()


async def chat_first_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Time to the first content, one stream at a time, the dialects in turns."""
    dialects = (MESSAGES, CHAT) if CHAT.name in rival.dialects else (MESSAGES,)
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


def _latency(load: JsonLoad) -> Figures:
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
