"""Leads page requests to the site, which is loaded by the first of them.

A relay that serves no pages does not import their libraries (20 MiB). Loading takes a quarter of a
second, on a thread beside the loop. Must not know pages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from relay.errors import RelayError
from relay.gateway.context import Outcome, RequestContext
from relay.net import asgi
from relay.net.off_loop import Once
from relay.web.parts import Parts

if TYPE_CHECKING:
    from relay.web.site import Site

MAX_BODY_OCTETS: Final = 64 * 1024  # forms are short
_MAX_EVENT_OCTETS: Final = 128 * 1024  # of Stripe: some kilobytes, as a rule
_EVENTS: Final = b"/payments/stripe"
_PREFIXES: Final = tuple(
    b"/" + name
    for name in (
        b"account", b"admin", b"confirm", b"dashboard", b"docs", b"forgot", b"llms.txt", b"login",
        b"logout", b"preferences", b"reset", b"setup", b"setup.ps1", b"setup.sh", b"signup",
        b"static", b"status", b"status.json",
    )
)  # fmt: skip


class WebMount:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.site: Site | None = None  # until the first page request
        self._loaded = Once("site", self._load)
        self._closing = False

    def serves(self, path: bytes, accept: bytes) -> bool:
        """Whether a request is for a page: by its path, or because a browser asks for HTML."""
        settings = self._parts.settings()
        if not settings.web.enabled:
            return False
        if path == _EVENTS:
            return settings.payments.enabled
        if path.startswith(_PREFIXES):
            rest = path[1:].partition(b"/")[0]
            return b"/" + rest in _PREFIXES
        return b"text/html" in accept

    async def serve(self, ctx: RequestContext) -> None:
        """Answer a request for a page.

        Raises:
            Exception: the site failed; if it could, it has answered.
        """
        site = self.site or await self._open()
        exchange = ctx.exchange
        limit = _MAX_EVENT_OCTETS if exchange.request.path == _EVENTS else MAX_BODY_OCTETS
        secure = self._parts.settings().server.public_url.startswith("https:")
        try:
            await asgi.serve(exchange, site, body_limit=limit, secure=secure)
        except RelayError as error:  # of the body
            if exchange.started:
                raise
            headers, body = site.refusal(exchange.request.headers, error)
            headers.append((b"request-id", exchange.id))
            exchange.respond(error.kind.status, headers, body)
        ctx.end(Outcome.COMPLETE)

    def close(self) -> None:
        """End the streams of open pages: the relay stops, or leaves its place to another."""
        self._closing = True
        if self.site is not None:
            self.site.close()

    async def _open(self) -> "Site":
        site = await self._loaded.get()
        if self.site is None:
            self.site = site
            if self._closing:
                site.close()
            else:
                site.live.index()
        return site

    def _load(self) -> "Site":
        site: Site = import_module("relay.web.site").Site(self._parts)
        return site
