"""Codes for credit, plans and invitations: made in batches, shown once, withdrawn."""

from functools import partial
from typing import Any, Final

from starlette.responses import Response

from relay.accounts import AccountError, codes
from relay.accounts.codes import BatchOptions, MadeCode
from relay.store.codes import Grant, list_codes
from relay.web.numbers import micro_dollars, whole_number
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_KINDS: Final = ("credit", "plan", "invite")
_LIFETIMES: Final = ("", "7d", "30d", "90d", "365d")
_MAX_COUNT: Final = 10**9  # before what a code allows
_ROWS: Final = 100
_DAY: Final = 86_400
_MAX_ID: Final = 64


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/codes", show, Access.ADMIN)
    pages.post("/admin/codes", create, Access.ADMIN)
    pages.post("/admin/codes/{id}/revoke", revoke, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """The codes so far, the newest first; of one batch, if a query says so."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    query = visit.request.query_params
    batch, after = query.get("batch", "")[:_MAX_ID], query.get("after", "")[:_MAX_ID]
    rows = await list_codes(visit.database, batch or None, _ROWS, after)

    def sent(kind: str, name: str, default: str = "") -> str:
        return visit.form.get(name, default) if kind == visit.form.get("kind") else default

    values: dict[str, Any] = {
        "rows": rows,
        "batch": batch,
        "after": rows[-1].id if len(rows) == _ROWS else None,
        "kinds": _KINDS,
        "lifetimes": _LIFETIMES,
        "plans": visit.settings.plan,
        "sent": sent,
        "problem": problem,
    }
    return visit.render("admin/codes.html", status, **values)


async def create(visit: Visit) -> Response:
    """Make a batch. This answer is the only place that ever has the codes: a page, or a CSV."""
    form = visit.form
    kind = visit.choice("kind", _KINDS)
    options = BatchOptions(
        _count(form.get("number", "")),
        _count(form.get("uses", "1")),
        visit.choice("lifetime", _LIFETIMES) or None,
        form.get("note", "").strip(),
    )
    try:
        made = await codes.create(
            visit.acting, visit.settings, _grant(kind, form), options, visit.now
        )
    except AccountError as error:
        return await _page(visit, 422, visit.t(f"admin_codes.bad_{error.fault or 'plan'}"))
    if form.get("as") == "csv":
        return _csv(made)
    url = partial(codes.invitation_url, visit.settings)
    return visit.render("admin/codes_made.html", made=made, url=url)


def _grant(kind: str, form: dict[str, str]) -> Grant:
    """The value of the codes."""
    plan = form.get("plan", "") or None
    if kind == "credit":
        return Grant("credit", micro_dollars(form.get("amount", "")) or 0)
    if kind == "plan":
        then = form.get("plan_then", "") or plan
        return Grant("plan", 0, plan, _count(form.get("days", "")) * _DAY, then)
    return Grant("invite", 0, plan)


def _count(text: str) -> int:
    return whole_number(text, _MAX_COUNT) or 0


def _csv(made: list[MadeCode]) -> Response:
    name = made[0].record.batch
    disposition = f'attachment; filename="codes-{name}.csv"'
    return Response(
        codes.as_csv(made),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": disposition},
    )


async def revoke(visit: Visit) -> Response:
    """Withdraw a code, or a batch."""
    try:
        await codes.revoke(visit.acting, visit.request.path_params["id"], visit.now)
    except AccountError:
        visit.refuse(404, "not_found")
    return visit.redirect("/admin/codes", done="codes_revoked")
