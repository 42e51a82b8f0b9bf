"""Figures for people and for machines: a table with ratios and goals, and JSON on disk.

Decides which figures are shown, how rounds become one number and what the goals are. Must not
know how a figure was measured. A figure is the median of its rounds. A ratio is the median of
the ratios of neighbouring rounds, so that a drift of the machine cancels out; its spread is
half the range of those ratios.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

import orjson
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.process import machine
from bench.rivals.rival import Rival
from bench.stage import Figures, Results, Settings

RESULTS = Path(__file__).parent / "results"
# The share of a core that other processes may take without a note.
_MAX_OTHERS = 0.05
# The share of its core that a proxy uses at least when it is the limit.
_SATURATED = 0.85


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `goal` bounds relay's figure or its ratio to nginx."""

    scenario: str
    figure: str
    label: str
    digits: int = 0
    goal: Literal["", "ratio<=", "<=", ">="] = ""
    limit: float = 0.0
    compared: bool = True  # False: a difference near zero, of which no ratio means anything

    def met(self, relay: float, ratio: float | None) -> bool | None:
        """None without a goal, or without the ratio that it bounds."""
        match self.goal:
            case "<=":
                return relay <= self.limit
            case ">=":
                return relay >= self.limit
            case "ratio<=":
                return None if ratio is None else ratio <= self.limit
            case _:
                return None

    def goal_text(self) -> str:
        """The goal as the table shows it; empty without one."""
        limit = f"{self.limit:,.1f}".removesuffix(".0") if self.limit < 1e3 else f"{self.limit:,g}"
        match self.goal:
            case "<=":
                return f"≤ {limit}"
            case ">=":
                return f"≥ {limit}"
            case "ratio<=":
                return f"≤ {self.limit:.1f} ×"
            case _:
                return ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Relay's figure over another rival's, from pairs of neighbouring rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, relay: Sequence[float], other: Sequence[float]) -> "Ratio | None":
        """None without a pair whose divisor is positive."""
        pairs = [ours / theirs for ours, theirs in zip(relay, other, strict=False) if theirs > 0]
        return cls(median(pairs), min(pairs), max(pairs)) if pairs else None

    def __str__(self) -> str:
        """`1.02 ±1%`: the median, and half the range of the pairs."""
        if self.low == self.high:
            return f"{self.median:.3f}"
        return f"{self.median:.3f} ±{(self.high - self.low) / 2 / abs(self.median):.1%}"


