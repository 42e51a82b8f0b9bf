"""The requests in flight and the latest failures, of this process and of those beside it.

Decides which requests are shown where there are many: the oldest. Must not know pages.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from typing import Final

import msgspec

from relay.gateway.admission import MeteredAdmission
from relay.gateway.context import RequestContext
from relay.gateway.watch import MAX_FAILURES, Failure, Watch

MAX_ROWS: Final = 200


class RunningRequest(msgspec.Struct, frozen=True, array_like=True):
    """One request in flight. Tokens and micro-dollars are those that are held for it.

    `started_at` is epoch seconds, `first_us` as in `gateway.context`.
    """

    id: str
    started_at: float
    email: str
    user_id: str
    key_id: str
    model: str
    path: str
    stage: str  # reading, waiting or answering
    upstream: str
    choice: str
    passed_over: str
    tried: str
    tokens: int
    held_micro: int
    first_us: int


class RunningRequests(msgspec.Struct, array_like=True):
    """The oldest requests in flight, at most `MAX_ROWS`, and the number of all."""

    rows: list[RunningRequest]
    total: int


def read_running(watch: Watch) -> RunningRequests:
    """The requests of the API that this process has in flight."""
    found = [ctx for ctx in watch.running if ctx.dialect is not None]
    found.sort(key=lambda ctx: ctx.started_at)
    return RunningRequests([_running(ctx) for ctx in found[:MAX_ROWS]], len(found))


def merged_running(parts: Iterable[RunningRequests]) -> RunningRequests:
    """Those of several processes as one list."""
    known = list(parts)
    rows = sorted(chain(*(one.rows for one in known)), key=lambda row: row.started_at)
    return RunningRequests(rows[:MAX_ROWS], sum(one.total for one in known))


def merged_failures(parts: Iterable[Iterable[Failure]]) -> list[Failure]:
    """The latest failures of several processes, the latest last, as many as one process keeps."""
    return sorted(chain(*parts), key=_ended_at)[-MAX_FAILURES:]


def _ended_at(failure: Failure) -> float:
    record = failure.record
    return datetime.fromisoformat(record.time).timestamp() + record.us / 1e6


def _running(ctx: RequestContext) -> RunningRequest:
    admission, caller = ctx.admission, ctx.caller
    held = admission.reservation.cost if isinstance(admission, MeteredAdmission) else 0
    stage = "answering" if ctx.upstream_us else "waiting" if ctx.inbound else "reading"
    return RunningRequest(
        ctx.id,
        ctx.started_at,
        "" if caller is None else caller.email,
        "" if caller is None else caller.user_id,
        "" if caller is None else caller.key_id,
        ctx.model,
        ctx.path,
        stage,
        ctx.upstream,
        ctx.choice,
        ctx.passed_over,
        ctx.tried,
        admission.tokens,
        held,
        ctx.first_us,
    )
