"""A run as a page of HTML that needs nothing else, and as two plots for the README.

Decides which figures have a plot, and what the template gets. Must not know how a figure was
measured, nor how a plot is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader

from bench import board, curves, plots
from bench.groups import grouped, sentence
from bench.report import Ratio, by_round, notes, shown_rows, summary, values_of
from bench.rows import Row, all_rows
from bench.stored import REFERENCES, Run
from bench.tables import digits

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_PLOTS = 3  # of a scenario; its table has all figures
_README = {"request": ("json", "CPU per request, µs"), "event": ("sse", "CPU per event, µs")}
_DIRECTIONS = {"less": "less is better", "more": "more is better", "": ""}


def write(run: Run, path: Path) -> list[Path]:
    """Write the page and the plots beside the result file `path`; their paths."""
    page = path.with_suffix(".html")
    page.write_text(render(run))
    written = [page]
    rows = {(row.scenario, row.figure): row for row in all_rows(run.settings)}
    for name, (scenario, title) in _README.items():
        if found := _bars(run, rows[scenario, "cpu_us"]):
            plot = path.with_name(f"{path.stem}-{name}.svg")
            plot.write_text(plots.alone(plots.bars(title, _DIRECTIONS["less"], found)))
            written.append(plot)
    return written


def render(run: Run) -> str:
    """The page."""
    rows = all_rows(run.settings)
    figures = summary(rows, run.rounds, run.foreign)
    shown = shown_rows(rows, figures)
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True)
    return environment.get_template("page.html").render(
        run=run,
        settings={
            field.name: _text(getattr(run.settings, field.name)) for field in fields(run.settings)
        },
        board={"columns": board.columns(run), "lines": _board(run)},
        groups=list(_groups(run, shown)),
        curves=list(_curves(run)),
        goals={"names": run.builds, "rows": list(_goals(run, shown, figures))},
        notes=[*notes(run.rounds), *run.remarks],
        missing=list(_missing(run)),
        shapes=plots.SHAPES,
        colours=plots.COLOURS,
        dark_colours=plots.DARK_COLOURS,
    )


def _board(run: Run) -> list[Mapping[str, Any]]:
    names = [name for name in run.names if name != "direct"]
    return [
        {"name": name, "own": name in run.builds, "cells": board.cells(run, name)} for name in names
    ]


def _groups(run: Run, shown: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    scenarios = dict.fromkeys(row.scenario for row in shown)
    for title, names in grouped(scenarios).items():
        found = []
        for name in names:
            rows = [row for row in shown if row.scenario == name]
            found.append({"name": name, "sentence": sentence(name), **_scenario(run, rows)})
        yield {"title": title, "scenarios": found}


def _scenario(run: Run, rows: Sequence[Row]) -> Mapping[str, Any]:
    rounds = run.rounds[rows[0].scenario]
    plotted = _plotted(rows)
    compared = [row for row in plotted[:1] if row.compared and "nginx" in rounds]
    headings = ["", *(row.short for row in rows), *(f"{row.short} × nginx" for row in compared)]
    lines = []
    for name in (one for one in run.names if one in rounds):
        cells = [_cell(values_of(rounds[name], row.figure), row.digits) for row in rows]
        for row in compared:
            nginx = by_round(rounds["nginx"], row.figure)
            ratio = Ratio.of(by_round(rounds[name], row.figure), nginx)
            cells.append({"text": "–" if ratio is None else f"{ratio.median:.2f}"})
        lines.append({"name": name, "own": name in run.builds, "cells": cells})
    drawn = [
        plots.bars(row.short, _DIRECTIONS[row.better], found)
        for row in plotted
        if (found := _bars(run, row))
    ]
    return {"headings": headings, "lines": lines, "plots": drawn}


def _plotted(rows: Sequence[Row]) -> list[Row]:
    """The first figures that can be better; medians of times make room for the tail."""
    found = [row for row in rows if row.better]
    if len(found) > _MOST_PLOTS:
        found = [row for row in found if not row.figure.endswith("p50_us")]
    return found[:_MOST_PLOTS]


def _bars(run: Run, row: Row) -> list[plots.Bar]:
    """The rivals that have this figure, the best first."""
    rounds = run.rounds.get(row.scenario, {})
    found = []
    for name in run.names:
        if values := values_of(rounds.get(name, ()), row.figure):
            cell = _cell(values, row.digits)
            text = " ".join((cell["text"], cell.get("spread", ""))).strip()
            found.append(
                plots.Bar(name, _kind(run, name), median(values), min(values), max(values), text)
            )
    return sorted(found, key=lambda bar: bar.value, reverse=row.better == "more")


def _curves(run: Run) -> Iterator[Mapping[str, Any]]:
    for scenario, rivals in run.rounds.items():
        points = {name: curves.curve(rivals[name]) for name in run.names if name in rivals}
        sizes = sorted({x for of in points.values() for some in of.values() for x, _ in some})
        if not sizes:
            continue
        lines, drawn = [], []
        for figure in dict.fromkeys(name for of in points.values() for name in of):
            plotted = []
            label = curves.label(figure)
            for name in (one for one in points if figure in points[one]):
                of = points[name][figure]
                grows = curves.fit(of)
                growth = "–" if grows is None else str(grows)
                cells = [_cell([y for x, y in of if x == size], digits(of)) for size in sizes]
                own = name in run.builds
                cells.append({"text": growth})
                lines.append({"name": f"{label}, {name}", "own": own, "cells": cells})
                middles = [
                    (size, median(y for x, y in of if x == size))
                    for size in sizes
                    if size > 0 and any(x == size and y > 0 for x, y in of)
                ]
                if len(middles) > 1:
                    legend = name if grows is None else f"{name} {grows.brief}"
                    plotted.append(plots.Line(legend, _kind(run, name), middles))
            if plotted:
                drawn.append(
                    plots.lines(label, f"by {scenario.removeprefix(curves.PREFIX)}", plotted)
                )
        headings = ["", *(plots.brief(size) for size in sizes), "grows as"]
        yield {"name": scenario, "headings": headings, "lines": lines, "plots": drawn}


def _goals(
    run: Run, shown: Sequence[Row], figures: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    for row in shown:
        if row.goal is None or not run.builds:
            continue
        judged = figures[f"{row.scenario}.{row.figure}"]["judged"]
        decimals = 2 if row.goal.measure == "ratio" else row.digits
        values = []
        for name in run.builds:
            one = judged.get(name)
            verdict = one and ("met" if one.met else "missed")
            values.append(one and {"text": f"{one.value:,.{decimals}f}", "verdict": verdict})
        yield {"label": f"{row.scenario}: {row.short}", "goal": row.goal, "found": values}


def _missing(run: Run) -> Iterator[str]:
    """The rivals that have no figures in a scenario, each with the reason."""
    for words, found in (("refused", run.refused), ("left out", run.left_out)):
        for scenario, rivals in found.items():
            for name, reason in rivals.items():
                yield f"{scenario}: {name} is {words}: {reason.partition(chr(10))[0]}"


def _cell(values: Sequence[float], decimals: int) -> dict[str, str]:
    """The median, and half the range of the rounds."""
    if not values:
        return {"text": "–"}
    middle = median(values)
    found = {"text": f"{round(middle, decimals) + 0.0:,.{decimals}f}"}  # never -0
    if len(values) > 1 and middle:
        found["spread"] = f"±{(max(values) - min(values)) / 2 / abs(middle):.0%}"
    return found


def _kind(run: Run, name: str) -> str:
    """The class of a rival's colour."""
    if name == "relay":
        return "relay"
    if name in run.builds:
        return "build"
    return "nginx" if name in REFERENCES else "other"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,g}" if isinstance(value, float) else str(value)