_ROWS = (
    Row("json", "cpu_us", "JSON: CPU per request, µs", 1, "ratio<=", 2.0),
    Row("json", "requests_s", "JSON: requests/s, one core", 0, ">=", 12_000),
    Row("json", "share", "  share of its core", 2),
    Row("json", "p50_us", "  saturated p50, µs"),
    Row("json", "p99_us", "  saturated p99, µs"),
    Row("latency", "p50_us", "JSON: alone, p50, µs"),
    Row("latency", "p99_us", "JSON: alone, p99, µs"),
    Row("sse", "cpu_us", "SSE: CPU per event, µs", 1, "ratio<=", 1.2),
    Row("sse", "events_s", "SSE: events/s delivered"),
    Row("sse", "share", "  share of its core", 2),
    Row("sse", "first_p50_us", "SSE: first content p50, µs"),
    Row("sse", "first_p99_us", "SSE: first content p99, µs"),
    Row("http2-json", "cpu_us", "HTTP/2 JSON: CPU per request, µs", 1),
    Row("http2-json", "requests_s", "HTTP/2 JSON: requests/s, one core", 0, ">=", 6_000),
    Row("http2-json", "share", "  share of its core", 2),
    Row("http2-sse", "cpu_us", "HTTP/2 SSE: CPU per event, µs", 1, "ratio<=", 1.7),
    Row("http2-sse", "events_s", "HTTP/2 SSE: events/s delivered"),
    Row("http2-sse", "share", "  share of its core", 2),
    Row("http2-sse", "first_p50_us", "HTTP/2 SSE: first content p50, µs"),
    Row("chat-json", "cpu_us", "Chat JSON: CPU per request, µs", 1, "ratio<=", 6.0),
    Row("chat-json", "requests_s", "Chat JSON: requests/s, one core"),
    Row("chat-json", "share", "  share of its core", 2),
    Row("chat-sse", "cpu_us", "Chat SSE: CPU per event, µs", 1, "ratio<=", 3.0),
    Row("chat-sse", "events_s", "Chat SSE: events/s delivered"),
    Row("chat-sse", "share", "  share of its core", 2),
    Row("chat-first", "messages_p50_us", "First content: messages p50, µs"),
    Row("chat-first", "chat_p50_us", "First content: chat p50, µs"),
    Row("chat-first", "more_us", "  more for chat, µs", 0, "<=", 300, compared=False),
    Row("responses-json", "cpu_us", "Responses JSON: CPU per request, µs", 1),
    Row("responses-json", "requests_s", "Responses JSON: requests/s, one core"),
    Row("responses-json", "share", "  share of its core", 2),
    Row("responses-sse", "cpu_us", "Responses SSE: CPU per event, µs", 1, "ratio<=", 4.0),
    Row("responses-sse", "events_s", "Responses SSE: events/s delivered"),
    Row("responses-sse", "share", "  share of its core", 2),
    Row("memory", "base_mib", "Memory at rest, MiB", 1, "<=", 50),
    Row("memory", "stream_kib", "  a live stream, KiB", 1, "<=", 32),
    Row("idle", "idle_kib", "  an idle connection, KiB", 1, "<=", 6),
    Row("slow", "growth_kib", "  a slow reader, KiB", 0, "<=", 256),
    Row("slow", "peak_kib", "  its peak on the way, KiB"),
    Row("ready", "ready_ms", "Ready after, ms", 0, "<=", 500),
)


def all_rows(settings: Settings) -> tuple[Row, ...]:
    """All lines of the table; the sizes of bodies are an option."""
    return (*_ROWS, *_body_rows(settings.bodies))


def _body_rows(sizes: Sequence[str]) -> Iterator[Row]:
    for scenario, title in (
        ("body-memory", "Messages"),
        ("chat-body-memory", "Chat"),
        ("responses-body-memory", "Responses"),
    ):
        for size in sizes:
            label = f"{title} stream, {size} body, KiB"
            yield Row(scenario, f"body_{size}_kib", label, 1, "<=", 40)
        for size in sizes[1:]:
            label = f"  {size} more than {sizes[0]}, KiB"
            yield Row(scenario, f"body_{size}_more_kib", label, 1, compared=False)


