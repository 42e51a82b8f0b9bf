"""The lines of the table, and the goals of the project.

Decides which figures are shown, and which of them have a goal. Must not know how a figure was
measured, nor how rounds become one number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.scale import CURVES
from bench.stage import Settings

# What is judged: the figure; its ratio to nginx's; its distance from that without a proxy, or
# from nginx's.
Measure = Literal["figure", "ratio", "over direct", "over nginx"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of relay's figure, or of its relation to another rival's."""

    measure: Measure
    limit: float
    upper: bool = True

    def met(self, value: float) -> bool:
        return value <= self.limit if self.upper else value >= self.limit

    def __str__(self) -> str:
        """`≤ 3.7 × nginx`, `≥ 23,000`, `≤ 154 over direct`."""
        limit = f"{self.limit:,.2f}".rstrip("0").removesuffix(".")
        suffix = {"figure": "", "ratio": " × nginx"}.get(self.measure, f" {self.measure}")
        return f"{'≤' if self.upper else '≥'} {limit}{suffix}"


def times_nginx(limit: float) -> Goal:
    return Goal("ratio", limit)


def over_direct(limit: float) -> Goal:
    return Goal("over direct", limit)


def over_nginx(limit: float) -> Goal:
    return Goal("over nginx", limit)


def at_most(limit: float) -> Goal:
    return Goal("figure", limit)


