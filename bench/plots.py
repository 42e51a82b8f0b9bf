"""Plots as SVG text: bars with their spread for rivals, lines on logarithmic axes for curves.

Decides shapes and places; colours come from classes, which the page or `alone` defines. Must not
know which figures are shown. Written as text: a bar is a rectangle and two words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH = 360
_NAME = 88  # columns of the names, before the bars
_VALUE = 112  # of the values, behind them
_WIDEST = 30.0  # from the least value to the most, where bars from zero still show the least
_LINE = 22  # height of a bar with its gap
_TITLE = 36
_NOTE = 14  # height of a note that has no room beside its title
_LETTERS = (8.2, 6.2)  # width of a letter of both in a wide font
_PLOT = (46, WIDTH - 12)  # the left and the right end of lines
_HEIGHT = 166  # of lines
_LEGEND = 17  # height of a line of names, two in each

COLOURS = """\
.ink{fill:#1c2733}.dim{fill:#5d6b7a}.grid{stroke:#dfe5eb;stroke-width:1}
.relay{fill:#0b7a75;stroke:#0b7a75}.build{fill:#58a9a2;stroke:#58a9a2}
.nginx{fill:#8a97a6;stroke:#8a97a6}.other{fill:#c3ccd6;stroke:#c3ccd6}.whisker{stroke:#1c2733}"""
DARK_COLOURS = """\
.ink{fill:#e3e9ef}.dim{fill:#95a3b2}.grid{stroke:#2b3642;stroke-width:1}
.relay{fill:#3fc1b5;stroke:#3fc1b5}.build{fill:#23857d;stroke:#23857d}
.nginx{fill:#7d8b9a;stroke:#7d8b9a}.other{fill:#4a5765;stroke:#4a5765}.whisker{stroke:#e3e9ef}"""
SHAPES = """\
text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;stroke:none}
text.title{font-weight:600}text.small{font-size:10.5px}
.whisker{stroke-width:1;opacity:.7}.line{fill:none;stroke-width:2}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One rival's figure; `kind` is relay, build, nginx or other."""

    name: str
    kind: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One rival's curve; the points have one value for each size."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def bars(title: str, note: str, found: Sequence[Bar]) -> str:
    """Bars from zero, one below another, with a whisker from the lowest round to the highest.

    Where they would hide the smaller ones, points on a logarithmic axis take their place.
    """
    least = min((bar.low for bar in found), default=0.0)
    most = max((bar.high for bar in found), default=0.0) or 1.0
    room = WIDTH - _NAME - _VALUE
    content = []
    is_log = least > 0 and most / least > _WIDEST
    if is_log:
        note = f"{note}, logarithmic".removeprefix(", ")
    lower = 0 if _fits(title, note) else _NOTE
    head = _TITLE + lower
    height = head + len(found) * _LINE
    if is_log:
        first, last = floor(log10(least)), ceil(log10(most))
        for exponent in range(first, last + 1):
            x = _NAME + (exponent - first) / (last - first) * room
            content.append(f'<path class="grid" d="M{x:.1f} {head - 8}V{height - 6}"/>')
            words = brief(10.0**exponent)
            content.append(_text(x, head - 10, words, "small dim", "middle"))

    def place(value: float) -> float:
        if is_log:
            return _NAME + (log10(value) - first) / (last - first) * room
        return _NAME + max(0.0, value) / most * room

    content += [
        _text(0, 12, title, "title ink"),
        _text(WIDTH, 12 + lower, note, "small dim", "end"),
    ]
    for number, bar in enumerate(found):
        top = head + number * _LINE
        style = "ink title" if bar.kind in ("relay", "build") else "ink"
        x, low, high = place(bar.value), place(bar.low), place(bar.high)
        if high - low >= 1:
            content.append(_whisker(low, high, top + 7))
        content += [
            _text(0, top + 11, bar.name, style),
            _mark(bar.kind, x, top, is_log),
            _text(WIDTH, top + 11, bar.text, style, "end"),
        ]
    label = f"{title}: " + ", ".join(f"{bar.name} {bar.text}" for bar in found)
    return _svg(label, height, content)


def _fits(title: str, note: str) -> bool:
    """Whether both have room in one line."""
    of_title, of_note = _LETTERS
    return len(title) * of_title + len(note) * of_note < WIDTH


def _mark(kind: str, x: float, top: int, is_log: bool) -> str:
    if is_log:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{top + 7}" r="4.5" stroke="none"/>'
    length = max(1.5, x - _NAME)
    return (
        f'<rect class="{kind}" x="{_NAME}" y="{top}" width="{length:.1f}" height="14" rx="2"'
        ' stroke="none"/>'
    )


def _whisker(low: float, high: float, y: int) -> str:
    ends = f"M{low:.1f} {y - 3}v6M{high:.1f} {y - 3}v6"
    return f'<path class="whisker" d="M{low:.1f} {y}H{high:.1f}{ends}"/>'


def lines(title: str, note: str, found: Sequence[Line]) -> str:
    """Lines where both axes are logarithmic: a power law is straight. Positive values only."""
    sizes = sorted({x for line in found for x, _ in line.points})
    values = [y for line in found for _, y in line.points]
    left, right = _PLOT
    top = 24 + ceil(len(found) / 2) * _LEGEND
    bottom = top + _HEIGHT
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    first, last = log10(sizes[0]), log10(sizes[-1])
    across, up = (right - left - 10) / ((last - first) or 1.0), (bottom - top) / (high - low)

    def place(size: float, value: float) -> tuple[float, float]:
        x = left + 5 + (log10(size) - first) * across
        return round(x, 1), round(bottom - (log10(value) - low) * up, 1)

    content = [_text(0, 12, title, "title ink"), _text(WIDTH, 12, note, "small dim", "end")]
    for exponent in range(low, high + 1):
        y = place(sizes[0], 10.0**exponent)[1]
        content.append(f'<path class="grid" d="M{left} {y}H{right}"/>')
        content.append(_text(left - 6, y + 4, brief(10.0**exponent), "small dim", "end"))
    for size in sizes:
        x = place(size, 10.0**low)[0]
        content.append(_text(x, bottom + 16, brief(size), "small dim", "middle"))
    for number, line in enumerate(found):
        places = [place(x, y) for x, y in line.points]
        path = "L".join(f"{x} {y}" for x, y in places)
        content.append(f'<path class="line {line.kind}" d="M{path}" style="fill:none"/>')
        content += [f'<circle class="{line.kind}" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
        x, y = 4 + number % 2 * WIDTH // 2, 28 + number // 2 * _LEGEND
        content.append(f'<circle class="{line.kind}" cx="{x}" cy="{y}" r="4"/>')
        content.append(_text(x + 9, y + 4, line.name, "small ink"))
    return _svg(title, bottom + 24, content)


def alone(plot: str) -> str:
    """A plot as a file of its own, for light and dark backgrounds."""
    style = f"{SHAPES}{COLOURS}@media (prefers-color-scheme:dark){{{DARK_COLOURS}}}"
    head, _, content = plot.partition(">")
    size = f'width="{WIDTH * 3 // 2}" xmlns="http://www.w3.org/2000/svg"'
    return f"{head} {size}><style>{style}</style>{content}\n"


def brief(value: float) -> str:
    """`10000` → `10 k`; `0.1` stays."""
    for unit, word in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{word}"
    return f"{value:g}"


def _text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{x:g}" y="{y:g}"{place}>{escape(words)}</text>'


def _svg(label: str, height: int, content: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(content)}</svg>"
    )
