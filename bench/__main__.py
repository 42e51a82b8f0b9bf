"""`python -m bench`: options in; tables, a page and JSON out.

Decides nothing but the order: upstreams, rivals, rounds, report. `run` is the command where none
is named. Ends with status 1 when an answer was wrong or a process failed, 3 when `--compare`
found a figure worse than before, 130 when interrupted; all processes it started have ended by
then.
"""

import asyncio
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from bench import comparison, reporting, stored, tables, timing
from bench.bodies import octets
from bench.certificate import Certificate
from bench.dialects import CHAT, MESSAGES, RESPONSES
from bench.process import BenchError, Cores, interrupted_by_signals, pin, stop_all
from bench.profile import profile_all, profile_natively, profile_python
from bench.programs import missing as missing_generators
from bench.rivals.choice import Choice, folder_option, rival_option
from bench.rivals.direct import Direct
from bench.rivals.nginx import Nginx
from bench.rivals.program import Program
from bench.rivals.relay import THIS, Build, Relay, build_option, checkout
from bench.rivals.rival import Rival
from bench.rounds import upstream_of_json
from bench.scenarios import ADDED, CURVES, PROFILED, SCENARIOS, generators, upstream_of
from bench.stage import (
    Settings,
    Stage,
    Testbed,
    UpstreamKind,
    record,
    record_ends,
    record_opening,
    record_stream,
)
from bench.upstreams import start_replay, start_simulator, start_static, start_ticking

_PROFILED = ("json", "sse")
_QUICK = {"rounds": 1, "seconds": 1.0, "streams": 50, "idle_streams": 200, "live_streams": 200}


@dataclass(frozen=True, slots=True)
class _Plan:
    """The options of one run."""

    settings: Settings
    fitted: bool  # whether windows are as long as the bound of the run lets them be
    scenarios: tuple[str, ...]
    rivals: Choice
    builds: tuple[Build, ...]
    replayed: bool
    upstreams: int
    json_path: Path | None
    before: stored.Run | None  # an older run to compare with
    profile: bool
    perf: bool
    only_profile: bool = False

    @classmethod
    def of(cls, options: dict[str, Any]) -> "_Plan":
        names = (
            *("rounds", "seconds", "connections", "rate", "streams", "pace", "bodies"),
            *("idle_streams", "live_streams", "largest", "most_others"),
        )
        builds = list(options["builds"])
        if options["before"] is not None:
            builds.append(checkout(options["before"]))
        rivals = Choice.of(options["wanted"], options["rivals_folder"])
        if "relay" in rivals.references:
            builds.append(THIS)
        names_taken = Counter(one.name for one in (*builds, *rivals.programs))
        name, times = names_taken.most_common(1)[0] if names_taken else ("", 0)
        if times > 1:
            raise BenchError(f"two rivals have the name {name!r}")
        fitted = options["seconds"] is None
        options["seconds"] = options["seconds"] or Settings().seconds
        settings = Settings(**{name: options[name] for name in names})
        return cls(
            settings=settings,
            fitted=fitted,
            scenarios=_scenarios(options),
            rivals=rivals,
            builds=_checked(builds),
            replayed=options["upstream"] == "replay",
            upstreams=options["upstreams"],
            json_path=options["json_path"],
            before=None if options["compare"] is None else stored.read(options["compare"]),
            profile=options["profile"],
            perf=options["perf"],
        )


def _scenarios(options: dict[str, Any]) -> tuple[str, ...]:
    if options["only"] or options["curves"]:
        return tuple(dict.fromkeys((*options["only"], *(CURVES if options["curves"] else ()))))
    return timing.QUICK if options["quick"] else SCENARIOS


def _checked(builds: Sequence[Build]) -> tuple[Build, ...]:
    """The builds, each of which runs. Raises BenchError."""
    for build in builds:
        build.found()
    return tuple(builds)


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """`"1m,1k"` → `("1k", "1m")`, the smallest first."""
    try:
        sizes = sorted({size.strip().lower() for size in value.split(",")}, key=octets)
        for dialect in (MESSAGES, CHAT, RESPONSES):
            dialect.request(0, "", "", stream=True, body_size=octets(sizes[0]))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return tuple(sizes)


