"""Histograms as plain lists of integers: cheap to add to, read by a scrape only.

Decides the bounds of the buckets. Must not know what is measured.
"""

from bisect import bisect_left
from typing import Final

# Microseconds. A prompt of a long conversation takes minutes; a JSON answer from a cache, 10 ms.
REQUEST_BOUNDS: Final = tuple(
    round(seconds * 1e6)
    for seconds in (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
)
SHARE_BOUNDS: Final = tuple(
    round(seconds * 1e6)
    for seconds in (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
)


class Histogram:
    """Counts of durations, in microseconds. `counts` has one place more than `bounds`: those
    that are longer than the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    @classmethod
    def of(cls, bounds: tuple[int, ...], counts: list[int], total: int) -> "Histogram":
        """A histogram that was counted elsewhere."""
        histogram = cls(bounds)
        histogram.counts, histogram.total = counts, total
        return histogram

    @property
    def counts_total(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    def add(self, us: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, us)] += 1
        self.total += us

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds in seconds with cumulated counts, as Prometheus wants them."""
        cumulated = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            cumulated += count
            rows.append((f"{bound / 1e6:g}", cumulated))
        rows.append(("+Inf", cumulated + self.counts[-1]))
        return rows
