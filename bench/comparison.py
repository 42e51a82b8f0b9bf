"""A run beside an older one: which figures of relay have become worse.

Decides what a regression is. Absolute figures of two runs differ by tens of per cent on one
machine, so a figure is compared as its ratio to nginx's of the same run. It is worse when that
ratio has moved in the wrong direction by more than 5 %, and by more than both runs spread. Figures
that nginx does not have, and those of a single round, which has no spread, are shown only. Must
not know how a figure was measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.report import ByRound, Ratio, by_round, nginx_was_idle, paired
from bench.rows import Row, all_rows
from bench.stored import Run

STATUS = 3  # the exit status of a run with a regression
_LEAST = 0.05

Verdict = Literal["worse", "better", "same", "not judged"]
_STYLES: Mapping[Verdict, str] = {
    "worse": "bold red", "better": "green", "same": "", "not judged": "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one build in both runs, as its ratio to nginx's where both have that."""

    row: Row
    build: str
    before: Ratio
    now: Ratio
    relative: bool
    judged: bool

    @property
    def change(self) -> float:
        """How much greater it is now: 0.1 is 10 %."""
        return self.now.median / self.before.median - 1

    @property
    def spread(self) -> float:
        """Half the range within each run, added up."""
        return self.before.spread + self.now.spread

    @property
    def verdict(self) -> Verdict:
        if not self.judged:
            return "not judged"
        if abs(self.change) <= max(_LEAST, self.spread):
            return "same"
        return "worse" if (self.change > 0) == (self.row.better == "less") else "better"


def changes(before: Run, now: Run) -> Iterator[Change]:
    """Every figure of a build of relay that both runs have, and that can be better or worse."""
    for row in (row for row in all_rows(now.settings) if row.better):
        of_runs = [run.rounds.get(row.scenario, {}) for run in (before, now)]
        nginx: list[ByRound] = [by_round(rounds.get("nginx", ()), row.figure) for rounds in of_runs]
        relative = row.compared and all(map(any, nginx))
        idle = any(nginx_was_idle(row.scenario, rounds) for rounds in of_runs)
        for build in now.builds:
            own: list[ByRound] = [by_round(rounds.get(build, ()), row.figure) for rounds in of_runs]
            others: list[ByRound] = nginx if relative else [[1.0] * len(values) for values in own]
            then, present = map(Ratio.of, own, others)
            if then is None or present is None or not then.median:
                continue
            rounds = min(len(paired(*both)) for both in zip(own, others, strict=True))
            judged = relative and rounds > 1 and not idle
            yield Change(row, build, then, present, relative, judged)


def notes(before: Run, now: Run) -> Iterator[str]:
    """How far the two runs can be compared."""
    if before.machine != now.machine:
        was = before.machine
        yield (
            f"the older run is of another machine ({was.get('cpu')}, {was.get('cores')} cores, "
            f"{was.get('kernel')}): even ratios may differ."
        )
    ours = {field.name: getattr(now.settings, field.name) for field in fields(now.settings)}
    for name, value in ours.items():
        other = getattr(before.settings, name)
        if other != value:
            yield f"{name} was {_text(other)} and is {_text(value)}."
    if before.versions.get("nginx") != now.versions.get("nginx"):
        yield (
            f"nginx was {before.versions.get('nginx', 'not measured')} and is "
            f"{now.versions.get('nginx', 'not measured')}."
        )
    lost = [name for name in before.builds if name not in now.builds]
    if lost:
        yield f"not in this run: {', '.join(lost)}."


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show(console: Console, before: Run, now: Run) -> bool:
    """Print the comparison; whether a figure is worse."""
    found = list(changes(before, now))
    title = f"Beside the run of {before.at}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for column in ("", "build", "before", "now", "change", "spread", ""):
        table.add_column(column, justify="left" if column in ("", "build") else "right")
    for one in found:
        unit = " × nginx" if one.relative else ""
        decimals = 3 if one.relative else one.row.digits
        table.add_row(
            f"{one.row.scenario}: {one.row.short}",
            one.build,
            f"{one.before.median:,.{decimals}f}{unit}",
            f"{one.now.median:,.{decimals}f}{unit}",
            f"{one.change:+.1%}",
            f"±{one.spread:.1%}",
            one.verdict,
            style=_STYLES[one.verdict],
        )
    if found:
        console.print(table)
    else:
        console.print("[yellow]note:[/] the runs share no figure of a build of relay.")
    for note in notes(before, now):
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True, highlight=False)
    worse = [one for one in found if one.verdict == "worse"]
    if worse:
        names = ", ".join(f"{one.row.scenario}.{one.row.figure} ({one.build})" for one in worse)
        console.print(f"[red]worse than before:[/] {names}", soft_wrap=True, highlight=False)
    elif judged := [one for one in found if one.judged]:
        console.print(f"{len(judged)} figures are judged; none is worse than before.")
    else:
        console.print("[yellow]note:[/] no figure is judged: that takes nginx, and two rounds.")
    return bool(worse)
