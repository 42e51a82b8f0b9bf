"""Counts of requests, tokens, money and durations, for the operator's metrics.

One call a request, when it has ended: from the same facts as its line in the log. The counts are
plain integers; a scrape reads them.

Decides how requests are told apart: by endpoint, model and upstream. All three are names of the
settings; whatever a caller makes up is counted as "other". Must not know Prometheus.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.dialect import Dialect
from relay.gateway.load import ShedError
from relay.quota.exceeded import QuotaExceeded
from relay.telemetry.histogram import REQUEST_BOUNDS, SHARE_BOUNDS, Histogram

OTHER: Final = "other"
_MAX_SERIES: Final = 10_000  # endpoints times models times upstreams: a bound, should names change
_MAX_KEYS: Final = 4_096  # requested names may be of a caller's making, where a pattern matches
_Key = tuple[Dialect | None, str, str]


class Series:
    """The counts of one endpoint, model and upstream. `by_status` is indexed by the status' first
    digit, 0 where there was none."""

    __slots__ = (
        "by_status",
        "cache_read",
        "cache_write",
        "completed",
        "cost",
        "durations",
        "endpoint",
        "first_events",
        "input",
        "model",
        "other_outcomes",
        "output",
        "upstream",
    )  # fmt: skip

    def __init__(self, endpoint: str, model: str, upstream: str) -> None:
        self.endpoint = endpoint
        self.model = model
        self.upstream = upstream
        self.by_status = [0] * 10
        self.completed = 0
        self.other_outcomes: Counter[str] = Counter()  # by their word in the log
        self.input = 0
        self.output = 0
        self.cache_read = 0
        self.cache_write = 0
        self.cost = 0  # micro-dollars
        self.durations = Histogram(REQUEST_BOUNDS)
        self.first_events = Histogram(REQUEST_BOUNDS)


class RequestMetrics:
    """See the module. `own_share` has the relay's own share of requests that went upstream,
    `waits` the waits for a free upstream."""

    __slots__ = ("_by_key", "_model_id", "_series", "own_share", "refusals", "rejected", "waits")

    def __init__(self, model_id: Callable[[str], str]) -> None:
        """`model_id` returns the id of the model that a name means; "" for no model."""
        self._model_id = model_id
        self._by_key: dict[_Key, Series] = {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self.own_share = Histogram(SHARE_BOUNDS)
        self.waits = Histogram(REQUEST_BOUNDS)
        self.refusals: Counter[str] = Counter()  # the relay's own, by reason
        self.rejected: Counter[int] = Counter()  # octets that are no request, by status

    def series(self) -> list[Series]:
        """All series so far."""
        return list(self._series.values())

    def forget_names(self) -> None:
        """The models have changed: an alias may name another one from now on."""
        self._by_key.clear()

    def record(self, ctx: RequestContext, us: int) -> None:
        """Count a request that has ended after `us` microseconds."""
        series = self._by_key.get((ctx.dialect, ctx.model, ctx.upstream))
        if series is None:
            series = self._new_series(ctx)
        series.by_status[ctx.exchange.status // 100 % 10] += 1
        if ctx.outcome is Outcome.COMPLETE:
            series.completed += 1
        else:
            series.other_outcomes[ctx.outcome._value_] += 1
        durations = series.durations
        durations.counts[bisect_left(durations.bounds, us)] += 1
        durations.total += us
        if ctx.first_us:
            series.first_events.add(ctx.first_us)
        if ctx.wait_us:
            self.waits.add(ctx.wait_us)
        series.cost += ctx.admission.cost
        usage = ctx.reported
        if usage is None:
            return
        share = self.own_share
        share.counts[bisect_left(share.bounds, ctx.relay_us)] += 1
        share.total += ctx.relay_us
        series.input += usage.input or 0
        series.output += usage.output or 0
        series.cache_read += usage.cache_read or 0
        series.cache_write += usage.cache_write or 0

    def refused(self, error: RelayError) -> None:
        """Count a refusal of the relay's own."""
        reason = error.kind.messages_type
        if isinstance(error, QuotaExceeded):
            reason = "quota"
        elif isinstance(error, ShedError):
            reason = "shed"
        self.refusals[reason] += 1

    def reject(self, status: int) -> None:
        """Count octets that are no request."""
        self.rejected[status] += 1

    def _new_series(self, ctx: RequestContext) -> Series:
        model = self._model_id(ctx.model) if ctx.model else ""
        endpoint = OTHER if ctx.dialect is None else ctx.path
        labels = (endpoint, model or (OTHER if ctx.model else ""), ctx.upstream)
        series = self._series.get(labels)
        if series is None and len(self._series) >= _MAX_SERIES:
            labels = (OTHER, OTHER, OTHER)
            series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series(*labels)
        if len(self._by_key) >= _MAX_KEYS:
            self._by_key.clear()  # found again by their labels
        self._by_key[ctx.dialect, ctx.model, ctx.upstream] = series
        return series
