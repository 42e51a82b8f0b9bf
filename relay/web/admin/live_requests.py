"""The requests in flight: who, what, where to and why, and what each holds."""

from typing import Any

from starlette.responses import Response

from relay.web.pages import Access, Pages
from relay.web.visit import Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/live", show, Access.ADMIN)
    pages.get("/admin/parts/live", part, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them, and how many."""
    return visit.render("admin/live.html", **await _values(visit))


async def part(visit: Visit) -> Response:
    """The rows alone."""
    return visit.render("admin/parts/live_rows.html", **await _values(visit))


async def _values(visit: Visit) -> dict[str, Any]:
    monitor = visit.parts.operations().monitor
    total = (await monitor.figures()).total
    running = await monitor.running()
    return {
        "rows": running.rows,
        "total": running.total,
        "waiting": total.waiting,
        "limit": total.in_flight_limit,
    }
