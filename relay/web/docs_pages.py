"""The documentation for callers: its pages, the same as Markdown, their search, and llms.txt.

Everything comes ready from the library. A page says which keys somebody has, never a key itself:
they are not kept. Must not know Markdown.
"""

from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse, Response

from relay.store.keys import Key, list_own_keys
from relay.web.languages import NAMES
from relay.web.manual.contents import FIRST
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

if TYPE_CHECKING:
    from relay.web.manual.edition import Edition, ManualPage

_MARKDOWN: Final = "text/markdown; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_FOR_AN_HOUR: Final = {"cache-control": "private, max-age=3600"}  # its address has a digest
_MAX_HINTS: Final = 3


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/docs", first, Access.ANYBODY)
    pages.get("/docs/search.json", search, Access.ANYBODY)
    pages.get("/docs/{page}.md", markdown, Access.ANYBODY)
    pages.get("/docs/{page}", show, Access.ANYBODY)
    pages.get("/llms.txt", overview, Access.ANYBODY)


async def first(visit: Visit) -> Response:
    """The page to begin with."""
    return await _shown(visit, FIRST)


async def show(visit: Visit) -> Response:
    """One page."""
    name = visit.request.path_params["page"]
    return RedirectResponse("/docs", 308) if name == FIRST else await _shown(visit, name)


async def _shown(visit: Visit, name: str) -> Response:
    edition = await visit.site.library.edition(visit.language, visit.settings)
    page = _find(visit, edition, name)
    before, after = edition.around(page)
    keys = await _own_keys(visit) if page.rendered.has_key else []
    return visit.render(
        "docs.html", edition=edition, page=page, before=before, after=after, keys=keys
    )


async def markdown(visit: Visit) -> Response:
    """One page as Markdown, for programs."""
    page = _find(visit, await _edition(visit), visit.request.path_params["page"])
    return Response(page.source, media_type=_MARKDOWN)


async def search(visit: Visit) -> Response:
    """What the search looks through, in the browser."""
    edition = await _edition(visit)
    return Response(edition.search, headers=_FOR_AN_HOUR, media_type="application/json")


async def overview(visit: Visit) -> Response:
    """What there is, for programs."""
    return Response((await _edition(visit)).overview, media_type=_TEXT)


async def _edition(visit: Visit) -> "Edition":
    """The edition for a program: in the language of the address's `lang`, else of the request."""
    stated = visit.request.query_params.get("lang", "")
    language = stated if stated in NAMES else visit.language
    return await visit.site.library.edition(language, visit.settings)


def _find(visit: Visit, edition: "Edition", name: str) -> "ManualPage":
    page = edition.pages.get(name)
    if page is None:
        visit.refuse(404, "not_found")
    return page


async def _own_keys(visit: Visit) -> list[Key]:
    """Some live keys of who is logged in, the newest first."""
    if visit.logged_in is None:
        return []
    rows = await list_own_keys(visit.database, visit.user.id)
    return [key for key in reversed(rows) if key.state(visit.now) == "live"][:_MAX_HINTS]