def at_least(limit: float) -> Goal:
    return Goal("figure", limit, upper=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scenario: str
    figure: str
    label: str
    digits: int = 0
    goal: Goal | None = None
    compared: bool = True  # False: a difference near zero, of which no ratio means anything

    @property
    def short(self) -> str:
        """The label without the scenario, where a heading names that already."""
        return self.label.strip().rpartition(": ")[2]

    @property
    def better(self) -> Literal["less", "more", ""]:
        """Which direction is better; empty for a figure that only explains others."""
        if (self.scenario, self.figure) == ("paced", "requests_s"):
            return ""  # the rate is a setting, as that of events in every scenario
        if self.figure.endswith(_MORE_IS_BETTER):
            return "more"
        return "less" if self.figure.endswith(_COSTS) else ""


_MORE_IS_BETTER = ("requests_s", "most_s")
_COSTS = ("_us", "_ms", "_ms_s", "_kib", "_mib")

_ROWS = (
    Row("json", "cpu_us", "JSON: CPU per request, µs", 1, goal=times_nginx(3.7)),
    Row("json", "requests_s", "JSON: requests/s, one core", 0, goal=at_least(23_000)),
    Row("json", "share", "  share of its core", 2),
    Row("json", "p50_us", "  saturated p50, µs"),
    Row("json", "p99_us", "  saturated p99, µs"),
    Row("json", "stall_ms", "  longest stall of the loop, ms", 1, goal=at_most(10)),
    Row("json", "rss_mib", "  memory in steady work, MiB", 1),
    Row("json-8", "cpu_us", "JSON, 8 connections: CPU per request, µs", 1),
    Row("json-8", "requests_s", "JSON, 8 connections: requests/s, one core"),
    Row("json-8", "share", "  share of its core", 2),
    Row("json-8", "p50_us", "  saturated p50, µs"),
    Row("json-8", "p99_us", "  saturated p99, µs"),
    Row("paced", "cpu_us", "JSON, equal rate: CPU per request, µs", 1, goal=times_nginx(3.1)),
    Row("paced", "requests_s", "  requests/s"),
    Row("paced", "refused", "  windows refused, rate missed", compared=False),
    Row("paced", "p50_us", "  p50, µs"),
    Row("paced", "p99_us", "  p99, µs"),
    Row("rate", "requests_s", "JSON: requests/s with p99 ≤ 1 ms, one core"),
    Row("rate", "most_s", "  requests/s without a bound"),
    Row("rate", "p99_us", "  p99 at the rate, µs"),
    Row("starts", "first_p50_us", "1,000 streams a second: first content p50, µs"),
    Row("starts", "first_p99_us", "  first content p99, µs"),
    Row("starts", "refused", "  windows refused: they missed the rate", compared=False),
    Row("starts", "cpu_us", "  CPU per stream, µs", 1),
    Row("latency", "p50_us", "JSON: alone, p50, µs", goal=over_direct(154)),
    Row("latency", "p99_us", "JSON: alone, p99, µs", goal=over_direct(400)),
    Row("first", "p50_us", "First event alone, p50, µs", goal=over_nginx(130)),
    Row("first", "p99_us", "First event alone, p99, µs", goal=over_nginx(210)),
    Row("first", "max_us", "First event alone, the latest, µs", goal=at_most(2_000)),
    Row("sse", "cpu_us", "SSE: CPU per event, µs", 1, goal=times_nginx(1.33)),
    Row("sse", "events_s", "SSE: events/s delivered"),
    Row("sse", "share", "  share of its core", 2),
    Row("sse", "stall_ms", "  longest stall of the loop, ms", 1, goal=at_most(10)),
    Row("sse", "first_p50_us", "SSE: first content p50, µs"),
    Row("sse", "first_p99_us", "SSE: first content p99, µs"),
    Row("http2-json", "cpu_us", "HTTP/2 JSON: CPU per request, µs", 1),
    Row("http2-json", "requests_s", "HTTP/2 JSON: requests/s, one core", 0, goal=at_least(6_000)),
    Row("http2-json", "share", "  share of its core", 2),
    Row("http2-sse", "cpu_us", "HTTP/2 SSE: CPU per event, µs", 1, goal=times_nginx(1.7)),
    Row("http2-sse", "events_s", "HTTP/2 SSE: events/s delivered"),
    Row("http2-sse", "share", "  share of its core", 2),
    Row("http2-sse", "first_p50_us", "HTTP/2 SSE: first content p50, µs"),
    Row("tls-json", "cpu_us", "TLS JSON: CPU per request, µs", 1),
    Row("tls-json", "requests_s", "TLS JSON: requests/s, one core"),
    Row("tls-json", "share", "  share of its core", 2),
    Row("tls-http2-json", "cpu_us", "TLS and HTTP/2 JSON: CPU per request, µs", 1),
    Row("tls-http2-json", "requests_s", "TLS and HTTP/2 JSON: requests/s, one core"),
    Row("tls-http2-json", "share", "  share of its core", 2),
    Row("tls-sse", "cpu_us", "TLS SSE: CPU per event, µs", 1),
    Row("tls-sse", "events_s", "TLS SSE: events/s delivered"),
    Row("chat-json", "cpu_us", "Chat JSON: CPU per request, µs", 1, goal=times_nginx(5.0)),
    Row("chat-json", "requests_s", "Chat JSON: requests/s, one core"),
    Row("chat-json", "share", "  share of its core", 2),
    Row("chat-sse", "cpu_us", "Chat SSE: CPU per event, µs", 1, goal=times_nginx(1.6)),
    Row("chat-sse", "events_s", "Chat SSE: events/s delivered"),
    Row("chat-sse", "share", "  share of its core", 2),
    Row("chat-first", "messages_p50_us", "First content: messages p50, µs"),
    Row("chat-first", "chat_p50_us", "First content: chat p50, µs"),
    Row("chat-first", "more_us", "  more for chat, µs", 0, goal=at_most(300), compared=False),
    Row("responses-json", "cpu_us", "Responses JSON: CPU per request, µs", 1),
    Row("responses-json", "requests_s", "Responses JSON: requests/s, one core"),
    Row("responses-json", "share", "  share of its core", 2),
    Row("responses-sse", "cpu_us", "Responses SSE: CPU per event, µs", 1, goal=times_nginx(1.8)),
    Row("responses-sse", "events_s", "Responses SSE: events/s delivered"),
    Row("responses-sse", "share", "  share of its core", 2),
    Row("json-300k", "requests_s", "300 KB bodies: requests/s, one core", goal=at_least(1_000)),
    Row("json-300k", "cpu_us", "  CPU per request, µs", 1),
    Row("json-300k", "p99_us", "  p99 with 8 connections, µs", goal=at_most(10_000)),
    Row("json-300k", "stall_ms", "  longest stall of the loop, ms", 1, goal=at_most(50)),
    Row("json-1m", "requests_s", "1 MB bodies: requests/s, one core"),
    Row("json-1m", "cpu_us", "  CPU per request, µs", 1),
    Row("json-1m", "p99_us", "  p99 with 8 connections, µs"),
    Row("json-1m", "stall_ms", "  longest stall of the loop, ms", 1, goal=at_most(50)),
    Row("memory", "base_mib", "Memory at rest, MiB", 1, goal=at_most(60)),
    Row("memory", "stream_kib", "  a live stream, KiB", 1, goal=at_most(24)),
    Row("idle", "idle_kib", "  an idle connection, KiB", 1, goal=at_most(4)),
    Row("slow", "growth_kib", "  a slow reader, KiB", 0, goal=at_most(256)),
    Row("slow", "peak_kib", "  its peak on the way, KiB"),
    Row("idle-streams", "streams", "Silent streams, all alive"),
    Row("idle-streams", "stream_kib", "  a silent stream, KiB", 1, goal=at_most(24)),
    Row("idle-streams", "rest_ms_s", "  CPU at rest, ms per second", 1),
    Row("idle-streams-10k", "streams", "Silent streams, all alive"),
    Row("idle-streams-10k", "stream_kib", "  a silent stream, KiB", 1, goal=at_most(24)),
    Row("idle-streams-10k", "rest_ms_s", "  CPU at rest, ms per second", 1),
    Row("live-streams", "streams", "Live streams, no event lost"),
    Row("live-streams", "cpu_us", "  CPU per event, µs", 1),
    Row("live-streams", "events_s", "  events/s delivered"),
    Row("live-streams", "share", "  share of its core", 2),
    Row("live-streams", "gap_p99_us", "  gaps, more than at the upstream, p99, µs", compared=False),
    Row("live-streams", "gap_max_us", "  gaps, the worst, µs", compared=False),
    Row("gaps", "gap_p50_us", "Gaps beyond the upstream's, p50, µs", compared=False),
    Row("gaps", "gap_p99_us", "  p99, µs", goal=over_direct(10), compared=False),
    Row("gaps", "gap_max_us", "  the worst, µs", compared=False),
    Row("handover", "cut_streams", "Hand-over: streams cut", goal=at_most(0), compared=False),
    Row("handover", "failed_requests", "  requests failed", goal=at_most(0), compared=False),
    Row("handover", "requests", "  requests answered", compared=False),
    Row("handover", "slowest_ms", "  the slowest request, ms", 1, compared=False),
    Row("handover", "handover_ms", "  until the new process serves, ms", compared=False),
    Row("quota", "admitted", "1,000 at once with 40 left: admitted", compared=False),
    Row("quota", "off_by", "  off by", goal=at_most(0), compared=False),
    Row("agents", "cpu_us", "Mixed agents: CPU per turn, µs", 1),
    Row("agents", "turns", "  turns", compared=False),
    Row("agents", "left", "  of these, left early", compared=False),
    Row("agents", "first_p50_us", "  first event p50, µs"),
    Row("agents", "first_p99_us", "  first event p99, µs"),
    Row("agents", "failures", "  failures", goal=at_most(0), compared=False),
    Row("agents", "ledger_off", "  ledger off by", goal=at_most(0), compared=False),
    Row("ready", "ready_ms", "Ready after, ms", 0, goal=at_most(500)),
)


def all_rows(settings: Settings) -> tuple[Row, ...]:
    """All lines of the table; the sizes of bodies are an option."""
    return (*_ROWS, *_body_rows(settings.bodies), *_curve_rows(settings.largest))


_CURVE_LABELS = {
    "requests_s": "requests/s",
    "events_s": "events/s",
    "cpu_us": "CPU, µs",
    "p99_us": "p99, µs",
    "gap_p99_us": "gap p99, µs",
    "rss_mib": "memory, MiB",
    "connections": "connections",
    "ready_ms": "ready after, ms",
    "dashboard_ms": "dashboard, ms",
    "usage_page_ms": "page of usage, ms",
    "key_usage_ms": "GET /v1/usage, ms",
    "command_ms": "`relay usage`, ms",
    "stall_ms": "longest stall of the loop, ms",
}


def _curve_rows(largest: int) -> Iterator[Row]:
    """A line for each figure at each size."""
    for name, curve in CURVES.items():
        for figure, label in _CURVE_LABELS.items():
            for size in curve.up_to(largest):
                title = f"{name.removeprefix('curve-')}: {label} at {size:,}"
                yield Row(name, f"{figure}@{size}", title, 1 if figure == "cpu_us" else 0)


def _body_rows(sizes: Sequence[str]) -> Iterator[Row]:
    for scenario, title in (
        ("body-memory", "Messages"),
        ("chat-body-memory", "Chat"),
        ("responses-body-memory", "Responses"),
    ):
        for size in sizes:
            label = f"{title} stream, {size} body, KiB"
            yield Row(scenario, f"body_{size}_kib", label, 1, goal=at_most(40))
        for size in sizes[1:]:
            label = f"  {size} more than {sizes[0]}, KiB"
            yield Row(scenario, f"body_{size}_more_kib", label, 1, compared=False)
