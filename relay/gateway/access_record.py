"""The access log's line for one request, derived once when the request has ended.

No key, no prompt and no answer ever comes in here, so none can come out.
"""

import time

import msgspec

from relay.clock import rfc3339
from relay.gateway.context import RequestContext


class AccessRecord(msgspec.Struct, omit_defaults=True):
    """One request; a field without a value stays at its default and is left out of the line.

    Times are microseconds: `us` from the request's head to the last octet, `wait_us` the wait for
    a free upstream, `relay_us` the relay's own share before the upstream, `upstream_us` the
    upstream's until its head, `first_us` from the request's head to the first content of a
    stream. `rule` says how the request was settled (`gateway.admission`).
    `outcome`: `whole`, `refused: …`, `cut: …`, `caller left` or `failed`.
    `choice`: the upstream is the `only` one, has the `session`, or it was its `turn`. `passed`:
    the upstreams that could not be chosen, and why. `tried`: those that failed the request.
    `agent`: the helper of an agent, by its client's name for it (Codex CLI: `review`, `compact`).
    `served`: the model that the upstream names, where it is not the model that was sent.
    """

    time: str
    id: str
    peer: str
    method: str
    path: str
    status: int = 0
    outcome: str = ""
    rule: str = ""
    user: str = ""
    key: str = ""
    agent: str = ""
    model: str = ""
    upstream: str = ""
    choice: str = ""
    passed: str = ""
    tried: str = ""
    served: str = ""
    upstream_id: str = ""
    stop: str | None = None
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    us: int = 0
    wait_us: int = 0
    relay_us: int = 0
    upstream_us: int = 0
    first_us: int = 0


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
