"""`python -m bench`: options in, table and JSON out.

Decides nothing but the order: upstream, rivals, rounds, report. Ends with status 1 when an
answer was wrong or a process failed, 130 when interrupted; all processes it started have ended
by then.
"""

import asyncio
import pstats
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console

from bench import report
from bench.process import BenchError, Cores, pin
from bench.rivals import Nginx, Relay, Rival, nginx_program, start_replay, start_upstream
from bench.scenarios import PROFILED, REPLAYED, SCENARIOS, measure
from bench.stage import Figures, Settings, Stage, record

_RIVALS = ("nginx", "relay")


@dataclass(frozen=True, slots=True)
class _Plan:
    settings: Settings
    scenarios: tuple[str, ...]
    rivals: tuple[str, ...]
    replayed: bool
    upstreams: int
    json: Path | None
    profile: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.5, 300),
    help="Measured time of a round.",
)
@click.option("--connections", default=64, show_default=True, type=click.IntRange(1, 4096))
@click.option("--streams", default=300, show_default=True, type=click.IntRange(1, 4096))
@click.option(
    "--pace",
    default=25.0,
    show_default=True,
    type=click.FloatRange(1, 1000),
    help="Events per second of each stream.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(SCENARIOS),
    help="A scenario to run; may be repeated. All by default.",
)
@click.option(
    "--rival",
    multiple=True,
    type=click.Choice(_RIVALS),
    help="Measure this proxy; may be repeated. Both by default.",
)
@click.option(
    "--upstream",
    default="replay",
    show_default=True,
    type=click.Choice(("replay", "simulate")),
    help="Who answers in the json scenarios: the simulator itself, or one answer of it replayed, "
    "which is cheap enough to keep both proxies busy.",
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
    help="Where the figures go; a new file in bench/results/ by default.",
)
@click.option(
    "--profile", is_flag=True, help="Also profile relay; costs are then only shares of a whole."
)
def main(
    rounds: int,
    seconds: float,
    connections: int,
    streams: int,
    pace: float,
    only: tuple[str, ...],
    rival: tuple[str, ...],
    upstream: str,
    upstreams: int,
    json_path: Path | None,
    profile: bool,
) -> None:
    """relay measured beside nginx: same upstream, same clients, one core for the proxy."""
    console = Console()
    if not console.is_terminal:
        console.width = 100
    plan = _Plan(
        settings=Settings(rounds, seconds, connections, streams, pace),
        scenarios=only or SCENARIOS,
        rivals=rival or _RIVALS,
        replayed=upstream == "replay",
        upstreams=upstreams,
        json=json_path,
        profile=profile,
    )
    _lift_descriptor_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(plan, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; all processes have ended")
        sys.exit(130)
    except (BenchError, OSError) as error:
        console.print(f"[red]bench failed:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)


async def _run(plan: _Plan, console: Console) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cores = Cores.choose()
    if cores.shared:
        console.print("[yellow]note:[/] one core only: rates and latencies mean little here.")
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        pin(cores.load)
        upstream, port = start_upstream(folder, cores.load)
        held.enter_context(upstream)
        rivals = _rivals(plan, folder / "simulate", port)
        json_upstream, json_rivals = upstream, rivals
        if plan.replayed and not REPLAYED.isdisjoint(plan.scenarios):
            answer = (await record(port)).answer
            json_upstream, json_port = start_replay(folder, cores.load, answer)
            held.enter_context(json_upstream)
            json_rivals = _rivals(plan, folder / "replay", json_port)
        missing = [name for name in plan.rivals if name not in {rival.name for rival in rivals}]
        if "nginx" in missing:
            console.print(
                "[yellow]note:[/] nginx is not installed (Debian: apt-get install nginx-light): "
                "relay is measured alone, without ratios."
            )

        def told(scenario: str, number: int, rival: str, figures: Figures) -> None:
            console.print(
                report.line(scenario, number, rival, figures), highlight=False, soft_wrap=True
            )

        stage = Stage(
            plan.settings, cores, upstream, port, rivals, json_upstream, json_rivals, told
        )
        results = await measure(stage, plan.scenarios)
        report.show(console, results)
        versions = {rival.name: rival.version for rival in rivals}
        path = report.save(plan.json, plan.settings, versions, results)
        console.print(f"figures: {path}", highlight=False, soft_wrap=True)
        if plan.profile:
            await _profile(stage, plan.scenarios, console)


def _rivals(plan: _Plan, folder: Path, upstream: int) -> list[Rival]:
    names = plan.rivals
    found: list[Rival] = []
    if "nginx" in names and nginx_program() is not None:
        found.append(Nginx(folder / "nginx", upstream))
    if "relay" in names:
        found.append(Relay(folder / "relay", upstream, plan.upstreams))
    if not found:
        raise BenchError("nothing to measure: nginx is not installed")
    return found


async def _profile(stage: Stage, scenarios: tuple[str, ...], console: Console) -> None:
    """Where relay's own Python time goes; the profiler itself makes everything slower."""
    for name, one_round in PROFILED.items():
        if name not in scenarios:
            continue
        for rival in stage.json_rivals if name in REPLAYED else stage.rivals:
            if not isinstance(rival, Relay):
                continue
            rival.profile = report.RESULTS / f"profile-{name}.prof"
            rival.profile.parent.mkdir(parents=True, exist_ok=True)
            rival.profile.unlink(missing_ok=True)
            try:
                with stage.running(rival) as process:
                    await one_round(stage, rival, process)
                    process.stop()
            finally:
                made, rival.profile = rival.profile, None
            if not made.exists():
                raise BenchError(f"relay left no profile: {process.tail()}")
            console.print(f"\n{name}: {made}", highlight=False, soft_wrap=True)
            pstats.Stats(str(made)).sort_stats("tottime").print_stats(25)


def _lift_descriptor_limit() -> None:
    """A thousand connections need more descriptors than the usual 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main(prog_name="python -m bench")