def _quick(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Other defaults: an option that is given keeps its value."""
    if value:
        context.default_map = _QUICK
    return value


def _figures(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """The page is written beside the figures, under their name with `.html`."""
    if value is not None and value.suffix == ".html":
        raise click.BadParameter(f"the page goes to {value}: give the figures a name in .json")
    return value


class _Number(click.FloatRange):
    """`nan` is in no range, but it is on neither side of one either."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        found = float(super().convert(value, parameter, context))
        if isnan(found):
            self.fail(f"{value!r} is no number.", parameter, context)
        return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--seconds",
    type=_Number(0.5, 300),
    help="Measured time of a round; 5 by default, less where the run would take over 20 minutes.",
)
@click.option("--connections", default=32, show_default=True, type=click.IntRange(1, 4096))
@click.option(
    "--rate",
    default=4600.0,
    show_default=True,
    type=_Number(1, 20_000),
    help="Requests per second in the paced scenario.",
)
@click.option("--streams", default=300, show_default=True, type=click.IntRange(1, 4096))
@click.option(
    "--pace",
    default=25.0,
    show_default=True,
    type=_Number(1, 1000),
    help="Events per second of each stream.",
)
@click.option(
    "--bodies",
    default="1k,100k,300k,1m",
    show_default=True,
    callback=_sizes,
    help="Sizes of request bodies in the body-memory scenarios, in octets (1k is 1,000).",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice((*SCENARIOS, *CURVES)),
    help="A scenario to run; may be repeated. All by default, but no curve.",
)
@click.option(
    "--curves", is_flag=True, help="Run the curves, and no other scenario but those of --only."
)
@click.option(
    "--largest",
    default=10_000_000,
    show_default=True,
    type=click.IntRange(0),
    help="The largest size of a curve.",
)
@click.option(
    "--idle-streams",
    default=10_000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Streams in idle-streams-10k.",
)
@click.option(
    "--live-streams",
    default=5_000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Streams in live-streams.",
)
@click.option(
    "--most-others",
    default=0.5,
    show_default=True,
    envvar="RELAY_BENCH_MOST_OTHERS",
    type=_Number(0.05, 1),
    help="Refuse a round in which other processes used more than this share of the proxy's core.",
)
@rival_option
@folder_option
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of an older relay, measured in turns with this one: "
    "the ratio relay/before shows the effect of a change.",
)
@build_option
@click.option(
    "--upstream",
    default="replay",
    show_default=True,
    type=click.Choice(("replay", "simulate")),
    help="The upstream of the json scenarios: the simulator itself, or one answer of it replayed, "
    "which is cheap enough to keep a proxy busy.",
)
@click.option(
    "--upstreams",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many upstreams relay chooses from, all of them the same server.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_figures,
    help="Where the figures go; a new file in bench/results/ by default. The page and the plots "
    "are written beside it.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OLD.json",
    help="Compare with the figures of an older run, by ratios to nginx; status 3 if one is worse.",
)
@click.option(
    "--quick",
    is_flag=True,
    is_eager=True,
    callback=_quick,
    help="A minute: the main scenarios, a round of a second. Other options still hold.",
)
@click.option("--profile", is_flag=True, help="Also profile relay: its costs are then shares only.")
@click.option("--perf", is_flag=True, help="Also show relay's costs by function and by part.")
def main(**options: Any) -> None:
    """relay measured beside its rivals: same upstream, same clients, one core for the proxy.

    Other commands: `profile` shows where relay's time goes, `report` shows a stored result again.
    """
    console = reporting.terminal()
    _carry_out(console, lambda: _Plan.of(options))


