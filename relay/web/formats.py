"""Numbers, money and moments in pages, exact to the last digit.

A moment is in UTC, and a script shows it in the browser's own time zone. Must not know pages.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup, escape

from relay.store.periods import agreement

OUTCOMES: Final = ("whole", "refused", "cut", "caller left", "failed")
_MICRO: Final = 10**6
_CENTS: Final = 2
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_AGENT_NAMES: Final = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"),
    ("Safari/", "Safari"), ("curl/", "curl"),
)  # fmt: skip
_SYSTEMS: Final = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"),
    ("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)  # fmt: skip


def number(value: int | None) -> str:
    """`1,234,567`; a dash for what is not known."""
    return "–" if value is None else f"{value:,}"


def dollars(micro: int) -> str:
    """`$1.25`, with as many decimals as the amount has, and two at least."""
    units, rest = divmod(abs(micro), _MICRO)
    decimals = f"{rest:06d}".rstrip("0").ljust(_CENTS, "0")
    return f"{'−' if micro < 0 else ''}${units:,}.{decimals}"


def moment(seconds: float | None) -> Markup | str:
    """A moment as `<time>`, which a script shows in local time; a dash for none."""
    if seconds is None:
        return "–"
    at = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}" data-moment>{} UTC</time>').format(
        at.isoformat(timespec="seconds").replace("+00:00", "Z"), at.strftime("%Y-%m-%d %H:%M")
    )


def fill(text: str, **values: object) -> Markup:
    """A text with values in place of its `{names}`; those that are HTML stay so."""
    return escape(text).format(**values)


def span(microseconds: int | None) -> str:
    """A duration of a request: `340 ms`, `2.1 s`."""
    if microseconds is None:
        return "–"
    if microseconds < _MICRO:
        return f"{microseconds // 1000:,} ms"
    return f"{microseconds / _MICRO:,.1f} s"


def period(seconds: int) -> str:
    """The period of a limit: `5 h`, `7 d`."""
    for size, unit in _UNITS:
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def browser(agent: str) -> str:
    """A browser's name and system, as far as it says: `Firefox, Linux`."""
    name = next((name for mark, name in _AGENT_NAMES if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return ", ".join(part for part in (name, system) if part) or agent[:40] or "?"


def outcome(text: str) -> tuple[str, str]:
    """How a request ended, as the key of its text, and the reason: `cut: a reset` → `cut`."""
    word, _, reason = text.partition(": ")
    return word.replace(" ", "_") if word in OUTCOMES else "failed", reason


def short_id(text: str) -> str:
    """The beginning of a request's id, enough to recognise it."""
    return text[:12]


def cache_share(sums: Any) -> str:
    """The share of a prompt that came from a cache: `63.2 %`; a dash where there was no prompt."""
    prompt = sums.input + sums.cache_read + sums.cache_write if sums else 0
    return f"{100 * sums.cache_read / prompt:.1f} %" if prompt else "–"


def query(fields: dict[str, str], **more: object) -> str:
    """Fields as the query of a URL."""
    return urlencode({**fields, **more})


def range_query(shown: Any, by: str, fields: dict[str, str]) -> str:
    """The query for the points of a chart."""
    range_ = {"from": shown.first_day, "to": shown.last_day, "range": shown.name, "by": by}
    return urlencode({**range_, **fields})


def rate(value: float) -> str:
    """A rate with what matters of it: `0.4`, `12`, `3,400`."""
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share as a percentage; a dash for what is not known."""
    return "–" if share is None else f"{100 * share:.1f} %"


def octets(count: int) -> str:
    """A size: `812 B`, `4.2 MiB`."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"


def tojson_text(value: Any) -> str:
    """A value of the audit log as text; a text without its quotes."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def stamp(text: str) -> Markup | str:
    """A moment in RFC 3339, as `moment` shows it."""
    return moment(datetime.fromisoformat(text).timestamp())


def hour(seconds: int) -> str:
    """The hour of a moment, in UTC: `14:00 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:00 UTC")


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "hour": hour,
    "number": number,
    "octets": octets,
    "percent": percent,
    "rate": rate,
    "stamp": stamp,
    "tojson_text": tojson_text,
    "dollars": dollars,
    "moment": moment,
    "span": span,
    "agreement": agreement,
    "fill": fill,
    "period": period,
    "browser": browser,
    "cache_share": cache_share,
    "outcome": outcome,
    "query": query,
    "range_query": range_query,
    "short_id": short_id,
}
