"""All payments: found by a text, a state or a month, exported, and what needs somebody."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from relay.payments.amounts import money
from relay.store.payment_events import open_notes, resolve
from relay.store.payments import (
    STATES,
    Payment,
    PaymentFilter,
    find_payment,
    month_bounds,
    payments,
)
from relay.web.pages import Access, Pages
from relay.web.payment_pages import export_of, page_start, pdf, require
from relay.web.visit import Visit

_ROWS: Final = 50
_MAX_TEXT: Final = 128
_MONTH: Final = re.compile("(20[0-9]{2})-(0[1-9]|1[0-2])")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/payments", show, Access.ADMIN)
    pages.get("/admin/payments.csv", export, Access.ADMIN)
    pages.get("/admin/payments/{id}/invoice.pdf", invoice, Access.ADMIN)
    pages.post("/admin/payments/notes/{id}/resolve", resolve_note, Access.ADMIN)


def _read(visit: Visit) -> tuple[PaymentFilter, dict[str, str]]:
    """The filter of a query, and the query itself."""
    query = visit.request.query_params
    fields = {
        name: query[name].strip()[:_MAX_TEXT]
        for name in ("q", "state", "month")
        if query.get(name, "").strip()
    }
    since = until = None
    match = _MONTH.fullmatch(fields.get("month", ""))
    if match is not None:
        since, until = month_bounds(int(match[1]), int(match[2]))
    which = PaymentFilter("", fields.get("q", ""), fields.get("state", ""), since, until)
    return which, fields


async def show(visit: Visit) -> Response:
    """A page of the list under its filters, the newest first; above it what needs somebody."""
    require(visit)
    which, fields = _read(visit)
    before = page_start(visit)
    page = await payments(visit.database, which, _ROWS, before)
    is_first = before == 2**62
    this_month = datetime.fromtimestamp(visit.now, UTC).strftime("%Y-%m")
    values: dict[str, Any] = {
        "page": page,
        "fields": fields,
        "states": STATES,
        "month": fields.get("month", ""),
        "this_month": this_month,
        "notes": await open_notes(visit.database) if is_first else [],
        "money": money,
        "plans": {plan.id: plan.name or plan.id for plan in visit.settings.plan},
    }
    return visit.render("admin/payments.html", **values)


async def export(visit: Visit) -> Response:
    """Payments under the filters as CSV; of one month, for whoever keeps the books."""
    require(visit)
    return export_of(visit, _read(visit)[0])


async def _payment(visit: Visit) -> Payment:
    require(visit)
    payment = await find_payment(visit.database, visit.request.path_params["id"])
    if payment is None:
        visit.refuse(404, "not_found")
    return payment


async def invoice(visit: Visit) -> Response:
    """An invoice as PDF."""
    return await pdf(visit, await _payment(visit))


async def resolve_note(visit: Visit) -> Response:
    """A note is dealt with."""
    require(visit)
    if not await resolve(visit.acting, visit.request.path_params["id"], visit.now):
        visit.refuse(404, "not_found")
    return visit.redirect("/admin/payments", done="payment_resolved")
