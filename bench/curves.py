"""How a figure grows with a size: the exponent of a power law, and where it bends.

Decides how points become an exponent, and when two pieces explain them better than one. Pure: it
knows no scenario, only `(size, value)` pairs, of which a size may have several, one of each round.

A figure that grows as size^k is a straight line of slope k where both axes are logarithmic; the
exponent is that slope by least squares. Two slopes that meet at a size are accepted by this rule:
there are five different sizes or more, the Bayesian information criterion (BIC) prefers them by
more than 6, and they differ by 0.2 or more. Deviations below 1 % count as noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, sqrt
from statistics import fmean

from bench.stage import Figures, Results

Points = Sequence[tuple[float, float]]

PREFIX = "curve-"
_LEAST_SIZES = 5  # fewer leave no room for a second slope
_EVIDENCE = 6.0  # of the criterion: "strong" by Kass and Raftery, 1995
_LEAST_CHANGE = 0.2  # of the slope
_NOISE = 0.01  # of a value
_UNITS = {"us": "µs", "ms": "ms", "kib": "KiB", "mib": "MiB"}
_STEPS = 40  # places of a bend that are tried between two sizes


@dataclass(frozen=True, slots=True)
class Bend:
    """The size at which the slope changes, and the exponents on both sides."""

    size: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Fit:
    """`value ~ size^exponent`; `error` is the standard error of the exponent."""

    exponent: float
    error: float
    bend: Bend | None = None

    @property
    def brief(self) -> str:
        """`n^0.98`, or `n^0.98 to n^0.40` where it bends."""
        if self.bend is None:
            return _power(self.exponent)
        return f"{_power(self.bend.before)} to {_power(self.bend.after)}"

    def __str__(self) -> str:
        """`n^0.98 ±0.02`, or `n^0.98, from about 510 on n^0.40` where it bends."""
        if self.bend is None:
            return f"{_power(self.exponent)} ±{self.error:.2f}"
        before, after = _power(self.bend.before), _power(self.bend.after)
        return f"{before}, from about {_rounded(self.bend.size):,} on {after}"


def fit(points: Points) -> Fit | None:
    """None with fewer than two different sizes. Sizes and values of 0 have no logarithm."""
    logs = [(log(size), log(value)) for size, value in points if size > 0 and value > 0]
    sizes = sorted({x for x, _ in logs})
    if len(sizes) < 2:
        return None
    middle = fmean(x for x, _ in logs), fmean(y for _, y in logs)
    spread = sum((x - middle[0]) ** 2 for x, _ in logs)
    slope = sum((x - middle[0]) * (y - middle[1]) for x, y in logs) / spread
    rest = sum((y - middle[1] - slope * (x - middle[0])) ** 2 for x, y in logs)
    error = sqrt(rest / (len(logs) - 2) / spread) if len(logs) > 2 else 0.0
    return Fit(slope, error, _bend(logs, sizes, rest))


def _bend(logs: Points, sizes: Sequence[float], straight: float) -> Bend | None:
    """The best place of a bend, if it passes the rule."""
    if len(sizes) < _LEAST_SIZES:
        return None
    places = [
        low + (high - low) * step / _STEPS
        for low, high in pairwise(sizes[1:-1])
        for step in range(_STEPS + 1)
    ]
    rest, place, before, after = min(_hinged(logs, place) for place in places)
    gained = _criterion(straight, len(logs), 2) - _criterion(rest, len(logs), 4)
    if gained <= _EVIDENCE or abs(after - before) < _LEAST_CHANGE:
        return None
    return Bend(exp(place), before, after)


def _hinged(logs: Points, place: float) -> tuple[float, float, float, float]:
    """Least squares of two slopes that meet at `place`: what is left, `place`, the slopes."""
    x = _centred([x for x, _ in logs])
    hinge = _centred([max(0.0, x - place) for x, _ in logs])
    y = _centred([y for _, y in logs])
    xx, hh, xh = _product(x, x), _product(hinge, hinge), _product(x, hinge)
    xy, hy = _product(x, y), _product(hinge, y)
    determinant = xx * hh - xh * xh  # positive: there are sizes on both sides of `place`
    before = (xy * hh - hy * xh) / determinant
    change = (hy * xx - xy * xh) / determinant
    rest = _product(y, y) - before * xy - change * hy
    return max(0.0, rest), place, before, before + change


def _centred(values: Sequence[float]) -> list[float]:
    middle = fmean(values)
    return [value - middle for value in values]


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _criterion(rest: float, count: int, parameters: int) -> float:
    return count * log(rest / count + _NOISE**2) + parameters * log(count)


def _power(exponent: float) -> str:
    return f"n^{round(exponent, 2) + 0.0:.2f}"  # never -0.00


def _rounded(size: float) -> int:
    """To two digits: a bend is not known better."""
    return int(float(f"{size:.1e}"))


def curve(rounds: Iterable[Figures]) -> Mapping[str, list[tuple[float, float]]]:
    """Rounds whose figures have their size as a suffix: `requests_s@32` → points by figure."""
    found: dict[str, list[tuple[float, float]]] = {}
    for figures in rounds:
        for name, value in figures.items():
            figure, mark, size = name.rpartition("@")
            if mark and size.isdigit():
                found.setdefault(figure, []).append((float(size), value))
    return {figure: sorted(points) for figure, points in found.items()}


def of_results(results: Results) -> dict[str, dict[str, Fit]]:
    """The fit of each rival by `scenario.figure`."""
    found: dict[str, dict[str, Fit]] = {}
    for scenario, rivals in results.items():
        for name, rounds in rivals.items():
            for figure, points in curve(rounds).items():
                if (fitted := fit(points)) is not None:
                    found.setdefault(f"{scenario}.{figure}", {})[name] = fitted
    return found


def label(figure: str) -> str:
    """`p99_us` → `p99, µs`."""
    name, _, unit = figure.rpartition("_")
    words = name.replace("_", " ").replace("cpu", "CPU")
    return f"{words}/s" if unit == "s" else f"{words}, {_UNITS[unit]}" if unit in _UNITS else figure
