"""What is measured, and in which order.

Decides the rounds: every scenario runs nginx, relay, nginx, relay … so that a drift of the
machine meets both. A round yields figures by name; medians, ratios and goals are `report`'s.
Must not know how a rival is configured nor what an answer looks like. Where relay translates,
nginx passes the upstream's own dialect on: the same turn, and the same events behind it.

CPU per request and memory are what the proxy itself costs, whatever else limits the run.
Requests per second are a limit of the proxy only while its core is busy all the time, which is
why `share` (of one core, used by the proxy) stands beside them.
"""

import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from bench.loadgen import JsonLoad, LoadError, quantile
from bench.process import BenchError, Process, awake
from bench.rivals import Rival
from bench.stage import Figures, Results, Stage, Window, explained, json_load, stream_load
from bench.streams import StreamLoad

_JSON_WARM_S = 0.7
_STREAM_OPEN_S = 1.0
_STREAM_SETTLE_S = 0.5
# On a busy machine the streams take longer to open; they must still outlive the window.
_STREAM_SPARE_S = 2.0
_IDLE_CONNECTIONS = 1000
_IDLE_STEP = 20
_MEMORY_STREAM_S = 3.0
_SLOW_S = 3.0
_SLOW_READERS = 4
_SLOW_RECEIVE_BUFFER = 64 * 1024
# More than the kernel takes up between upstream and a client that does not read.
_SLOW_ANSWER = "tokens=120000"
_SLOW_DRAIN_S = 60.0
# A single word: whatever follows the first content would only be in its way.
_FIRST_ANSWER = "tokens=1"
_FIRST_WARM = 20  # streams of each dialect
_FIRST_STEP_S = 0.001

Round = Callable[[Stage, Rival, Process], Awaitable[Figures]]


async def json_round(
    stage: Stage, rival: Rival, process: Process, dialect: Dialect = MESSAGES
) -> Figures:
    """As many small requests as the proxy can take."""
    settings = stage.settings
    load = json_load(rival, _spoken(rival, dialect))
    try:
        await load.open(settings.connections)
        if load.said != (said := await stage.said()):
            raise LoadError(f"an answer says {load.said[:200]!r}, the upstream {said[:200]!r}")
        load.saturate()
        await load.run(_JSON_WARM_S)
        done = load.completed
        load.recording = True
        window = Window(stage.cores, process, stage.json_upstream)
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
    """Latency of one request at a time, on cores that don't fall asleep in between."""
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
    stage: Stage, rival: Rival, process: Process, dialect: Dialect = MESSAGES
) -> Figures:
    """Paced streams side by side, all read to their end."""
    settings = stage.settings
    dialect = _spoken(rival, dialect)
    seconds = _STREAM_OPEN_S + _STREAM_SETTLE_S + settings.seconds + _STREAM_SPARE_S
    simulate = f"tokens={max(1, round(seconds * settings.pace))};pace={settings.pace:g}"
    expected = await stage.events_of(simulate, rival, dialect)
    load = stream_load(rival, simulate, dialect)
    try:
        await load.open(settings.streams, _STREAM_OPEN_S)
        await load.run(_STREAM_SETTLE_S)
        done = load.events
        window = Window(stage.cores, process, stage.upstream)
        await load.run(settings.seconds)
        figures = window.close(load.events - done, "events")
        if load.whole:
            raise LoadError(
                f"{load.whole} streams ended before the window did: is the machine busy?"
            )
        await load.ended(seconds + 10.0)
        _expect(load, expected)
        figures["first_p50_us"] = quantile(load.first_content, 0.50) / 1e3
        figures["first_p99_us"] = quantile(load.first_content, 0.99) / 1e3
        return figures
    finally:
        load.close()


async def chat_first_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """How long the first content takes, one stream at a time, the dialects in turns."""
    dialects = (MESSAGES, CHAT) if rival.translates else (MESSAGES,)
    loads = [stream_load(rival, _FIRST_ANSWER, dialect) for dialect in dialects]
    seconds = stage.settings.seconds
    begun = time.monotonic()
    try:
        with awake(stage.cores, rival.folder, 3 * seconds + 10.0):
            while time.monotonic() < begun + seconds or len(loads[0].counts) <= 2 * _FIRST_WARM:
                for load in loads:
                    await load.open(1)
                    await load.ended(10.0, _FIRST_STEP_S)
        for load in loads:
            _expect(load, await stage.events_of(_FIRST_ANSWER, rival, load.dialect))
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


async def memory_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """What a fresh process holds, and what each live stream adds."""
    settings = stage.settings
    pace = f"tokens={round(_MEMORY_STREAM_S * settings.pace)};pace={settings.pace:g}"
    expected = await stage.events_of(pace)
    await _warm(rival)
    base = process.rss()
    load = stream_load(rival, pace)
    try:
        await load.open(settings.streams, _STREAM_OPEN_S)
        await load.run(_MEMORY_STREAM_S / 3)
        live, held = load.live, process.rss()
        if live < settings.streams:
            raise LoadError(f"only {live} of {settings.streams} streams were live together")
        await load.ended(_MEMORY_STREAM_S + 10.0)
        _expect(load, expected)
    finally:
        load.close()
    return {"base_mib": base / 2**20, "stream_kib": (held - base) / live / 1024}


