"""The access log's line for one request, derived once when the request has ended.

No key, no prompt and no answer ever comes in here, so none can come out.
"""

import time

from relay.clock import rfc3339
from relay.gateway.access_fields import AccessRecord
from relay.gateway.context import RequestContext


def access_record(ctx: RequestContext, outcome: str, us: int) -> AccessRecord:
    """The line of a request that has ended after `us` microseconds."""
    exchange, caller, usage = ctx.exchange, ctx.caller, ctx.reported
    record = AccessRecord(
        rfc3339(ctx.started_at),
        ctx.id,
        exchange.peer,
        exchange.request.method.decode(),
        ctx.path,
        exchange.status,
        outcome,
        ctx.admission.rule,
        "" if caller is None else caller.email,
        "" if caller is None else caller.key_id,
        ctx.agent,
        ctx.model,
        ctx.upstream,
        ctx.choice,
        ctx.passed_over,
        ctx.tried,
        ctx.served_model,
        ctx.upstream_id,
        us=us,
        wait_us=ctx.wait_us,
        relay_us=ctx.relay_us,
        upstream_us=ctx.upstream_us,
        first_us=ctx.first_us,
    )
    if usage is not None:
        record.stop = usage.stop_reason
        record.input = usage.input
        record.output = usage.output
        record.cache_read = usage.cache_read
        record.cache_write = usage.cache_write
    return record


def refusal_record(id: str, peer: str, status: int, reason: str) -> AccessRecord:
    """The line of octets that were no request: the server has refused them."""
    return AccessRecord(
        rfc3339(time.time()), id, peer, "", "", status=status, outcome=f"refused: {reason}"
    )
