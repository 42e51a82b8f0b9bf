"""The scenarios, and the order of their rounds.

Decides which rivals a scenario has, and who comes first. In a round the rivals follow each other
directly; every second round has them in reverse, so that a drift of the machine meets all of them
alike. Each round of a rival has a fresh process, so that the luck of one process (its memory
layout, its hash seed) does not become a figure. Must not know how a rival is configured, nor what
a round does.
"""

import gc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bench import agents, crowds, handovers, memory, open_loop, quota, rounds, scale
from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from bench.headroom import LimitedError
from bench.process import BenchError, Process
from bench.rivals.relay import Relay
from bench.rivals.rival import Rival
from bench.rounds import upstream_of_http2, upstream_of_json
from bench.stage import Figures, Results, Stage, UpstreamKind

Round = Callable[[Stage, Rival, Process], Awaitable[Figures]]

_ROUNDS: dict[str, Round] = {
    "json": rounds.json_round,
    "json-8": partial(rounds.json_round, connections=8),
    "paced": rounds.paced_round,
    "rate": open_loop.rate_round,
    "starts": open_loop.starts_round,
    "latency": rounds.latency_round,
    "first": rounds.first_round,
    "sse": rounds.sse_round,
    "http2-json": rounds.http2_round,
    "http2-sse": partial(rounds.sse_round, http2=True),
    "chat-json": partial(rounds.json_round, dialect=CHAT),
    "chat-sse": partial(rounds.sse_round, dialect=CHAT),
    "chat-first": rounds.chat_first_round,
    "responses-json": partial(rounds.json_round, dialect=RESPONSES),
    "responses-sse": partial(rounds.sse_round, dialect=RESPONSES),
    "tls-json": rounds.tls_round,
    "tls-http2-json": partial(rounds.http2_round, secure=True),
    "tls-sse": partial(rounds.sse_round, secure=True),
    "json-300k": partial(rounds.json_round, connections=8, body="300k"),
    "json-1m": partial(rounds.json_round, connections=8, body="1m"),
    "memory": memory.memory_round,
    "idle": memory.idle_round,
    "slow": memory.slow_round,
    "idle-streams": partial(crowds.idle_round, streams=crowds.FEW_IDLE),
    "idle-streams-10k": crowds.idle_round,
    "live-streams": crowds.live_round,
    "gaps": crowds.gaps_round,
    "handover": handovers.handover_round,
    "quota": quota.quota_round,
    "agents": agents.agents_round,
}
# Rounds of many processes, one for each size of body.
_BODY_ROUNDS: dict[str, Dialect] = {
    "body-memory": MESSAGES,
    "chat-body-memory": CHAT,
    "responses-body-memory": RESPONSES,
}
SCENARIOS = (*_ROUNDS, *_BODY_ROUNDS, "ready")
# Run only if they are asked for.
CURVES = tuple(scale.CURVES)
# Scenarios in which a profile shows something.
PROFILED = {
    name: round
    for name, round in _ROUNDS.items()
    if name.endswith(("json", "sse")) and not name.startswith("tls")
}
# Scenarios of rounds in which a proxy is weighed: `direct` has no process for them.
_WEIGHED = frozenset({"memory", "idle", "slow", "idle-streams", "idle-streams-10k"})
# Scenarios of what only a relay does.
_RELAY_ONLY = frozenset({"handover", "quota", "agents"})
_TICKING = frozenset({"idle-streams", "idle-streams-10k", "live-streams", "gaps"})
# Scenarios in which `direct` is always measured: the time that a proxy adds is the figure.
ADDED = frozenset({"latency", "first", "gaps"})
_TRIES = 2  # of a round in which the load was the limit
_LARGE = frozenset({"json-300k", "json-1m"})
_SMALL = frozenset({"json-8", "paced", "latency", "rate", "quota"})
# Figures of the proxy's process, which a rival without a proxy does not have.
_PROXY_FIGURES = ("cpu_us", "share", "others")


async def measure(stage: Stage, chosen: tuple[str, ...]) -> Results:
    """Run all chosen scenarios, each in rounds that alternate between the rivals."""
    # A collection in the middle of a round would be charged to the rival measured then.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for name, round_of in _ROUNDS.items():
            if name in chosen:
                await _rounds(stage, name, round_of)
        for name, dialect in _BODY_ROUNDS.items():
            if name in chosen:
                await _body_rounds(stage, name, dialect)
        if "ready" in chosen:
            _ready(stage)
        for name in CURVES:
            if name in chosen:
                await _curve(stage, name)
    finally:
        gc.enable()
    return stage.results


