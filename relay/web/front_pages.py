"""The front page, files of style and scripts, and the choice of language, look and columns."""

from starlette.responses import Response

from relay.web import columns
from relay.web.languages import NAMES
from relay.web.pages import Access, Pages
from relay.web.security import COLUMNS_COOKIE, LANGUAGE_COOKIE, THEME_COOKIE, set_preference
from relay.web.visit import THEMES, Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/", front, Access.ANYBODY)
    pages.get("/static/{path:path}", file, Access.ANYBODY)
    pages.post("/preferences", prefer, Access.ANYBODY)


async def front(visit: Visit) -> Response:
    """What this is, and where to begin."""
    if visit.logged_in is not None:
        return visit.redirect("/dashboard")
    return visit.render("front.html", models=visit.settings.model)


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
