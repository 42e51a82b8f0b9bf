"""Figures of several processes: together they are those of one that had done all."""

import dataclasses
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from relay.api.figures import (
    PIECE,
    Durations,
    Figures,
    SeriesFigures,
    UpstreamFigures,
    decode_all,
    encode_all,
    ended,
    merged,
)
from relay.telemetry.histogram import REQUEST_BOUNDS, Histogram

GAUGES = {
    "processes", "relayed", "in_flight", "in_flight_limit", "shed_share", "waiting", "connections",
    "connections_limit", "silent_connections", "handshakes", "held", "held_limit", "accepting",
    "draining",
}  # fmt: skip
LAGS = {"latest_lag", "longest_lag"}
COUNTERS = {"shed", "refused_connections", "log_dropped", "traces_sent", "traces_dropped"}

NAMES = st.sampled_from(["a", "b", "c"])


@dataclasses.dataclass(frozen=True)
class Event:
    """A request that ended in one of three processes."""

    process: int
    labels: tuple[str, str, str]
    status: int
    outcome: str
    us: int
    tokens: int
    refusal: str
    upstream: str


EVENTS = st.builds(
    Event,
    process=st.integers(0, 2),
    labels=st.tuples(NAMES, NAMES, NAMES),
    status=st.integers(0, 9),
    outcome=st.sampled_from(["", "cut", "refused"]),
    us=st.integers(0, 10**9),
    tokens=st.integers(0, 10**6),
    refusal=NAMES,
    upstream=NAMES,
)


def count(figures: Figures, event: Event) -> None:
    """Count a request in the figures of its process."""
    series = next((one for one in figures.series if one.labels == event.labels), None)
    if series is None:
        none = Durations.none(REQUEST_BOUNDS)
        copy = Durations.none(REQUEST_BOUNDS)
        series = SeriesFigures(*event.labels, [0] * 10, 0, {}, 0, 0, 0, 0, 0, none, copy)
        figures.series.append(series)
    series.by_status[event.status] += 1
    if event.outcome:
        outcomes = series.other_outcomes
        outcomes[event.outcome] = outcomes.get(event.outcome, 0) + 1
    else:
        series.completed += 1
    series.input += event.tokens
    series.output += event.tokens // 2
    series.cache_read += event.tokens // 3
    series.cache_write += event.tokens // 5
    series.cost += event.tokens * 7
    for durations in (series.durations, series.first_events, figures.waits):
        histogram = Histogram.of(REQUEST_BOUNDS, durations.counts, durations.total)
        histogram.add(event.us)
        durations.total = histogram.total
    figures.refusals[event.refusal] = figures.refusals.get(event.refusal, 0) + 1
    figures.rejected[event.status] = figures.rejected.get(event.status, 0) + 1
    upstream = next((one for one in figures.upstreams if one.name == event.upstream), None)
    if upstream is None:
        upstream = UpstreamFigures(event.upstream)
        figures.upstreams.append(upstream)
    for name in UpstreamFigures.__struct_fields__[1:]:
        setattr(upstream, name, getattr(upstream, name) + event.status)
    for name in COUNTERS | GAUGES:
        setattr(figures, name, getattr(figures, name) + event.status)
    for name in LAGS:
        setattr(figures, name, max(getattr(figures, name), event.us / 1e6))


def values(figures: Figures) -> dict[str, Any]:
    """All values, in whatever order they were counted."""
    found: dict[str, Any] = msgspec.to_builtins(figures)
    found["series"] = sorted(found["series"], key=str)
    found["upstreams"] = sorted(found["upstreams"])
    return found


@given(st.lists(EVENTS, max_size=40))
def test_parts_add_up_to_one_that_saw_all(events: list[Event]) -> None:
    parts, one = [Figures() for _ in range(3)], Figures()
    for event in events:
        count(parts[event.process], event)
        count(one, event)
    received = [decode_all(encode_all(part)) for part in parts]
    assert values(merged(received)) == values(one)


@given(st.lists(EVENTS, max_size=40))
def test_what_an_ended_process_counted_stays(events: list[Event]) -> None:
    parts = [Figures() for _ in range(3)]
    for event in events:
        count(parts[event.process], event)
    before = values(merged(decode_all(encode_all(part)) for part in parts))
    after = values(merged([parts[0], ended(parts[1]), parts[2]]))
    kept = {"series", "own_share", "waits", "loop_lag", "refusals", "rejected", *COUNTERS}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    for row, known in zip(after["upstreams"], before["upstreams"], strict=True):
        assert row[:5] == known[:5]
    for name in GAUGES | LAGS:
        assert getattr(parts[1], name) == 0


def test_every_figure_is_of_a_kind() -> None:
    kinds = {"pid", "series", "upstreams", "own_share", "waits", "loop_lag", "refusals", "rejected"}
    assert set(Figures.__struct_fields__) == kinds | COUNTERS | GAUGES | LAGS


def test_thousands_of_series_go_in_small_pieces() -> None:
    figures, pauses = Figures(), 0
    for number in range(5 * PIECE + 1):
        event = Event(0, ("a", "b", str(number)), 2, "", 1, 1, "a", "a")
        one = Figures()
        count(one, event)
        figures.series += one.series

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    pieces = encode_all(figures)
    assert len(pieces) == 7
    assert max(map(len, pieces)) < 64 * 1024
    assert decode_all(pieces, pause) == figures
    assert pauses == 6
    assert len(merged([decode_all(pieces), figures], pause).series) == 5 * PIECE + 1
    assert pauses == 6 + 2 * 5
