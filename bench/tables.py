"""Figures on the screen: a table for each group of scenarios, the goals, and curves.

Decides how figures are laid out. Rivals are columns while all of them fit into the width. Else
they are lines, in a table for each scenario. Must not know how a figure was measured or judged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import curves
from bench.groups import grouped
from bench.report import Ratio, by_round, notes, shown_rows, summary, values_of
from bench.rows import Row, all_rows
from bench.stored import Run


def show(console: Console, run: Run) -> None:
    """The figures, the goals, and the notes on how far the figures go."""
    figures = summary(rows := all_rows(run.settings), run.rounds, run.foreign)
    shown = shown_rows(rows, figures)
    if shown:
        console.print("\nMedian of rounds ± half their range.", style="dim", highlight=False)
    for table in _groups(console, run, shown, figures):
        console.print(table)
    for table in _curves(console, run):
        console.print(table)
    if any(row.goal for row in shown) and run.builds:
        console.print(_goals(shown, figures, run.builds))
    for note in (*notes(run.rounds), *run.remarks):
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True)


def _groups(
    console: Console, run: Run, shown: Sequence[Row], figures: Mapping[str, Any]
) -> Iterator[Table]:
    scenarios = dict.fromkeys(row.scenario for row in shown)
    for title, names in grouped(scenarios).items():
        rows = [row for name in names for row in shown if row.scenario == name]
        table = _by_figure(title, run, rows, figures)
        if _fits(console, table):
            yield table
            continue
        for scenario, of_scenario in groupby(rows, lambda row: row.scenario):
            yield from _by_rival(console, f"{title}: {scenario}", run, list(of_scenario))


def _by_figure(title: str, run: Run, rows: Sequence[Row], figures: Mapping[str, Any]) -> Table:
    """A line for each figure; columns for rivals, for ratios to nginx and to other builds."""
    own = run.builds
    others = [name for name in own if name != "relay"] if "relay" in own else []
    measured = {name for row in rows for name in run.rounds[row.scenario]}
    names = [name for name in run.names if name in measured]
    ratios = [name for name in own if "nginx" in measured and name in measured]
    table = _table(title, ["", *names, *(f"{it}/nginx" for it in ratios)])
    for name in others:
        table.add_column(f"relay/{name}", justify="right", no_wrap=True)
    for row in rows:
        rounds = run.rounds[row.scenario]
        cells = [cell(values_of(rounds.get(name, ()), row.figure), row.digits) for name in names]
        cells += [_over_nginx(run, row, name) for name in ratios]
        entry = figures[f"{row.scenario}.{row.figure}"]
        cells += [str(entry.get(f"relay/{name}") or "–") for name in others]
        table.add_row(row.label, *cells)
    return table


def _by_rival(console: Console, title: str, run: Run, rows: Sequence[Row]) -> Iterator[Table]:
    """A line for each rival; as many tables as the figures need in this width."""
    rounds = run.rounds[rows[0].scenario]
    names = [name for name in run.names if name in rounds]
    columns: list[tuple[str, Callable[[str], str]]] = []
    for row in rows:
        columns.append((row.short, _figure_of(run, row)))
        if row is rows[0] and row.compared and "nginx" in rounds:
            columns.append(("× nginx", _ratio_of(run, row)))
    while columns:
        count = len(columns)
        while count > 1 and not _fits(console, _lines(title, run, names, columns[:count])):
            count -= 1
        yield _lines(title, run, names, columns[:count])
        columns = columns[count:]


def _lines(
    title: str, run: Run, names: Sequence[str], columns: Sequence[tuple[str, Callable[[str], str]]]
) -> Table:
    table = _table(title, [""])
    for heading, of in columns:
        width = max(len(_plain(of(name))) for name in names)
        table.add_column(heading, justify="right", min_width=width, max_width=max(width, 12))
    for name in names:
        cells = [of(name) for _, of in columns]
        if any(text != "–" for text in cells):
            table.add_row(name, *cells, style="bold" if name in run.builds else None)
    return table


def _figure_of(run: Run, row: Row) -> Callable[[str], str]:
    rounds = run.rounds[row.scenario]
    return lambda name: cell(values_of(rounds.get(name, ()), row.figure), row.digits)


def _ratio_of(run: Run, row: Row) -> Callable[[str], str]:
    return lambda name: _over_nginx(run, row, name)


def _over_nginx(run: Run, row: Row, name: str) -> str:
    rounds = run.rounds[row.scenario]
    own, nginx = (by_round(rounds.get(it, ()), row.figure) for it in (name, "nginx"))
    ratio = Ratio.of(own, nginx) if row.compared else None
    return "–" if ratio is None else f"{ratio.median:.2f}"


def _curves(console: Console, run: Run) -> Iterator[Table]:
    """A table for each curve: lines for figures and rivals, columns for sizes."""
    for scenario, rivals in run.rounds.items():
        points = {name: curves.curve(rounds) for name, rounds in rivals.items()}
        sizes = sorted({x for of in points.values() for some in of.values() for x, _ in some})
        if not sizes:
            continue
        table = _table(scenario, ["", "", *(f"{size:,.0f}" for size in sizes)])
        table.add_column("grows as", min_width=14)
        for figure in dict.fromkeys(name for of in points.values() for name in of):
            for name in (one for one in run.names if figure in points.get(one, {})):
                of = points[name][figure]
                cells = [cell([y for x, y in of if x == size], digits(of)) for size in sizes]
                found = curves.fit(of)
                label = curves.label(figure)
                table.add_row(label, name, *cells, "–" if found is None else str(found))
        yield table


def digits(points: curves.Points) -> int:
    """Decimals for the values of one curve: 1 below ten."""
    return 1 if min(abs(value) for _, value in points) < 10 else 0


def _goals(shown: Sequence[Row], figures: Mapping[str, Any], own: Sequence[str]) -> Table:
    """Each goal with the value of each build."""
    table = _table("Goals", ["", "goal", *own])
    for row in shown:
        if row.goal is None:
            continue
        judged = figures[f"{row.scenario}.{row.figure}"]["judged"]
        decimals = 2 if row.goal.measure == "ratio" else row.digits
        cells = []
        for name in own:
            one = judged.get(name)
            mark = "" if one is None else "[green]✓[/]" if one.met else "[red]✗[/]"
            cells.append("not judged" if one is None else f"{one.value:,.{decimals}f} {mark}")
        scenario = f" [dim]({row.scenario})[/]" if row.label.startswith(" ") else ""
        table.add_row(row.label.strip() + scenario, str(row.goal), *cells)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE)
    table.pad_edge = False
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _fits(console: Console, table: Table) -> bool:
    return table.__rich_measure__(console, console.options.update(width=10_000)).maximum <= (
        console.width
    )


def cell(values: Sequence[float], decimals: int) -> str:
    """`1,234 ±2%`: the median, and half the range of the rounds."""
    if not values:
        return "–"
    middle = median(values)
    text = f"{round(middle, decimals) + 0.0:,.{decimals}f}"  # never -0
    if len(values) == 1 or not middle:
        return text
    return f"{text} [dim]±{(max(values) - min(values)) / 2 / abs(middle):.0%}[/]"


def _plain(text: str) -> str:
    return text.replace("[dim]", "").replace("[/]", "")
