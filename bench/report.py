"""Figures of rounds become one number each, with ratios, verdicts and notes.

Decides how rounds become one number, and how goals are judged. Must not know how a figure was
measured, nor how it is shown. A figure is the median of its rounds. A ratio is the median of
the ratios of neighbouring rounds, so that a drift of the machine cancels out; its spread is
half the range of those ratios.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.curves import PREFIX
from bench.headroom import SATURATED, refusal, used
from bench.rows import Goal, Row
from bench.stage import Figures, Results
from bench.stored import REFERENCES

# The share of a core that other processes may take without a note.
_MAX_OTHERS = 0.05
# Scenarios that are meant to keep a proxy busy, and whose CPU per request is only then a figure.
_SATURATING = (
    *("json", "json-8", "json-300k", "json-1m", "chat-json", "responses-json"),
    *("http2-json", "tls-json", "tls-http2-json"),
)
# A figure in each round of a rival; None where the round was refused.
ByRound = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Relay's figure over another rival's, from pairs of neighbouring rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, relay: ByRound, other: ByRound) -> "Ratio | None":
        """None without a pair whose divisor is positive."""
        pairs = [ours / theirs for ours, theirs in paired(relay, other) if theirs > 0]
        return cls(median(pairs), min(pairs), max(pairs)) if pairs else None

    @property
    def spread(self) -> float:
        """Half the range of the pairs, as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0

    def __str__(self) -> str:
        """`1.02 ±1%`: the median, and half the range of the pairs."""
        if self.low == self.high:
            return f"{self.median:.3f}"
        return f"{self.median:.3f} ±{self.spread:.1%}"


