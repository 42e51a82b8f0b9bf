"""What is measured, and in which order.

Decides the rounds: every scenario runs nginx, relay, nginx, relay … so that a drift of the
machine meets both. A round yields figures by name; medians, ratios and goals are `report`'s.
Must not know how a rival is configured nor what an answer looks like.

CPU per request and memory are what the proxy itself costs, whatever else limits the run.
Requests per second are a limit of the proxy only while its core is busy all the time, which is
why `share` (of one core, used by the proxy) stands beside them.
"""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.loadgen import JsonLoad, LoadError, quantile, request
from bench.process import BenchError, Cores, Process, awake, busy_ns
from bench.rivals import UPSTREAM_KEY, Rival
from bench.streams import StreamLoad

Figures = dict[str, float]
Results = dict[str, dict[str, list[Figures]]]

# About 500 bytes of JSON in the answer.
_JSON_ANSWER = "tokens=40"
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


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how much."""

    rounds: int = 3
    seconds: float = 5.0
    connections: int = 64
    streams: int = 300
    pace: float = 25.0


@dataclass(slots=True)
class Stage:
    """Everything that stands ready for a round."""

    settings: Settings
    cores: Cores
    upstream: Process
    upstream_port: int
    rivals: list[Rival]
    # Who answers in `json`, and the rivals in front of it; see `replay`.
    json_upstream: Process
    json_rivals: list[Rival]
    told: Callable[[str, int, str, Figures], None]
    results: Results = field(default_factory=dict)
    event_counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def running(self, rival: Rival) -> Iterator[Process]:
        """A fresh process of this rival; its last words explain a failure."""
        process, _ = rival.start(self.cores.proxy)
        with process:
            try:
                yield process
            except LoadError as error:
                raise _explained(rival, process, error) from None

    async def events_of(self, simulate: str) -> int:
        """How many events such a stream has, asked from the upstream itself."""
        key = simulate.partition(";")[0]
        if key not in self.event_counts:
            load = StreamLoad(
                self.upstream_port, request(self.upstream_port, UPSTREAM_KEY, key, stream=True)
            )
            try:
                await load.open(1)
                await load.ended(_SLOW_DRAIN_S)
            except LoadError as error:
                raise BenchError(f"the upstream alone is wrong already: {error}") from None
            finally:
                load.close()
            self.event_counts[key] = load.counts[0]
        return self.event_counts[key]


Round = Callable[[Stage, Rival, Process], Awaitable[Figures]]


class _Window:
    """Time, CPU and work between two moments."""

    def __init__(self, cores: Cores, process: Process, upstream: Process) -> None:
        self._cores = cores
        self._process = process
        self._upstream = upstream
        self._before = self._read()

    def close(self, work: int, unit: str) -> Figures:
        """Costs per piece of work; `others…` is what strangers took of either core."""
        if work <= 0:
            raise BenchError(f"no {unit} in a whole round")
        then, now = self._before, self._read()
        wall, proxy, upstream, load, *cores = (
            after - before for before, after in zip(then, now, strict=True)
        )
        share = proxy / wall
        return {
            "cpu_us": proxy / work / 1e3,
            f"{unit}_s": work / wall * 1e9,
            "share": share,
            "others": _others(cores[0], cores[1], share),
            "others_load": _others(cores[2], cores[3], (load + upstream) / wall),
            "load_us": load / work / 1e3,
            "upstream_us": upstream / work / 1e3,
        }

    def _read(self) -> tuple[int, ...]:
        return (
            time.perf_counter_ns(),
            self._process.cpu_ns(),
            self._upstream.cpu_ns(),
            time.process_time_ns(),
            *busy_ns(self._cores.proxy),
            *busy_ns(self._cores.load),
        )


def _others(busy: int, total: int, ours: float) -> float:
    return max(0.0, busy / total - ours) if total else 0.0


async def json_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """As many small requests as the proxy can take."""
    settings = stage.settings
    load = _json_load(rival)
    try:
        await load.open(settings.connections)
        load.saturate()
        await load.run(_JSON_WARM_S)
        done = load.completed
        load.recording = True
        window = _Window(stage.cores, process, stage.json_upstream)
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
    load = _json_load(rival)
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


async def sse_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Paced streams side by side, all read to their end."""
    settings = stage.settings
    seconds = _STREAM_OPEN_S + _STREAM_SETTLE_S + settings.seconds + _STREAM_SPARE_S
    simulate = f"tokens={max(1, round(seconds * settings.pace))};pace={settings.pace:g}"
    expected = await stage.events_of(simulate)
    load = _stream_load(rival, simulate)
    try:
        await load.open(settings.streams, _STREAM_OPEN_S)
        await load.run(_STREAM_SETTLE_S)
        done = load.events
        window = _Window(stage.cores, process, stage.upstream)
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


async def memory_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """What a fresh process holds, and what each live stream adds."""
    settings = stage.settings
    pace = f"tokens={round(_MEMORY_STREAM_S * settings.pace)};pace={settings.pace:g}"
    expected = await stage.events_of(pace)
    await _warm(rival)
    base = process.rss()
    load = _stream_load(rival, pace)
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
    load = _json_load(rival)
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
    warm, load = _stream_load(rival, _SLOW_ANSWER), _stream_load(rival, _SLOW_ANSWER)
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


_SHARED: dict[str, Round] = {"json": json_round, "latency": latency_round, "sse": sse_round}
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
                rivals = stage.json_rivals if name == "json" else stage.rivals
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
        raise _explained(rival, process, LoadError(f"{name}: {error}")) from None
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


async def _warm(rival: Rival) -> None:
    """One answer and one stream: what is loaded at first use belongs to the base."""
    load = _json_load(rival)
    streams = _stream_load(rival, "tokens=20")
    try:
        await load.open(1)
        await streams.open(1)
        await streams.ended(10.0)
    finally:
        load.close()
        streams.close()


async def record(port: int) -> bytes:
    """One JSON answer of the upstream, head and body, as it came."""
    load = JsonLoad(port, request(port, UPSTREAM_KEY, _JSON_ANSWER, stream=False))
    try:
        await load.open(1)
    except LoadError as error:
        raise BenchError(f"the upstream alone is wrong already: {error}") from None
    finally:
        load.close()
    return load.answer


def _json_load(rival: Rival) -> JsonLoad:
    port = rival.json_port
    return JsonLoad(port, request(port, rival.key, _JSON_ANSWER, stream=False))


def _stream_load(rival: Rival, simulate: str) -> StreamLoad:
    port = rival.sse_port
    return StreamLoad(port, request(port, rival.key, simulate, stream=True))


def _latency(load: JsonLoad) -> Figures:
    return {
        "p50_us": quantile(load.latencies, 0.50) / 1e3,
        "p99_us": quantile(load.latencies, 0.99) / 1e3,
    }


def _expect(load: StreamLoad, events: int) -> None:
    if load.counts[0] != events:
        raise LoadError(f"streams brought {load.counts[0]} events, the upstream sent {events}")


def _explained(rival: Rival, process: Process, error: LoadError) -> BenchError:
    state = "" if process.running() else f" ({rival.name} is no longer running)"
    tail = process.tail()
    return BenchError(f"{rival.name}: {error}{state}" + (f"\n{tail}" if tail else ""))
