"""The scenarios, and the order of their rounds.

Decides which rivals a scenario has, which process a round gets, and who comes first. In a round
the rivals follow each other directly; every second round has them in reverse, so that a drift of
the machine meets all of them alike. Must not know how a rival is configured, nor what a round does.
"""

import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial

from bench import memory, rounds
from bench.dialects import CHAT, RESPONSES
from bench.loadgen import LoadError
from bench.process import Process
from bench.rivals.rival import Rival
from bench.stage import Figures, Results, Stage, UpstreamKind, explained

Round = Callable[[Stage, Rival, Process], Awaitable[Figures]]

# Rounds on a process that serves all rounds of its scenario.
_SHARED: dict[str, Round] = {
    "json": rounds.json_round,
    "latency": rounds.latency_round,
    "sse": rounds.sse_round,
    "chat-json": partial(rounds.json_round, dialect=CHAT),
    "chat-sse": partial(rounds.sse_round, dialect=CHAT),
    "chat-first": rounds.chat_first_round,
    "responses-json": partial(rounds.json_round, dialect=RESPONSES),
    "responses-sse": partial(rounds.sse_round, dialect=RESPONSES),
}
# Rounds that need a process which has served nothing before.
_FRESH: dict[str, Round] = {
    "memory": memory.memory_round,
    "idle": memory.idle_round,
    "slow": memory.slow_round,
}
SCENARIOS = (*_SHARED, *_FRESH, "ready")
# Scenarios whose upstream is `replay`, unless the simulator is asked for.
REPLAYED = frozenset({"json", "chat-json", "responses-json"})
# Scenarios in which a profile shows something.
PROFILED = {name: round for name, round in _SHARED.items() if name.endswith(("json", "sse"))}
# Figures of the proxy's process, which a rival without a proxy does not have.
_PROXY_FIGURES = ("cpu_us", "share", "others")


async def measure(stage: Stage, chosen: tuple[str, ...]) -> Results:
    """Run all chosen scenarios, each in rounds that alternate between the rivals."""
    # A collection in the middle of a round would be charged to the rival measured then.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for name, round_of in _SHARED.items():
            if name in chosen:
                await _shared_rounds(stage, name, round_of)
        for name, round_of in _FRESH.items():
            if name in chosen:
                await _fresh_rounds(stage, name, round_of)
        if "ready" in chosen:
            _ready(stage)
    finally:
        gc.enable()
    return stage.results


def upstream_of(name: str) -> UpstreamKind:
    """The upstream behind the rivals of a scenario."""
    return "replay" if name in REPLAYED else "simulator"


def in_turn(rivals: Sequence[Rival], number: int) -> Sequence[Rival]:
    """The rivals in the order of round `number`, which counts from 1."""
    return rivals if number % 2 else rivals[::-1]


async def _shared_rounds(stage: Stage, name: str, round_of: Round) -> None:
    rivals = stage.testbeds[upstream_of(name)].rivals
    with ExitStack() as held:
        processes = {rival.name: held.enter_context(stage.running(rival)) for rival in rivals}
        for number in range(1, stage.settings.rounds + 1):
            for rival in in_turn(rivals, number):
                figures = await _run(stage, name, round_of, rival, processes[rival.name])
                _keep(stage, name, number, rival, figures)


async def _fresh_rounds(stage: Stage, name: str, round_of: Round) -> None:
    rivals = _proxies(stage, name)
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            with stage.running(rival) as process:
                figures = await _run(stage, name, round_of, rival, process)
            _keep(stage, name, number, rival, figures)


def _ready(stage: Stage) -> None:
    rivals = _proxies(stage, "ready")
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            process, seconds = rival.start(stage.cores.proxy)
            process.stop()
            _keep(stage, "ready", number, rival, {"ready_ms": seconds * 1e3})


def _proxies(stage: Stage, name: str) -> list[Rival]:
    """The rivals with a process that can be started and weighed."""
    return [rival for rival in stage.testbeds[upstream_of(name)].rivals if rival.is_proxy]


async def _run(stage: Stage, name: str, round_of: Round, rival: Rival, process: Process) -> Figures:
    try:
        return await round_of(stage, rival, process)
    except LoadError as error:
        raise explained(rival, process, LoadError(f"{name}: {error}")) from None
    finally:
        gc.collect()


def _keep(stage: Stage, name: str, number: int, rival: Rival, figures: Figures) -> None:
    if not rival.is_proxy:
        figures = {key: value for key, value in figures.items() if key not in _PROXY_FIGURES}
    stage.results.setdefault(name, {}).setdefault(rival.name, []).append(figures)
    stage.report_round(name, number, rival.name, figures)