def upstream_of(name: str) -> UpstreamKind:
    """The upstream behind the rivals of a scenario."""
    if name in _BODY_ROUNDS:
        return "held"
    if name in scale.CURVES:
        return scale.CURVES[name].upstream()
    if name in _LARGE:
        return upstream_of_json(large=True)
    if name in ("first", "starts"):
        return "stream"
    if name in _TICKING:
        return "ticking"
    if name == "http2-json":
        return upstream_of_http2()
    if name.startswith("tls"):
        return "tls-sse" if name == "tls-sse" else "tls"
    small = name in _SMALL or name.endswith("json")
    return upstream_of_json() if small else "simulator"


def in_turn(rivals: Sequence[Rival], number: int) -> Sequence[Rival]:
    """The rivals in the order of round `number`, which counts from 1."""
    return rivals if number % 2 else rivals[::-1]


async def _rounds(stage: Stage, name: str, round_of: Round) -> None:
    rivals = stage.testbeds[upstream_of(name)].rivals
    if name in _WEIGHED or not (name in ADDED or stage.direct):
        rivals = _proxies(rivals)
    if name in _RELAY_ONLY:
        rivals = [rival for rival in rivals if isinstance(rival, Relay)]
    if name.startswith("http2") or (
        name == "idle-streams-10k" and crowds.takes_http2(stage.settings.idle_streams)
    ):
        rivals = [rival for rival in rivals if rival.http2_ports is not None]
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            figures = await _run(stage, name, round_of, rival)
            _keep(stage, name, number, rival, figures)


async def _body_rounds(stage: Stage, name: str, dialect: Dialect) -> None:
    rivals = _proxies(stage.testbeds[upstream_of(name)].rivals)
    rivals = [rival for rival in rivals if dialect.name in rival.dialects]
    sizes = stage.settings.bodies
    for number in range(1, stage.settings.rounds + 1):
        found: dict[str, Figures] = {rival.name: {} for rival in rivals}
        for size in sizes:
            round_of = partial(memory.body_memory_round, size=size, dialect=dialect)
            for rival in in_turn(rivals, number):
                found[rival.name] |= await _run(stage, name, round_of, rival)
        for rival in in_turn(rivals, number):
            figures = found[rival.name]
            differences = memory.body_differences(figures, sizes)
            _keep(stage, name, number, rival, figures | differences)


def _ready(stage: Stage) -> None:
    rivals = _proxies(stage.testbeds[upstream_of("ready")].rivals)
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            process, seconds = rival.start(stage.cores.proxy)
            process.stop()
            _keep(stage, "ready", number, rival, {"ready_ms": seconds * 1e3})


def _proxies(rivals: Sequence[Rival]) -> list[Rival]:
    """The rivals with a process that can be started and weighed."""
    return [rival for rival in rivals if rival.is_proxy]


async def _curve(stage: Stage, name: str) -> None:
    curve = scale.CURVES[name]
    rivals = [rival for rival in stage.testbeds[upstream_of(name)].rivals if curve.is_for(rival)]
    for number in range(1, stage.settings.rounds + 1):
        found: dict[str, Figures] = {rival.name: {} for rival in rivals}
        for size in curve.up_to(stage.settings.largest):
            for rival in in_turn(rivals, number):
                grown = curve.rival(rival, name, size)
                point = await _run(stage, name, curve.at(size), grown)
                found[rival.name] |= {f"{figure}@{size}": it for figure, it in point.items()}
        for rival in in_turn(rivals, number):
            _keep(stage, name, number, rival, found[rival.name])


async def _run(stage: Stage, name: str, round_of: Round, rival: Rival) -> Figures:
    """The figures of one round; those of the last try where the load was the limit each time."""
    for tries in range(1, _TRIES + 1):
        try:
            with stage.running(rival) as process:
                return await round_of(stage, rival, process)
        except LimitedError as error:
            stage.notes.append(f"{name}: {rival.name}: {error}")
            figures = {**error.figures, "limited": float(tries)}
        except BenchError as error:
            raise BenchError(f"{name}: {error}") from None
        finally:
            gc.collect()
    return figures


def _keep(stage: Stage, name: str, number: int, rival: Rival, figures: Figures) -> None:
    if not rival.is_proxy:
        figures = {key: value for key, value in figures.items() if key not in _PROXY_FIGURES}
    stage.results.setdefault(name, {}).setdefault(rival.name, []).append(figures)
    stage.report_round(name, number, rival.name, figures)