def summary(
    rows: Sequence[Row], results: Results, foreign: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Medians, ratios and verdicts by `scenario.figure`, as they are written to disk.

    `foreign` are the rivals of other projects, which no goal judges.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        rounds = results.get(row.scenario, {})
        values = {name: by_round(of_rival, row.figure) for name, of_rival in rounds.items()}
        if any(map(_known, values.values())):
            idle = nginx_was_idle(row.scenario, rounds)
            found[f"{row.scenario}.{row.figure}"] = _entry(row, values, idle, foreign)
    return found


def _entry(
    row: Row, values: Mapping[str, ByRound], nginx_idle: bool, foreign: Collection[str]
) -> dict[str, Any]:
    """One figure: the median of each rival, the ratios, and which builds of relay meet its goal."""
    relay, nginx = (values.get(name, ()) for name in ("relay", "nginx"))
    ratio = Ratio.of(relay, nginx) if row.compared else None
    entry: dict[str, Any] = {
        "relay": None,
        "nginx": None,
        **{name: median(known) for name, of in values.items() if (known := _known(of))},
        "ratio": None if ratio is None else ratio.median,
    }
    if row.goal is not None:
        entry["goal"] = str(row.goal)
        entry["judged"] = {
            name: judged
            for name in builds(values, foreign)
            if (judged := judge(row.goal, values[name], values, nginx_idle)) is not None
        }
    for name in (*builds(values, foreign), *foreign):
        if name in values and name != "relay" and relay:
            entry[f"relay/{name}"] = Ratio.of(relay, values[name]) if row.compared else None
    return entry


@dataclass(frozen=True, slots=True)
class Judged:
    """The value that a goal bounds, and whether it is met."""

    value: float
    met: bool


def judge(
    goal: Goal, own: ByRound, values: Mapping[str, ByRound], nginx_idle: bool
) -> Judged | None:
    """None if the rival that a build is judged by was not measured, or cannot be judged by."""
    direct, nginx = values.get("direct", ()), values.get("nginx", ())
    match goal.measure:
        case "figure":
            found = _known(own)
        case "ratio":
            ratio = None if nginx_idle else Ratio.of(own, nginx)
            found = [] if ratio is None else [ratio.median]
        case "over direct":
            found = [ours - theirs for ours, theirs in paired(own, direct)]
        case "over nginx":
            found = [ours - theirs for ours, theirs in paired(own, nginx)]
    return Judged(median(found), goal.met(median(found))) if found else None


def builds(rivals: Iterable[str], foreign: Collection[str] = ()) -> list[str]:
    """The builds of relay among the rivals; this tree's comes last."""
    found = [name for name in rivals if name not in (*REFERENCES, *foreign)]
    return sorted(found, key=lambda name: name == "relay")


def notes(results: Results) -> list[str]:
    """The limits of these figures, one sentence each."""
    found = []
    for name, rivals in results.items():
        taken = {
            core: max(max(values_of(rounds, of), default=0.0) for rounds in rivals.values())
            for of, core in (("others", "the proxy's"), ("others_load", "the load's"))
        }
        shares = [f"{share:.0%} of {core}" for core, share in taken.items() if share > _MAX_OTHERS]
        if shares:
            found.append(
                f"{name}: other processes and the system took up to {' and '.join(shares)} core; "
                "rates and latencies suffer."
            )
    for name, rivals in results.items():
        for rival, rounds in rivals.items():
            if refused := [words for figures in rounds if (words := refusal(figures))]:
                found.append(
                    f"{name}: {rival}: {len(refused)} of {len(rounds)} rounds {refused[0]}"
                )
    for name in _SATURATING:
        found += _unsaturated(name, results.get(name, {}))
    if results.get("memory", {}).get("nginx"):
        found.append("memory: nginx is master and worker; pages that they share count twice.")
    return found


def _unsaturated(name: str, rivals: Mapping[str, Sequence[Figures]]) -> list[str]:
    """The rivals that were idle at times in a scenario that is meant to keep them busy."""
    found = []
    for rival, rounds in rivals.items():
        if "share" not in rounds[0]:  # no proxy, so no core of its own
            continue
        share = median(map(_used, rounds))
        if share < SATURATED:
            load, upstream = (
                median(values_of(rounds, figure)) for figure in ("load_us", "upstream_us")
            )
            found.append(
                f"{name}: {rival} used {share:.0%} of its core: the limit was the other core, with "
                f"clients ({load:.1f} µs per request) and upstream ({upstream:.1f} µs)."
            )
    if _idle(rivals):
        found.append(
            f"{name}: nginx was partly idle, where a request costs it up to twice as much as when "
            "it is busy: the ratio of CPU per request flatters relay and is not judged."
        )
    return found


def line(rows: Sequence[Row], scenario: str, number: int, rival: str, figures: Figures) -> str:
    """One round in one line."""
    if refused := refusal(figures):
        return f"{scenario} {number} {rival}: {refused}"
    shown = [
        f"{row.short} {figures[row.figure]:,.{row.digits}f}"
        for row in rows
        if row.scenario == scenario and row.figure in figures
    ]
    return f"{scenario} {number} {rival}: " + " · ".join(shown)


def nginx_was_idle(scenario: str, rounds: Mapping[str, Sequence[Figures]]) -> bool:
    """Whether nothing is judged by nginx, which was meant to be busy and was not."""
    return scenario in _SATURATING and _idle(rounds)


def _idle(rounds: Mapping[str, Sequence[Figures]]) -> bool:
    """Whether a json scenario left nginx partly idle; a scenario of streams is meant to."""
    found = [one for one in rounds.get("nginx", ()) if "requests_s" in one and "share" in one]
    shares = [_used(figures) for figures in found]
    return bool(shares) and median(shares) < SATURATED


def _used(figures: Figures) -> float:
    """The proxy's share of the time that other processes left of its core."""
    return used(figures["share"], figures["others"])


def values_of(rounds: Sequence[Figures], figure: str) -> list[float]:
    return _known(by_round(rounds, figure))


def by_round(rounds: Sequence[Figures], figure: str) -> list[float | None]:
    """One entry for each round, so that rounds of two rivals stay side by side."""
    return [figures.get(figure) for figures in rounds]


def paired(one: ByRound, other: ByRound) -> list[tuple[float, float]]:
    """The figures of the rounds in which both rivals have one."""
    return [(a, b) for a, b in zip(one, other, strict=False) if a is not None and b is not None]


def _known(values: ByRound) -> list[float]:
    return [value for value in values if value is not None]


def shown_rows(rows: Sequence[Row], figures: Mapping[str, Any]) -> list[Row]:
    """The lines that have figures. Those of curves are shown as curves."""
    return [
        row
        for row in rows
        if f"{row.scenario}.{row.figure}" in figures and not row.scenario.startswith(PREFIX)
    ]
