"""The figures that onthebench.ai publishes for gateways, from the rounds of this bench.

Decides which figure of which scenario each definition means; relay/docs/bench.md has the words.
Must not know how a figure is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.report import by_round, paired, values_of
from bench.stored import Run


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the board; `added` is less that of `direct` in the same round."""

    title: str
    unit: str
    scenario: str
    figure: str
    digits: int = 0
    added: bool = False
    less_is_better: bool = True

    def values(self, run: Run, name: str) -> list[float]:
        """A rival's figure in each round; none where it was not measured."""
        rounds = run.rounds.get(self.scenario, {})
        own = rounds.get(name, ())
        if not self.added:
            return values_of(own, self.figure)
        direct = by_round(rounds.get("direct", ()), self.figure)
        return [ours - floor for ours, floor in paired(by_round(own, self.figure), direct)]


BOARD = (
    Column("Added p50", "µs", "latency", "p50_us", added=True),
    Column("Added p99", "µs", "latency", "p99_us", added=True),
    Column("CPU per request", "µs", "json-8", "cpu_us", 1),
    Column("Requests/s, p99 ≤ 1 ms", "one core", "rate", "requests_s", less_is_better=False),
    Column("Requests/s, unbounded", "one core", "json", "requests_s", less_is_better=False),
    Column("Added first event p50", "µs", "first", "p50_us", added=True),
    Column("Added first event p99", "µs", "first", "p99_us", added=True),
    Column("CPU per event", "µs", "sse", "cpu_us", 1),
    Column("Memory at rest", "MiB", "memory", "base_mib", 1),
    Column("Memory in steady work", "MiB", "json", "rss_mib", 1),
    Column("Memory per stream", "KiB", "memory", "stream_kib", 1),
)


def columns(run: Run) -> Sequence[Column]:
    """The figures that some rival of this run has."""
    return [one for one in BOARD if any(one.values(run, name) for name in _rivals(run))]


def cells(run: Run, name: str) -> list[str]:
    """A rival's medians, `–` where it has none."""
    found = []
    for column in columns(run):
        values = column.values(run, name)
        found.append(f"{median(values):,.{column.digits}f}" if values else "–")
    return found


def _rivals(run: Run) -> list[str]:
    return [name for name in run.names if name != "direct"]