def _carry_out(console: Console, planned: Callable[[], _Plan]) -> None:
    """Run a plan, and exit with its status."""
    _lift_descriptor_limit()
    interrupted_by_signals()
    try:
        plan = planned()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(_run(plan, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        stop_all()
        with suppress(OSError):  # the terminal may be gone
            console.print("interrupted; all processes have ended")
        sys.exit(130)
    except (BenchError, OSError) as error:
        reporting.fail(console, error)
    sys.exit(status)


async def _run(plan: _Plan, console: Console) -> int:
    """Measure and report; the exit status."""
    cores = Cores.choose()
    if cores.shared:
        console.print("[yellow]note:[/] one core only: rates and latencies mean little here.")

    path = stored.new_path(plan.json_path)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        pin(cores.load)
        testbeds = await _testbeds(plan, cores, folder, held)
        rivals = testbeds["simulator"].rivals
        for missing in plan.rivals.missing:
            console.print(f"[yellow]note:[/] {missing}", highlight=False, soft_wrap=True)
        settings = plan.settings
        proxies = sum(rival.is_proxy for rival in rivals)
        if plan.fitted:
            settings = timing.fitted(plan.scenarios, settings, proxies)
        stage = Stage(settings, cores, testbeds, lambda scenario, number, rival, figures: None)
        if plan.only_profile:
            await profile_all(stage, plan.scenarios, console)
            return 0
        stage.direct = "direct" in plan.rivals.references
        try:
            await reporting.measured(stage, plan.scenarios, proxies, console)
        except BenchError as error:
            stage.notes.append(f"the run ended early: {str(error).partition(chr(10))[0]}")
            reporting.save(console, path, stored.Run.of(stage, rivals))
            raise
        if not stage.refused and not any(stage.results.values()):
            raise BenchError("nothing was measured: no rival has a part in these scenarios")
        stage.notes += missing_generators(generators(plan.scenarios))
        run = stored.Run.of(stage, rivals)
        tables.show(console, run)
        reporting.save(console, path, run)
        if plan.profile:
            await profile_python(stage, plan.scenarios, console)
        if plan.perf:
            await profile_natively(stage, plan.scenarios, console)
    is_worse = plan.before is not None and comparison.show(console, plan.before, run)
    return 1 if stage.refused else comparison.STATUS if is_worse else 0


async def _testbeds(
    plan: _Plan, cores: Cores, folder: Path, held: ExitStack
) -> dict[UpstreamKind, Testbed]:
    """The upstreams that the scenarios need, running, each with its rivals configured."""
    needed = {upstream_of(name) for name in plan.scenarios}
    simulator, port = start_simulator(folder, cores.load)
    held.enter_context(simulator)
    testbed = Testbed(simulator, port, _rivals(plan, folder / "simulator", port))
    found: dict[UpstreamKind, Testbed] = {"simulator": testbed, "replay": testbed}
    recorded: dict[UpstreamKind, bytes] = {}
    small = upstream_of_json() if plan.replayed else "simulator"
    if not plan.replayed:
        found |= {"static": testbed, "stream": testbed}
    else:
        if "tls" in needed:
            needed |= {small}
        for kind in needed & {"replay", "static"}:
            recorded[kind] = (await record(port)).answer
        if "stream" in needed:
            recorded["stream"] = await record_stream(port)
    if "held" in needed:
        recorded["held"] = await record_opening(port)
    for kind, answer in recorded.items():
        (folder / kind).mkdir()
        start = start_static if kind == "static" else start_replay
        replay, replay_port = start(folder / kind, cores.load, answer)
        held.enter_context(replay)
        found[kind] = Testbed(replay, replay_port, _rivals(plan, folder / kind, replay_port))
    if "ticking" in needed:
        ends = await record_ends(port)
        (folder / "ticking").mkdir()
        ticking, ticking_port = start_ticking(folder / "ticking", cores.load, *ends)
        held.enter_context(ticking)
        rivals = _rivals(plan, folder / "ticking", ticking_port)
        found["ticking"] = Testbed(ticking, ticking_port, rivals)
    plain: dict[UpstreamKind, UpstreamKind] = {"tls": small, "tls-sse": "simulator"}
    for kind in needed & plain.keys():
        found[kind] = _secured(found[plain[kind]], folder / kind)
    return found


def _secured(testbed: Testbed, folder: Path) -> Testbed:
    """The same upstream behind the rivals that can speak TLS."""
    folder.mkdir()
    certificate = Certificate.issue(folder)
    found = (one.secured(folder / one.name, certificate) for one in testbed.rivals)
    rivals = [rival for rival in found if rival is not None]
    return Testbed(testbed.upstream, testbed.port, rivals)


def _rivals(plan: _Plan, folder: Path, upstream: int) -> list[Rival]:
    """The rivals to measure; `before` comes next to `relay`."""
    found: list[Rival] = []
    if "direct" in plan.rivals.references or ADDED.intersection(plan.scenarios):
        found.append(Direct(folder / "direct", upstream))
    if "nginx" in plan.rivals.references:
        found.append(Nginx(folder / "nginx", upstream))
    for recipe in plan.rivals.programs:
        found.append(Program(folder / recipe.name, upstream, recipe))
    for build in plan.builds:
        found.append(Relay(folder / build.name, upstream, plan.upstreams, build))
    if not found:
        raise BenchError("\n".join(("nothing to measure", *plan.rivals.missing)))
    return found


def _lift_descriptor_limit() -> None:
    """A thousand connections need more descriptors than the usual 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(tuple(PROFILED)),
    help=f"A scenario to profile; may be repeated. {' and '.join(_PROFILED)} by default.",
)
@click.option("--seconds", default=5.0, show_default=True, type=_Number(0.5, 300))
@build_option
def profile(only: Sequence[str], seconds: float, builds: Sequence[Build]) -> None:
    """Where relay's time goes: flame graphs, functions and parts, allocations per request."""
    arguments = ["--rival", "relay", "--rounds", "1", "--seconds", str(seconds)]
    for name in only or _PROFILED:
        arguments += ["--only", name]
    options = main.make_context("run", arguments).params | {"builds": tuple(builds)}
    _carry_out(reporting.terminal(), lambda: replace(_Plan.of(options), only_profile=True))


class _Program(click.Group):
    """The commands; without the name of one, `run`."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not arguments or arguments[0] not in self.commands:
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


program = _Program(commands={"run": main, "profile": profile, "report": reporting.show_stored})


if __name__ == "__main__":
    program(prog_name="python -m bench")
