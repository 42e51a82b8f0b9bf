"""Metric families as plain values, and their text for Prometheus.

`prometheus_client` writes the text, in the form that the scraper's `accept` field prefers. It is
imported at the first scrape, on the scrape's own thread: no other request waits for it.

Decides how values are rendered. Must not know where they come from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from relay.telemetry.histogram import Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]


@dataclass(slots=True)
class Family:
    """One metric: the values by the labels' values. Durations in seconds, sizes in octets.

    A counter's name is without `_total`, which the text adds.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: Labels = ()
    values: list[tuple[Labels, float]] = field(default_factory=list)


@dataclass(slots=True)
class HistogramFamily:
    """A metric of durations; the values are the buckets and the sum in seconds, copied."""

    name: str
    help: str
    labels: Labels = ()
    values: list[tuple[Labels, list[tuple[str, float]], float]] = field(default_factory=list)

    def add(self, labels: Labels, histogram: Histogram) -> None:
        """Copy a histogram."""
        self.values.append((labels, histogram.buckets(), histogram.total / 1e6))


AnyFamily = Family | HistogramFamily


def gauge(name: str, help: str, value: float) -> Family:
    """A single value that goes up and down."""
    return Family(name, "gauge", help, values=[((), value)])


def counter(name: str, help: str, value: float) -> Family:
    """A single value that only grows."""
    return Family(name, "counter", help, values=[((), value)])


def render(
    families: Sequence[AnyFamily], accept: str, *, with_process: bool = True
) -> tuple[bytes, str]:
    """The text of all families, and its content type. `with_process`: and of this process, from
    /proc."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    if with_process:
        ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families:
    """A collector of families that are there already."""

    def __init__(self, families: Iterable[AnyFamily]) -> None:
        self._families = families

    def collect(self) -> "Iterator[Metric]":
        for family in self._families:
            yield _metric(family)


def _metric(family: AnyFamily) -> "Metric":
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    if isinstance(family, HistogramFamily):
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, buckets, total in family.values:
            histogram.add_metric(labels, buckets, total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, value in family.values:
        metric.add_metric(labels, value)
    return metric
