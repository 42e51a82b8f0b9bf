"""The requests in flight: who, what, where to and why, and what each holds."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from relay.gateway.admission import MeteredAdmission
from relay.gateway.context import RequestContext
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_MAX_ROWS: Final = 200


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/live", show, Access.ADMIN)
    pages.get("/admin/parts/live", part, Access.ADMIN)


@dataclass(frozen=True, slots=True)
class Running:
    """One request in flight. Tokens and micro-dollars are those that are held for it."""

    id: str
    age_us: int
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


async def show(visit: Visit) -> Response:
    """All of them, and how many."""
    return visit.render("admin/live.html", **_values(visit))


async def part(visit: Visit) -> Response:
    """The rows alone."""
    return visit.render("admin/parts/live_rows.html", **_values(visit))


def _values(visit: Visit) -> dict[str, Any]:
    operations = visit.parts.operations()
    found = [ctx for ctx in list(operations.watch.running) if ctx.dialect is not None]
    found.sort(key=lambda ctx: ctx.started_at)
    return {
        "rows": [_running(ctx, visit.now) for ctx in found[:_MAX_ROWS]],
        "total": len(found),
        "waiting": operations.upstreams.waiting,
        "limit": operations.measured.load.max_in_flight,
    }


def _running(ctx: RequestContext, now: float) -> Running:
    admission, caller = ctx.admission, ctx.caller
    held = admission.reservation.cost if isinstance(admission, MeteredAdmission) else 0
    stage = "answering" if ctx.upstream_us else "waiting" if ctx.inbound else "reading"
    return Running(
        ctx.id,
        max(0, int((now - ctx.started_at) * 1e6)),
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
