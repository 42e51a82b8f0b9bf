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

from bench import memory, rounds
from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from bench.process import BenchError, Process
from bench.rivals.rival import Rival
from bench.rounds import upstream_of_json
from bench.stage import Figures, Results, Stage, UpstreamKind

Round = Callable[[Stage, Rival, Process], Awaitable[Figures]]

_ROUNDS: dict[str, Round] = {
    "json": rounds.json_round,
    "json-8": partial(rounds.json_round, connections=8),
    "paced": rounds.paced_round,
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
    "json-300k": partial(rounds.json_round, connections=8, body="300k"),
    "json-1m": partial(rounds.json_round, connections=8, body="1m"),
    "memory": memory.memory_round,
    "idle": memory.idle_round,
    "slow": memory.slow_round,
}
# Rounds of many processes, one for each size of body.
_BODY_ROUNDS: dict[str, Dialect] = {
    "body-memory": MESSAGES,
    "chat-body-memory": CHAT,
    "responses-body-memory": RESPONSES,
}
SCENARIOS = (*_ROUNDS, *_BODY_ROUNDS, "ready")
# Scenarios in which a profile shows something.
PROFILED = {name: round for name, round in _ROUNDS.items() if name.endswith(("json", "sse"))}
# Scenarios of rounds in which a proxy is weighed: `direct` has no process for them.
_WEIGHED = frozenset({"memory", "idle", "slow"})
# Scenarios in which `direct` is always measured: the time that a proxy adds is the figure.
ADDED = frozenset({"latency", "first"})
_LARGE = frozenset({"json-300k", "json-1m"})
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
    finally:
        gc.enable()
    return stage.results


def upstream_of(name: str) -> UpstreamKind:
    """The upstream behind the rivals of a scenario."""
    if name in _BODY_ROUNDS:
        return "held"
    if name in _LARGE:
        return upstream_of_json(large=True)
    if name == "first":
        return "stream"
    if name == "http2-json":
        return "replay"
    small = name in ("json-8", "paced", "latency") or name.endswith("json")
    return upstream_of_json() if small else "simulator"


def in_turn(rivals: Sequence[Rival], number: int) -> Sequence[Rival]:
    """The rivals in the order of round `number`, which counts from 1."""
    return rivals if number % 2 else rivals[::-1]


async def _rounds(stage: Stage, name: str, round_of: Round) -> None:
    rivals = stage.testbeds[upstream_of(name)].rivals
    if name in _WEIGHED or not (name in ADDED or stage.direct):
        rivals = _proxies(rivals)
    if name.startswith("http2"):
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
            stage.starting("ready", rival.name)
            process, seconds = rival.start(stage.cores.proxy)
            process.stop()
            _keep(stage, "ready", number, rival, {"ready_ms": seconds * 1e3})


def _proxies(rivals: Sequence[Rival]) -> list[Rival]:
    """The rivals with a process that can be started and weighed."""
    return [rival for rival in rivals if rival.is_proxy]


async def _run(stage: Stage, name: str, round_of: Round, rival: Rival) -> Figures:
    stage.starting(name, rival.name)
    try:
        with stage.running(rival) as process:
            return await round_of(stage, rival, process)
    except BenchError as error:
        raise BenchError(f"{name}: {error}") from None
    finally:
        gc.collect()


def _keep(stage: Stage, name: str, number: int, rival: Rival, figures: Figures) -> None:
    if not rival.is_proxy:
        figures = {key: value for key, value in figures.items() if key not in _PROXY_FIGURES}
    stage.results.setdefault(name, {}).setdefault(rival.name, []).append(figures)
    stage.report_round(name, number, rival.name, figures)
