"""The days of a model as two strips of bars, in SVG.

Written as text, since a page has hundreds of bars. Every value is a number or a text of the
languages' files. Must not know where it is shown.
"""

from typing import Final

from markupsafe import Markup, escape

from relay.store.answers import Answers
from relay.web.formats import percent, span
from relay.web.languages import Translate
from relay.web.status.board import ModelStatus

_STEP: Final = 4  # the width of a bar with the gap behind it
_BAR: Final = 3
_HEIGHT: Final = 32
_LEVELS: Final = ((0.999, "good"), (0.99, "fair"), (0.95, "low"), (0.0, "bad"))


def level(day: Answers | None) -> str:
    """The word for a day's availability."""
    share = None if day is None else day.availability
    if share is None:
        return "none"
    return next(word for least, word in _LEVELS if share >= least)


def share(value: float | None) -> str:
    """A share as a percentage that is 100 only if it is whole: 99.99 %, never rounded up."""
    if value is None or value == 1.0:
        return percent(value).replace("100.0", "100")
    return f"{int(value * 10_000) / 100:.2f} %"


def milliseconds(value: int | None) -> str:
    """A time to the first octet: `850 ms`, `2.5 s`."""
    return span(None if value is None else value * 1000)


def answered(model: ModelStatus, dates: list[str], t: Translate) -> Markup:
    """A bar for each day, by its availability, with its figures as a title."""
    label = t("status.bars", share=share(model.total.availability if model.total else None))
    bars = "".join(
        f'<rect class="{level(day)}" x="{number * _STEP}" width="{_BAR}" height="{_HEIGHT}">'
        f"<title>{escape(_title(date, day, t))}</title></rect>"
        for number, (date, day) in enumerate(zip(dates, model.days, strict=True))
    )
    return _svg("days", len(dates), _HEIGHT, label, bars)


def latencies(model: ModelStatus, t: Translate) -> Markup:
    """For each day, how long 95 % of the answers took at most, and within that the median."""
    slowest = max((day.p95_ms or 0 for day in model.days if day), default=0)
    total = model.total
    label = t(
        "status.latency",
        median=milliseconds(total.median_ms if total else None),
        p95=milliseconds(total.p95_ms if total else None),
    )
    values = {
        name: [getattr(day, name, None) for day in model.days] for name in ("p95_ms", "median_ms")
    }
    paths = "".join(
        f'<path class="{name}" d="{_bars(of_days, slowest)}"/>' for name, of_days in values.items()
    )
    return _svg("latencies", len(model.days), _HEIGHT, label, paths)


def _bars(values: list[int | None], most: int) -> str:
    """Bars from the lower edge, as the data of a path."""
    return "".join(
        f"M{number * _STEP} {_HEIGHT}v-{max(1, round(value / most * _HEIGHT))}h{_BAR}V{_HEIGHT}z"
        for number, value in enumerate(values)
        if value
    )


def _title(date: str, day: Answers | None, t: Translate) -> str:
    if day is None or day.availability is None:
        return t("status.day_without", date=date)
    if day.median_ms is None:
        return t("status.day_failed", date=date)
    return t(
        "status.day", date=date, share=share(day.availability),
        median=milliseconds(day.median_ms), p95=milliseconds(day.p95_ms),
    )  # fmt: skip


def _svg(name: str, days: int, height: int, label: str, content: str) -> Markup:
    width = days * _STEP - (_STEP - _BAR)
    return Markup(  # noqa: S704 -- of numbers and escaped texts
        f'<svg class="{name}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{content}</svg>'
    )
