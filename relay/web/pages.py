"""The pages of the site, each with who may see it.

Decides what is checked before a page's function runs: who is logged in, and that a form comes from
this site. Every route is made here, so no page can forget it. Must not know topics.
"""

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from relay.secret import same

if TYPE_CHECKING:
    from relay.web.site import Site
from relay.web.sent_forms import digest
from relay.web.visit import PageError, Visit

PageFunction = Callable[[Visit], Awaitable[Response]]

# All that an administrator may change while logged in as somebody else. Nothing that spends money,
# shows a key or concerns a log-in: whatever is not here is refused.
_AS_SOMEBODY: Final = frozenset(
    {
        "/admin/as/end",
        "/dashboard/keys/{id}/name",
        "/dashboard/keys/{id}/revoke",
        "/logout",
        "/preferences",
    }
)


class Access(Enum):
    """The people who may see a page."""

    ANYBODY = 0
    PERSON = 1  # who is logged in
    ADMIN = 2


class Pages:
    """Collects routes: `pages.get("/login", show, Access.ANYBODY)`."""

    def __init__(self, site: "Site") -> None:
        self.routes: list[Route] = []
        self._site = site

    def get(self, path: str, page: PageFunction, access: Access = Access.PERSON) -> None:
        """Serve GET and HEAD of `path`. The page must change nothing."""
        self._add(path, page, access, "GET")

    def post(self, path: str, page: PageFunction, access: Access = Access.PERSON) -> None:
        """Serve POST of `path`; its form comes from this site."""
        self._add(path, page, access, "POST")

    def receive(self, path: str, page: PageFunction) -> None:
        """Serve POST of `path` to another server, which has no session. `page` decides by itself
        whom it believes; the body is as it came."""

        async def endpoint(request: Request) -> Response:
            return await page(self._site.stranger(request))

        self.routes.append(Route(path, endpoint, methods=["POST"]))

    def _add(self, path: str, page: PageFunction, access: Access, method: str) -> None:
        async def endpoint(request: Request) -> Response:
            visit = await self._site.visit(request)
            if access is not Access.ANYBODY:
                if visit.logged_in is None:
                    return _log_in_first(request)
                if access is Access.ADMIN and not visit.user.is_admin:
                    raise PageError(404, "not_found")
            if visit.administrator is not None and not may_as_somebody(method, path):
                raise PageError(403, "as_somebody")
            if method == "POST":
                await visit.read_form()
                _check_form(visit)
                return await self._once(visit, page)
            return await page(visit)

        self.routes.append(Route(path, endpoint, methods=[method]))

    async def _once(self, visit: Visit, page: PageFunction) -> Response:
        """The answer to a form. It is carried out once; one that is refused may be sent again."""
        if visit.logged_in is None or "once" not in visit.form:
            return await page(visit)
        sent, person = self._site.sent_forms, visit.user.id
        form = digest(visit.request.url.path, visit.form)
        if not sent.claim(person, form):
            target = _page_of_form(visit.request) or "/dashboard"
            return visit.redirect(target.partition("?")[0], done="sent_before")
        try:
            answer = await page(visit)
        except BaseException:
            sent.release(person, form)
            raise
        if answer.status_code >= 400:
            sent.release(person, form)
        return answer


def may_as_somebody(method: str, path: str) -> bool:
    """Whether an administrator may use a page while logged in as somebody else."""
    return method == "GET" or path in _AS_SOMEBODY


def _log_in_first(request: Request) -> Response:
    if "hx-request" in request.headers:  # a part of a page whose session has ended
        return Response(status_code=401, headers={"hx-refresh": "true"})
    target = request.url.path + ("?" + request.url.query if request.url.query else "")
    if request.method == "GET":
        return RedirectResponse(f"/login?next={quote(target, safe='/')}", 303)
    if request.url.path == "/logout":
        return RedirectResponse("/login", 303)

    target = _page_of_form(request)
    fields = {"next": target} if target else {}
    return RedirectResponse("/login?" + urlencode(dict(fields, done="log_in_again")), 303)


def _page_of_form(request: Request) -> str:
    """The path and query of a form's page, which can be opened again; that of the form cannot.

    Empty if the browser does not say it, or if it could be read as another host's.
    """
    page = urlsplit(request.headers.get("referer", ""))
    if not page.path.startswith("/") or page.path.startswith("//"):
        return ""
    return page.path + ("?" + page.query if page.query else "")


def _check_form(visit: Visit) -> None:
    """Raises PageError: the form of somebody who is logged in lacks their token."""
    if visit.logged_in is None:
        return
    stated = visit.form.get("csrf") or visit.request.headers.get("x-form-token", "")
    if not same(stated, visit.form_token):
        raise PageError(403, "stale_form")
