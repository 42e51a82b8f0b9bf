"""A line below the figures while a run goes on: scenario, rival, round, time left.

Decides what the line says and when it is drawn: only between rounds, since drawing takes time from
the core of the clients. Must not know what a round does. Without a terminal there is no line.
"""

from collections import Counter
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from bench.timing import spoken


class Progress:
    """The line of one run."""

    def __init__(
        self, console: Console, expected: Mapping[str, float], rounds: int, rivals: int
    ) -> None:
        """`expected` are the seconds of all rounds of each scenario."""
        self._expected = expected
        self._rounds = rounds
        self._rivals = rivals
        self._kept: Counter[tuple[str, str]] = Counter()  # rounds by scenario and rival
        self._done = 0.0  # of the expected seconds
        self._current = ""
        self._start = monotonic()
        columns = (BarColumn(24), TextColumn("{task.description}"))
        self._bar = Bar(
            *columns, console=console, auto_refresh=False, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=sum(expected.values()) or 1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def starting(self, scenario: str, rival: str) -> None:
        """A process of a rival starts."""
        if scenario != self._current:
            self._done = self._before(scenario)
            self._current = scenario
        number = min(self._kept[scenario, rival] + 1, self._rounds)
        words = f"{scenario} · {rival} · round {number} of {self._rounds}"
        self._draw(f"{words} · about {spoken(self.left_s())} left")

    def finished(self, scenario: str, rival: str) -> None:
        """A round has its figures. A scenario with fewer rivals ends early, as the next begins."""
        self._kept[scenario, rival] += 1
        of_scenario = [kept for (name, _), kept in self._kept.items() if name == scenario]
        share = sum(of_scenario) / (max(len(of_scenario), self._rivals) * self._rounds)
        self._done = self._before(scenario) + share * self._expected.get(scenario, 0.0)
        self._draw("")

    def left_s(self) -> float:
        """The expected seconds until the end, corrected by those that have passed."""
        left = max(0.0, sum(self._expected.values()) - self._done)
        passed = monotonic() - self._start
        # Before a tenth is done, its pace says little.
        slower = passed / self._done if self._done > 0.1 * (self._done + left) else 1.0
        return left * slower

    def _before(self, scenario: str) -> float:
        """The expected seconds of all scenarios that come earlier."""
        earlier = 0.0
        for name, seconds in self._expected.items():
            if name == scenario:
                break
            earlier += seconds
        return earlier

    def _draw(self, words: str) -> None:
        self._bar.update(self._task, completed=self._done, description=words)
        self._bar.refresh()
