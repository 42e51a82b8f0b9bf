"""The output of a run while it goes on and at its end, and `python -m bench report`.

Decides the order of lines, tables, files and comparison. Must not know how a round is measured.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape

from bench import comparison, curves, page, report, stored, tables, timing
from bench.process import BenchError
from bench.progress import Progress
from bench.rows import all_rows
from bench.scenarios import measure
from bench.stage import Figures, Stage

_WIDTH = 130  # columns of the tables where the output is no terminal


def terminal() -> Console:
    """Where all is printed; without a terminal as wide as COLUMNS says."""
    found = Console()
    if not found.is_terminal:
        found.width = int(os.environ.get("COLUMNS", _WIDTH))
    return found


def fail(console: Console, error: Exception) -> NoReturn:
    """Print why there are no figures, and end with status 1."""
    console.print(f"[red]bench failed:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
    sys.exit(1)


async def measured(
    stage: Stage, scenarios: tuple[str, ...], proxies: int, console: Console
) -> None:
    """All rounds, with a line for each, and how long they will take."""
    settings, rows = stage.settings, all_rows(stage.settings)
    expected = {name: timing.scenario_s(name, settings, proxies) for name in scenarios}
    console.print(
        f"{_counted(len(scenarios), 'scenario')}, {_counted(proxies, 'rival')}, "
        f"{_counted(settings.rounds, 'round')} of "
        f"{settings.seconds:g} s: about {timing.spoken(sum(expected.values()))}.",
        highlight=False,
    )

    def report_round(scenario: str, number: int, rival: str, figures: Figures) -> None:
        text = report.line(rows, scenario, number, rival, figures)
        console.print(text, highlight=False, soft_wrap=True)
        progress.finished(scenario, rival)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with Progress(console, expected, settings.rounds, proxies) as progress:
        stage.report_round, stage.starting, stage.say = report_round, progress.starting, say
        await measure(stage, scenarios)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def save(console: Console, path: Path, run: stored.Run) -> None:
    """Write the figures, the page and the plots."""
    rows = all_rows(run.settings)
    more = {
        "summary": report.summary(rows, run.rounds, run.foreign),
        "curves": curves.of_results(run.rounds),
        "notes": report.notes(run.rounds),
    }
    stored.write(path, run, more)
    for title, written in (("figures", path), *(("page", one) for one in page.write(run, path))):
        console.print(f"{title}: {written}", highlight=False, soft_wrap=True)


@click.command("report", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--compare", type=click.Path(path_type=Path), metavar="OLD.json")
@click.option(
    "--page",
    "page_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page goes, and the plots beside it; beside the result by default.",
)
def show_stored(result: Path, compare: Path | None, page_path: Path | None) -> None:
    """Show a stored result again, and write its page; compare it with an older one."""
    console = terminal()
    try:
        run = stored.read(result)
        before = None if compare is None else stored.read(compare)
    except (BenchError, OSError) as error:
        fail(console, error)
    tables.show(console, run)
    is_worse = before is not None and comparison.show(console, before, run)
    try:
        written = page.write(run, stored.new_path(page_path or result))
    except (BenchError, OSError) as error:
        fail(console, error)
    for one in written:
        console.print(f"page: {one}", highlight=False, soft_wrap=True)
    if is_worse:
        sys.exit(comparison.STATUS)