def summary(rows: Sequence[Row], results: Results) -> dict[str, dict[str, Any]]:
    """Medians, ratios and verdicts by `scenario.figure`, as they are written to disk."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        rounds = results.get(row.scenario, {})
        values = {name: _values(of_rival, row.figure) for name, of_rival in rounds.items()}
        if any(values.values()):
            found[f"{row.scenario}.{row.figure}"] = _entry(row, values, _idle(rounds))
    return found


def _entry(row: Row, values: Mapping[str, Sequence[float]], nginx_idle: bool) -> dict[str, Any]:
    """One figure: the median of each rival, the ratios, and whether relay meets its goal."""
    relay, nginx, before = (values.get(name, ()) for name in ("relay", "nginx", "before"))
    compared = Ratio.of(relay, nginx) if row.compared else None
    ratio = None if compared is None else compared.median
    judged = None if row.figure == "cpu_us" and nginx_idle else ratio
    entry: dict[str, Any] = {
        "relay": None,
        "nginx": None,
        **{name: median(figures) for name, figures in values.items() if figures},
        "ratio": ratio,
        "goal": row.goal_text() or None,
        "met": row.met(median(relay), judged) if relay else None,
    }
    if before:
        entry["relay/before"] = Ratio.of(relay, before) if row.compared else None
    return entry


def show(console: Console, rows: Sequence[Row], results: Results) -> None:
    """The table, and below it the notes on how far its figures go."""
    rivals = sorted(
        {name: None for rounds in results.values() for name in rounds},
        key=lambda name: (name in ("before", "relay"), name),
    )
    with_before = "before" in rivals
    table = Table(
        title="relay beside its rivals (median of rounds ± half their range)",
        box=SIMPLE,
        pad_edge=False,
    )
    titles = ["", *rivals, "ratio", *(["relay/before"] if with_before else []), "goal", ""]
    for title in titles:
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    figures = summary(rows, results)
    for row in rows:
        entry = figures.get(f"{row.scenario}.{row.figure}")
        if entry is None:
            continue
        rounds = results[row.scenario]
        cells = [_cell(_values(rounds.get(name, ()), row.figure), row.digits) for name in rivals]
        cells.append("–" if entry["ratio"] is None else f"{entry['ratio']:.2f}")
        if with_before:
            cells.append(str(entry.get("relay/before") or "–"))
        met = entry["met"]
        verdict = "" if met is None else "[green]✓[/]" if met else "[red]✗[/]"
        table.add_row(row.label, *cells, row.goal_text(), verdict)
    console.print(table)
    for note in notes(results):
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True)


def notes(results: Results) -> list[str]:
    """The limits of these figures, one sentence each."""
    found = []
    for name, rivals in results.items():
        for rival, rounds in rivals.items():
            for figure, core in (("others", "the proxy's"), ("others_load", "the load's")):
                others = max(_values(rounds, figure), default=0.0)
                if others > _MAX_OTHERS:
                    found.append(
                        f"{name}: other processes and the system took up to {others:.0%} of "
                        f"{core} core while {rival} was measured; rates and latencies suffer."
                    )
    for name in ("json", "chat-json", "responses-json"):
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
        used = median(map(_used, rounds))
        if used < _SATURATED:
            load, upstream = (
                median(_values(rounds, figure)) for figure in ("load_us", "upstream_us")
            )
            found.append(
                f"{name}: {rival} used {used:.0%} of its core: the limit was the other core, with "
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
    shown = [
        f"{row.label.strip().rpartition(': ')[2]} {figures[row.figure]:,.{row.digits}f}"
        for row in rows
        if row.scenario == scenario and row.figure in figures
    ]
    return f"{scenario} {number} {rival}: " + " · ".join(shown)


def save(
    path: Path | None,
    settings: Settings,
    rivals: Sequence[Rival],
    results: Results,
) -> Path:
    """Write everything measured, by default to a new file in bench/results/; its path."""
    now = datetime.now(UTC)
    if path is None:
        path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    document = {
        "at": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {rival.name: rival.version for rival in rivals},
        "settings": settings,
        "rivals": {
            rival.name: {"dialects": sorted(rival.dialects), "settings": rival.settings}
            for rival in rivals
        },
        "summary": summary(all_rows(settings), results),
        "notes": notes(results),
        "rounds": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return path


def _idle(rounds: Mapping[str, Sequence[Figures]]) -> bool:
    """Whether a json scenario left nginx partly idle; a scenario of streams is meant to."""
    used = [_used(figures) for figures in rounds.get("nginx", ()) if "requests_s" in figures]
    return bool(used) and median(used) < _SATURATED


def _used(figures: Figures) -> float:
    """The proxy's share of the time that other processes left of its core."""
    return figures["share"] / max(0.01, 1.0 - figures["others"])


def _values(rounds: Sequence[Figures], figure: str) -> list[float]:
    return [figures[figure] for figures in rounds if figure in figures]


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    middle = median(values)
    text = f"{middle:,.{digits}f}"
    if len(values) == 1 or not middle:
        return text
    return f"{text} [dim]±{(max(values) - min(values)) / 2 / abs(middle):.0%}[/]"