async def idle_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """What a keep-alive connection costs between two requests."""
    await _warm(rival)
    load = json_load(rival)
    try:
        # One step ahead of the first reading, so that upstream connections are not counted.
        await load.open(_IDLE_STEP)
        base = process.rss()
        for _ in range(_IDLE_CONNECTIONS // _IDLE_STEP):
            await load.open(_IDLE_STEP)
        return {"idle_kib": (process.rss() - base) / _IDLE_CONNECTIONS / 1024}
    finally:
        load.close()


async def slow_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """What the proxy holds for a client that has not read while the upstream sent all it could.

    Several clients, since a single buffer may or may not fit into memory that was freed before.
    The peak also has what any stream at full speed takes for a moment.
    """
    expected = await stage.events_of(_SLOW_ANSWER)
    warm, load = stream_load(rival, _SLOW_ANSWER), stream_load(rival, _SLOW_ANSWER)
    try:
        # One that is read at full speed: buffers that any fast stream needs are in the base.
        await warm.open(1)
        await warm.ended(_SLOW_DRAIN_S)
        base = held = peak = process.rss()
        clients = [await load.open_slow(_SLOW_RECEIVE_BUFFER) for _ in range(_SLOW_READERS)]
        until = time.monotonic() + _SLOW_S
        while time.monotonic() < until:
            await load.run(0.05)
            held = process.rss()
            peak = max(peak, held)
        if load.events:
            raise BenchError("the slow reader has read: this round shows nothing")
        for client in clients:
            client.resume()
        await load.ended(_SLOW_DRAIN_S)
        _expect(load, expected)
        return {
            "growth_kib": (held - base) / _SLOW_READERS / 1024,
            "peak_kib": (peak - base) / _SLOW_READERS / 1024,
            "stream_mib": load.stream_bytes / _SLOW_READERS / 2**20,
        }
    finally:
        warm.close()
        load.close()


_SHARED: dict[str, Round] = {
    "json": json_round,
    "latency": latency_round,
    "sse": sse_round,
    "chat-json": partial(json_round, dialect=CHAT),
    "chat-sse": partial(sse_round, dialect=CHAT),
    "chat-first": chat_first_round,
    "responses-json": partial(json_round, dialect=RESPONSES),
    "responses-sse": partial(sse_round, dialect=RESPONSES),
}
# Those whose upstream is `replay`, unless the simulator is wanted.
REPLAYED = frozenset({"json", "chat-json", "responses-json"})
# Those of which a profile tells something.
PROFILED = {name: round for name, round in _SHARED.items() if name.endswith(("json", "sse"))}
# Rounds that need a process which has served nothing before.
_FRESH: dict[str, Round] = {"memory": memory_round, "idle": idle_round, "slow": slow_round}
SCENARIOS = (*_SHARED, *_FRESH, "ready")


async def measure(stage: Stage, chosen: tuple[str, ...]) -> Results:
    """All chosen scenarios, each in rounds that alternate between the rivals."""
    # A collection in the middle of a round would be charged to whoever is measured then.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for name in _SHARED:
            if name in chosen:
                rivals = stage.json_rivals if name in REPLAYED else stage.rivals
                with ExitStack() as held:
                    served = [(rival, held.enter_context(stage.running(rival))) for rival in rivals]
                    await _rounds(stage, name, served)
        for name in _FRESH:
            if name in chosen:
                await _rounds(stage, name, None)
        if "ready" in chosen:
            _ready(stage)
    finally:
        gc.enable()
    return stage.results


async def _rounds(stage: Stage, name: str, served: list[tuple[Rival, Process]] | None) -> None:
    for number in range(1, stage.settings.rounds + 1):
        if served is not None:
            for rival, process in served:
                await _round(stage, name, number, rival, process)
            continue
        for rival in stage.rivals:
            with stage.running(rival) as process:
                await _round(stage, name, number, rival, process)


async def _round(stage: Stage, name: str, number: int, rival: Rival, process: Process) -> None:
    measured = _SHARED.get(name) or _FRESH[name]
    try:
        figures = await measured(stage, rival, process)
    except LoadError as error:
        raise explained(rival, process, LoadError(f"{name}: {error}")) from None
    _keep(stage, name, number, rival, figures)
    gc.collect()


def _ready(stage: Stage) -> None:
    for number in range(1, stage.settings.rounds + 1):
        for rival in stage.rivals:
            process, seconds = rival.start(stage.cores.proxy)
            process.stop()
            _keep(stage, "ready", number, rival, {"ready_ms": seconds * 1e3})


def _keep(stage: Stage, name: str, number: int, rival: Rival, figures: Figures) -> None:
    stage.results.setdefault(name, {}).setdefault(rival.name, []).append(figures)
    stage.told(name, number, rival.name, figures)


def _spoken(rival: Rival, dialect: Dialect) -> Dialect:
    """What a rival is asked in."""
    return dialect if rival.translates else MESSAGES


async def _warm(rival: Rival) -> None:
    """One answer and one stream: what is loaded at first use belongs to the base."""
    load = json_load(rival)
    streams = stream_load(rival, "tokens=20")
    try:
        await load.open(1)
        await streams.open(1)
        await streams.ended(10.0)
    finally:
        load.close()
        streams.close()


def _latency(load: JsonLoad) -> Figures:
    return {
        "p50_us": quantile(load.latencies, 0.50) / 1e3,
        "p99_us": quantile(load.latencies, 0.99) / 1e3,
    }


def _expect(load: StreamLoad, events: int) -> None:
    if load.counts[0] != events:
        raise LoadError(f"streams brought {load.counts[0]} events, the upstream sent {events}")
