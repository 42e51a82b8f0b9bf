"""The pages of the site, each with who may see it.

Decides what is checked before a page's function runs: who is logged in, and that a form comes from
this site. Every route is made here, so no page can forget it. Must not know topics.
"""

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from relay.secret import same

if TYPE_CHECKING:
    from relay.web.site import Site
from relay.web.visit import PageError, Visit

Page = Callable[[Visit], Awaitable[Response]]


class Access(Enum):
    """Who may see a page."""

    ANYBODY = 0
    PERSON = 1  # who is logged in
    ADMIN = 2


class Pages:
    """Collects routes: `pages.get("/login", show, Access.ANYBODY)`."""

    def __init__(self, site: "Site") -> None:
        self.routes: list[Route] = []
        self._site = site

    def get(self, path: str, page: Page, access: Access = Access.PERSON) -> None:
        """Serve GET and HEAD of `path`. The page must change nothing."""
        self._add(path, page, access, "GET")

    def post(self, path: str, page: Page, access: Access = Access.PERSON) -> None:
        """Serve POST of `path`; its form comes from this site."""
        self._add(path, page, access, "POST")

    def _add(self, path: str, page: Page, access: Access, method: str) -> None:
        async def endpoint(request: Request) -> Response:
            visit = await self._site.visit(request)
            if access is not Access.ANYBODY:
                if visit.logged_in is None:
                    return _log_in_first(request)
                if access is Access.ADMIN and not visit.user.is_admin:
                    raise PageError(404, "not_found")
            if method == "POST":
                await visit.read_form()
                _check_form(visit)
            return await page(visit)

        self.routes.append(Route(path, endpoint, methods=[method]))


def _log_in_first(request: Request) -> Response:
    if "hx-request" in request.headers:  # a part of a page whose session has ended
        return Response(status_code=401, headers={"hx-refresh": "true"})
    target = request.url.path + ("?" + request.url.query if request.url.query else "")
    where = f"?next={quote(target, safe='/')}" if request.method == "GET" else ""
    return RedirectResponse("/login" + where, 303)


def _check_form(visit: Visit) -> None:
    """Raises PageError: the form of somebody who is logged in lacks their token."""
    if visit.logged_in is None:
        return
    stated = visit.form.get("csrf") or visit.request.headers.get("x-form-token", "")
    if not same(stated, visit.form_token):
        raise PageError(403, "stale_form")
