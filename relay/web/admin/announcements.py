"""Announcements, maintenance and incidents, which every page shows."""

from datetime import UTC, datetime
from typing import Any, Final, cast

from starlette.responses import Response

from relay.accounts import AccountError, announcements
from relay.store.announcements import Announcement, Kind, list_all
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_KINDS: Final = ("notice", "maintenance", "incident")
_FORM: Final = "%Y-%m-%dT%H:%M"


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/announcements", show, Access.ADMIN)
    pages.post("/admin/announcements", create, Access.ADMIN)
    pages.post("/admin/announcements/{id}/resolve", resolve, Access.ADMIN)
    pages.post("/admin/announcements/{id}/remove", remove, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them, and a form for one more."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    values: dict[str, Any] = {
        "announcements": await list_all(visit.database),
        "kinds": _KINDS,
        "problem": problem,
        "form": visit.form,
    }
    return visit.render("admin/announcements.html", status, **values)


async def create(visit: Visit) -> Response:
    """Show a text from now on, or from a moment on, until another. Moments are in UTC."""
    form, kind = visit.form, visit.choice("kind", _KINDS)
    try:
        starts, ends = _moment(form.get("starts", "")), _moment(form.get("ends", ""))
    except ValueError:
        return await _page(visit, 422, visit.t("admin_announcements.bad_moment"))
    new = Announcement(
        "",
        cast(Kind, kind),
        form.get("text", "").strip(),
        form.get("text_zh", "").strip(),
        starts or visit.now,
        ends,
        visit.now,
        form.get("title", "").strip(),
        form.get("title_zh", "").strip(),
    )
    try:
        await announcements.add(visit.acting, new)
    except AccountError as error:
        return await _page(visit, 422, visit.t(f"admin_announcements.bad_{error.fault}"))
    await visit.site.notices.refresh(visit.now, always=True)
    return visit.redirect("/admin/announcements", done="announced")


async def resolve(visit: Visit) -> Response:
    """It is over."""
    try:
        await announcements.resolve(visit.acting, visit.request.path_params["id"], visit.now)
    except AccountError:
        visit.refuse(404, "not_found")
    await visit.site.notices.refresh(visit.now, always=True)
    return visit.redirect("/admin/announcements", done="announcement_resolved")


async def remove(visit: Visit) -> Response:
    """Show it no more."""
    try:
        await announcements.remove(visit.acting, visit.request.path_params["id"], visit.now)
    except AccountError:
        visit.refuse(404, "not_found")
    await visit.site.notices.refresh(visit.now, always=True)
    return visit.redirect("/admin/announcements", done="announcement_removed")


def _moment(text: str) -> float | None:
    """Epoch seconds; None: the field is empty. Raises ValueError: it has no moment."""
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC).timestamp() if text else None
