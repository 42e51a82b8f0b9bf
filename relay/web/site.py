"""The site: its pages, the guard in front of them, and the pages of errors.

Imported by the first page request (`relay.web.mount`). Decides what every answer carries. Must not
know the topics of pages.
"""

import asyncio
import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from relay.accounts.log_in import LogIn
from relay.accounts.passwords import HashingBusyError, Passwords
from relay.accounts.proof_of_work import ProofOfWork
from relay.accounts.sessions import recognise
from relay.accounts.sign_up import SignUp
from relay.accounts.throttle import Throttle
from relay.errors import RelayError
from relay.net.asgi import Message, Receive, Send
from relay.payments.desk import Desk
from relay.web import (
    account_pages,
    balance_pages,
    chat_pages,
    docs_pages,
    exports,
    front_pages,
    key_pages,
    key_rule_pages,
    log_in_pages,
    overview_pages,
    passkey_pages,
    payment_pages,
    provider_pages,
    request_pages,
    second_step_pages,
    set_up_pages,
    sign_up_pages,
    status_pages,
    threshold_pages,
    usage_pages,
    way_pages,
)
from relay.web.admin import TOPICS as ADMIN_TOPICS
from relay.web.admin.log_in_as import LogInAs
from relay.web.admin.overview import ReadStates
from relay.web.admin.pulse import Pulse
from relay.web.languages import choose
from relay.web.live import Live
from relay.web.mailing import Mailing
from relay.web.manual.library import Library
from relay.web.notices import Notices
from relay.web.pages import Pages
from relay.web.parts import Parts
from relay.web.presentation import presentation
from relay.web.security import (
    HEADERS,
    LANGUAGE_COOKIE,
    STRICT_TRANSPORT,
    THEME_COOKIE,
    is_cross_site,
    session_cookie_name,
)
from relay.web.sent_forms import SentForms
from relay.web.set_up.scripts import Scripts
from relay.web.status.board import Board
from relay.web.visit import THEMES, PageError, Visit
from relay.web.ways import Ways

_TOPICS: Final = (
    front_pages, status_pages, docs_pages, set_up_pages, log_in_pages, sign_up_pages,
    overview_pages, chat_pages, key_pages, key_rule_pages, usage_pages, request_pages,
    balance_pages, exports, account_pages, threshold_pages, way_pages, second_step_pages,
    passkey_pages, provider_pages, payment_pages, *ADMIN_TOPICS,
)  # fmt: skip
_MAILS_A_MINUTE: Final = 6  # to one address, and from one address
_PURCHASES_A_MINUTE: Final = 10  # of one account
_ERROR_KEYS: Final = {404: "not_found", 405: "wrong_method", 408: "too_slow", 413: "too_large"}


class Site:
    """An ASGI application, and what its pages share."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.passwords = Passwords()
        self.log_in = LogIn(parts.database, self.passwords)
        self.sign_up = SignUp(self.passwords)
        self.proof_of_work = ProofOfWork()
        self.code_tries = balance_pages.CodeTries()
        self.ways = Ways(parts.database)
        self.mails = Throttle(_MAILS_A_MINUTE)
        self.mailing = Mailing()
        self.desk = Desk()
        self.refused_events = payment_pages.RefusedEvents()
        self.purchases = Throttle(_PURCHASES_A_MINUTE)
        self.sent_forms = SentForms()
        self.live = Live(parts.database)
        self.log_in_as = LogInAs()
        self.notices = Notices(parts.database)
        self.board = Board(parts)
        self.kept_status = status_pages.Kept()
        self.pulse = Pulse(parts.operations)
        self.read_states: ReadStates | None = None
        self.is_backing_up = False
        self.purging: asyncio.Task[None] | None = None
        self.clock = time.time
        self._presentation = presentation()
        self.library = Library(self._presentation.texts)
        self.scripts = Scripts()
        self.assets = self._presentation.assets
        pages = Pages(self)
        for topic in _TOPICS:
            topic.add(pages)
        self.routes = pages.routes
        self._application = Starlette(
            routes=pages.routes,
            exception_handlers={
                PageError: self._on_error,
                HTTPException: self._on_error,
                HashingBusyError: self._on_error,
                Exception: self._on_failure,
            },
        )

        # It would redirect to whatever the Host field names.
        self._application.router.redirect_slashes = False

    def close(self) -> None:
        """End the streams of open pages."""
        self.live.close()
        self.pulse.close()
        if self.purging is not None:
            self.purging.cancel()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request: ASGI's interface."""
        is_secure = scope["scheme"] == "https"
        path = scope["path"]

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = list(message.get("headers", ()))
                own = {name for name, _ in fields}
                fields += [one for one in HEADERS if one[0] not in own]
                if is_secure:
                    fields.append(STRICT_TRANSPORT)
                if not any(name == b"cache-control" for name, _ in fields):
                    fields.append((b"cache-control", b"no-store"))
                fields.append((b"request-id", scope["state"]["request_id"].encode()))
                message = {**message, "headers": fields}
            await send(message)

        headers = Headers(scope=scope)
        if is_cross_site(scope["method"], headers):
            request = Request(scope)
            answer = self._error_page(request, PageError(403, "cross_site"))
            await answer(scope, receive, send_guarded)
            return
        if len(path) > 1 and path.endswith("/") and not path.startswith("//"):
            scope = {**scope, "path": path.rstrip("/")}
        await self._application(scope, receive, send_guarded)

    # --- visits ---

    async def visit(self, request: Request) -> Visit:
        """A request with all that its page knows."""
        visit = self.stranger(request)
        await self.notices.refresh(visit.now)
        token = request.cookies.get(session_cookie_name(secure=visit.is_secure), "")
        if token:
            visit.logged_in = await recognise(
                self.parts.database, self.parts.settings().web, token, visit.now
            )
            await self.log_in_as.apply(visit)
        return visit

    def stranger(self, request: Request) -> Visit:
        """A request whose session, if it has one, does not matter."""
        cookies = request.cookies
        language = choose(
            cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
        )
        theme = cookies.get(THEME_COOKIE, "")
        theme = theme if theme in THEMES else "auto"
        return Visit(
            self, request, language, theme, self._presentation.texts[language], now=time.time()
        )

    def render(self, template: str, **values: object) -> str:
        """The text of a page."""
        return self._presentation.render(template, **values)

    # --- errors ---

    async def _on_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            key = _ERROR_KEYS.get(error.status_code, "bad_request")
            error = PageError(error.status_code, key)
        if isinstance(error, HashingBusyError):
            error = PageError(503, "busy", retry_after=2)
        assert isinstance(error, PageError)
        return self._error_page(request, error)

    async def _on_failure(self, request: Request, _: Exception) -> Response:
        return self._error_page(request, PageError(500, "failed"))

    def _error_page(self, request: Request, error: PageError) -> Response:
        visit = self.stranger(request)
        text = visit.t(f"error.{error.key}", **error.values)
        html = self.render("error.html", visit=visit, t=visit.t, error=error, text=text)
        answer = HTMLResponse(html, error.status)
        if error.retry_after:
            answer.headers["retry-after"] = str(error.retry_after)
        return answer

    def refusal(
        self, headers: dict[bytes, bytes], error: RelayError
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Fields and body of the answer to a request whose body was refused."""
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "headers": list(headers.items()),
        }
        key = _ERROR_KEYS.get(error.kind.status, "busy")
        answer = self._error_page(Request(scope), PageError(error.kind.status, key))
        fields = [*answer.raw_headers, *HEADERS, *error.headers, (b"cache-control", b"no-store")]
        return [one for one in fields if one[0] != b"content-length"], bytes(answer.body)
