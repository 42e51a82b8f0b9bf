"""The endpoints for upstreams: their state, pausing, resuming, clearing, and their days."""

from typing import Any

import msgspec

from relay import clock
from relay.pool.upstream import Upstream
from relay.provisioning.call import Call, ListPage, Reply
from relay.provisioning.problems import not_found
from relay.store import audit, pauses
from relay.store.usage import upstream_days

_MONTH_SECONDS = 31 * 86_400


class UpstreamView(msgspec.Struct, frozen=True):
    """An upstream as it stands. Costs are micro-dollars, by the prices of relay.toml."""

    name: str
    vendor: str
    state: str
    why: str
    until: str | None
    priority: int
    weight: int
    in_flight: int
    requests: int
    answered: int
    cost: dict[str, int]


class UpstreamDayView(msgspec.Struct, frozen=True):
    """The work of an upstream on a day (UTC)."""

    day: str
    upstream: str
    requests: int
    tokens: int
    cost_micro: int


def _view(row: dict[str, Any]) -> UpstreamView:
    return UpstreamView(*[row[name] for name in UpstreamView.__struct_fields__])


def _upstream(call: Call) -> Upstream:
    upstream = call.relay.upstreams.named(call.path[0])
    if upstream is None:
        raise not_found("upstream")
    return upstream


async def _shown(call: Call, upstream: Upstream) -> Reply:
    rows = await call.relay.operator.monitor.view()
    return Reply(_view(next(row for row in rows if row["name"] == upstream.name)))


async def list_upstreams(call: Call) -> Reply:
    """All upstreams, as they stand."""
    views = [_view(row) for row in await call.relay.operator.monitor.view()]
    return Reply(ListPage[UpstreamView](views, None))


async def list_days(call: Call) -> Reply:
    """The work of upstreams in the last 31 days, by day."""
    found = await upstream_days(call.database, call.now - _MONTH_SECONDS)
    views = [
        UpstreamDayView(
            clock.rfc3339(one.day)[:10], one.upstream, one.requests, one.tokens, one.cost_micro
        )
        for one in found
    ]
    return Reply(ListPage[UpstreamDayView](views, None))


async def pause(call: Call) -> Reply:
    """Give an upstream no more requests until it is resumed, over restarts too."""
    upstream = _upstream(call)
    await pauses.pause(call.database, upstream.name, call.now)
    upstream.health.pause()
    return await _shown(call, upstream)


async def resume(call: Call) -> Reply:
    """Give an upstream requests again."""
    upstream = _upstream(call)
    await pauses.resume(call.database, upstream.name, call.now)
    upstream.health.resume()
    call.relay.upstreams.wake()
    return await _shown(call, upstream)


async def clear(call: Call) -> Reply:
    """Forget the outages of an upstream, and try it at once."""
    upstream = _upstream(call)
    change = audit.Change("upstream.clear", upstream.name)
    await audit.note(call.database, call.now, change)
    upstream.clear()
    call.relay.upstreams.wake()
    return await _shown(call, upstream)
