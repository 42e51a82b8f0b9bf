"""The front page, files of style and scripts, and the choice of language, look and columns."""

import logging

from starlette.responses import Response

from relay.config import OfferSettings
from relay.payments.amounts import money
from relay.store.database import StoreError
from relay.web import columns
from relay.web.languages import NAMES
from relay.web.manual.filling import KEY, claude_code, price, set_up_lines
from relay.web.pages import Access, Pages
from relay.web.security import COLUMNS_COOKIE, LANGUAGE_COOKIE, THEME_COOKIE, set_preference
from relay.web.status_pages import overview
from relay.web.visit import THEMES, Visit

_log = logging.getLogger("relay.web")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/", front, Access.ANYBODY)
    pages.get("/static/{path:path}", file, Access.ANYBODY)
    pages.post("/preferences", prefer, Access.ANYBODY)


async def front(visit: Visit) -> Response:
    """What this install offers, and where to begin."""
    if visit.logged_in is not None:
        return visit.redirect("/dashboard")
    settings = visit.settings
    web = settings.web
    offers: dict[str, list[OfferSettings]] = {}
    if settings.payments.enabled:
        for offer in settings.payments.offer:
            offers.setdefault(offer.plan, []).append(offer)
    return visit.render(
        "front.html",
        tagline=(web.tagline_zh if visit.language == "zh" else "") or web.tagline,
        base_url=settings.server.public_url.rstrip("/"),
        claude_code=claude_code(settings, KEY),
        set_up=set_up_lines(settings, KEY)[0],
        models=settings.model,
        plans=settings.plan,
        offers=offers,
        currency=settings.payments.currency,
        money=money,
        price=price,
        state=await _state(visit),
    )


async def _state(visit: Visit) -> str:
    """The word of the status page; empty while it cannot be read, which must not hide this page."""
    try:
        return await overview(visit)
    except StoreError as error:
        _log.warning("the front page is without the status: %s", error)
        return ""


async def file(visit: Visit) -> Response:
    """One file of style or scripts."""
    found = visit.site.assets.find(visit.request.path_params["path"])
    if found is None:
        visit.refuse(404, "not_found")
    asset, kept = found
    headers = {"cache-control": kept, "vary": "accept-encoding"}
    is_zipped = "gzip" in visit.request.headers.get("accept-encoding", "")
    if is_zipped:
        headers["content-encoding"] = "gzip"
    body = asset.zipped if is_zipped else asset.octets
    return Response(body, headers=headers, media_type=asset.content_type)


async def prefer(visit: Visit) -> Response:
    """Remember a language, a look or the columns of a table, and show the same page again."""
    answer = visit.redirect(visit.next_path(visit.form.get("back", "")) or "/")
    for name, cookie, choices in (
        ("language", LANGUAGE_COOKIE, tuple(NAMES)),
        ("theme", THEME_COOKIE, THEMES),
    ):
        value = visit.form.get(name, "")
        if value in choices:
            set_preference(answer, cookie, value, secure=visit.is_secure)
    table = visit.form.get("table", "")
    if table in columns.TABLES:
        hidden = columns.read(visit.request.cookies.get(COLUMNS_COOKIE, ""))
        hidden[table] = columns.chosen(table, visit.form)
        value = columns.write(hidden)
        set_preference(answer, COLUMNS_COOKIE, value, secure=visit.is_secure)
    return answer
