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

from rich.markup import escape

from bench import agents, crowds, handovers, memory, open_loop, quota, rounds, scale
from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from bench.headroom import LimitedError, refusal
from bench.process import BenchError, Process
from bench.rivals.relay import Relay
from bench.rivals.rival import Rival
from bench.rounds import upstream_of_http2, upstream_of_json
from bench.stage import (
    Figures,
    NotStartedError,
    Results,
    Stage,
    UpstreamError,
    UpstreamKind,
)

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
# Stands for all scenarios where a rival cannot be started.
EVERYWHERE = "all"
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
# Scenarios without a stream, and the one without a request.
_UNSTREAMED = frozenset({"json", *_SMALL, "http2-json", *_LARGE})
_SILENT = "ready"
# Figures of the proxy's process, which a rival without a proxy does not have.
_PROXY_FIGURES = ("cpu_us", "share", "others", "rss_mib")


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
        gc.unfreeze()
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


def generators(names: Sequence[str]) -> list[str]:
    """The load generators of other makers that these scenarios use."""
    kinds = {
        "wrk": [name for name in names if _has_wrk(name)],
        "oha": [name for name in names if name == "rate"],
        "h2load": [name for name in names if name.endswith("http2-json")],
    }
    return [generator for generator, found in kinds.items() if found]


def _has_wrk(name: str) -> bool:
    if name.endswith("http2-json"):
        return False
    return name in ("json-8", "rate", *_LARGE) or (
        name.endswith("json") or (name in CURVES and name != "curve-streams")
    )


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
    rivals = _able(stage, name, rivals)
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            figures = await _run(stage, name, round_of, rival)
            if figures is not None:
                _keep(stage, name, number, rival, figures)


async def _body_rounds(stage: Stage, name: str, dialect: Dialect) -> None:
    rivals = _proxies(stage.testbeds[upstream_of(name)].rivals)
    rivals = _able(stage, name, [rival for rival in rivals if dialect.name in rival.dialects])
    sizes = stage.settings.bodies
    for number in range(1, stage.settings.rounds + 1):
        found: dict[str, Figures] = {rival.name: {} for rival in rivals}
        for size in sizes:
            round_of = partial(memory.body_memory_round, size=size, dialect=dialect)
            for rival in in_turn(rivals, number):
                found[rival.name] |= await _run(stage, name, round_of, rival) or {}
        for rival in in_turn(rivals, number):
            figures = found[rival.name]
            if _is_measured(stage, name, rival):
                differences = memory.body_differences(figures, sizes)
                _keep(stage, name, number, rival, figures | differences)


def _ready(stage: Stage) -> None:
    rivals = _proxies(stage.testbeds[upstream_of(_SILENT)].rivals)
    for number in range(1, stage.settings.rounds + 1):
        for rival in in_turn(rivals, number):
            if not _is_measured(stage, _SILENT, rival):
                continue
            stage.starting(_SILENT, rival.name)
            try:
                process, seconds = stage.start(rival)
            except BenchError as error:
                _refuse(stage, _SILENT, rival, error)
                continue
            process.stop()
            _keep(stage, _SILENT, number, rival, {"ready_ms": seconds * 1e3})


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
                # A refused size is no point; a note says why.
                if point and not refusal(point):
                    found[rival.name] |= {f"{figure}@{size}": it for figure, it in point.items()}
        for rival in in_turn(rivals, number):
            _keep(stage, name, number, rival, found[rival.name])


def lack(name: str, rival: Rival) -> str:
    """Why a rival cannot take part in a scenario; empty if it can."""
    if name in rival.unable:
        return rival.unable[name]
    if name == _SILENT or rival.plain:
        return ""
    for dialect in _spoken(name):
        if dialect not in rival.dialects:
            return f"it does not have the dialect {dialect}"
        if _is_streamed(name) and dialect not in rival.streams:
            return f"it does not stream {dialect}"
    return ""


def _is_streamed(name: str) -> bool:
    return name not in _UNSTREAMED and not name.endswith("-json")


def _spoken(name: str) -> Sequence[str]:
    """The dialects of a scenario, as its name has them."""
    dialect = next((it.name for it in (CHAT, RESPONSES) if name.startswith(it.name)), MESSAGES.name)
    return (MESSAGES.name, dialect) if name == "chat-first" else (dialect,)


def _able(stage: Stage, name: str, rivals: Sequence[Rival]) -> list[Rival]:
    """The rivals that can take part; why the others cannot is kept and said."""
    able = []
    for rival in rivals:
        reason = lack(name, rival)
        if reason:
            stage.left_out.setdefault(name, {})[rival.name] = reason
            stage.say(f"{name}: {rival.name} is left out: {reason}")
        else:
            able.append(rival)
            streams = stage.streams_at_once(rival)
            if streams < stage.settings.streams and name.endswith(("sse", "memory")):
                stage.say(f"{name}: {rival.name} has {streams} streams: it cannot carry more")
    return able


async def _run(stage: Stage, name: str, round_of: Round, rival: Rival) -> Figures | None:
    """The figures of a round; None if the rival is refused in this scenario.

    Where the load was the limit each time, they are those that say so.
    """
    if not _is_measured(stage, name, rival):
        return None
    figures: Figures = {}
    for tries in range(1, _TRIES + 1):
        stage.starting(name, rival.name)
        try:
            with stage.running(rival) as process:
                return await round_of(stage, rival, process)
        except LimitedError as error:
            stage.notes.append(f"{name}: {rival.name}: {error}")
            figures = {**error.figures, "limited": float(tries)}
        except (BenchError, OSError) as error:
            _refuse(stage, name, rival, error)
            return None
        finally:
            gc.collect()
    return figures


def _is_measured(stage: Stage, name: str, rival: Rival) -> bool:
    return not any(rival.name in stage.refused.get(it, ()) for it in (name, EVERYWHERE))


def _refuse(stage: Stage, name: str, rival: Rival, error: BenchError | OSError) -> None:
    """Leave a rival out of a scenario in which it failed, with its earlier rounds.

    Raises:
        BenchError: the failure is the upstream's, and ends the run.
    """
    if isinstance(error, UpstreamError):
        raise BenchError(f"{name}: {error}") from None
    where = EVERYWHERE if isinstance(error, NotStartedError) else name
    stage.refused.setdefault(where, {})[rival.name] = str(error)
    stage.results.get(name, {}).pop(rival.name, None)
    reason = str(error).partition("\n")[0]
    stage.say(f"[red]{name}: {rival.name} is refused:[/] {escape(reason)}")


def _keep(stage: Stage, name: str, number: int, rival: Rival, figures: Figures) -> None:
    if not rival.is_proxy:
        figures = {key: value for key, value in figures.items() if key not in _PROXY_FIGURES}
    stage.results.setdefault(name, {}).setdefault(rival.name, []).append(figures)
    stage.report_round(name, number, rival.name, figures)
