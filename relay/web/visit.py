"""One request of a browser, as a page sees it: who asks, in which language, with which form.

Decides what every page knows and how it answers. Must not know the topics of pages.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from relay.accounts.sessions import LoggedIn
from relay.accounts.tokens import form_token
from relay.config import Settings
from relay.store.audit import Actor
from relay.store.database import Database
from relay.store.users import User
from relay.web import columns
from relay.web.languages import Translate
from relay.web.notices import Notice
from relay.web.parts import Parts
from relay.web.reasons import in_language
from relay.web.security import COLUMNS_COOKIE, set_session

if TYPE_CHECKING:
    from relay.web.site import Site

_MAX_FIELDS: Final = 100
_MAX_TARGET: Final = 500
THEMES: Final = ("auto", "light", "dark")


class PageError(Exception):
    """The request cannot be served; `key` finds the text for its page in `error.*`."""

    def __init__(self, status: int, key: str, *, retry_after: int = 0, **values: object) -> None:
        super().__init__(key)
        self.status = status
        self.key = key
        self.retry_after = retry_after
        self.values = values


@dataclass
class Visit:
    """See the module. `t` finds a text; `form` is empty but for POST."""

    site: "Site"
    request: Request
    language: str
    theme: str
    t: Translate
    logged_in: LoggedIn | None = None
    administrator: User | None = None  # who is logged in as somebody else
    form: dict[str, str] = field(default_factory=dict)
    now: float = field(default_factory=time.time)

    @property
    def parts(self) -> Parts:
        return self.site.parts

    @property
    def database(self) -> Database:
        return self.site.parts.database

    @property
    def actor(self) -> Actor:
        """The author of changes: the person who is logged in, also as somebody else."""
        return Actor((self.administrator or self.user).id, self.address)

    @property
    def acting(self) -> Database:
        """The database, for changes by who asks: the audit log names them."""
        return self.database.by(self.actor)

    def acting_as(self, user_id: str) -> Database:
        """The database, for changes by somebody who is not logged in. "": a new account's."""
        return self.database.by(Actor(user_id, self.address))

    @property
    def settings(self) -> Settings:
        return self.site.parts.settings()

    @property
    def user(self) -> User:
        """The account that is logged in, on pages that need one."""
        assert self.logged_in is not None
        return self.logged_in.user

    @property
    def notices(self) -> list[Notice]:
        """The announcements above this page."""
        return self.site.notices.shown(self.now, self.language)

    @property
    def address(self) -> str:
        """Where the request comes from."""
        client = self.request.client
        return client.host if client else ""

    @property
    def is_secure(self) -> bool:
        """Whether people reach this site by https."""
        return self.request.url.scheme == "https"

    def words(self, text: str) -> str:
        """A sentence of the relay's own, such as a reason, in the language of the page."""
        return in_language(text, self.language)

    @property
    def is_part(self) -> bool:
        """Whether a script asks for a part of a page."""
        return "hx-request" in self.request.headers

    @property
    def back(self) -> str:
        """This page, to come back to after a choice of language or look."""
        url = self.request.url
        if self.request.method != "GET":
            return "/"
        return url.path + ("?" + url.query if url.query else "")

    def hidden_columns(self, table: str) -> tuple[int, ...]:
        """The numbers of a table's columns that this browser hides."""
        return columns.read(self.request.cookies.get(COLUMNS_COOKIE, "")).get(table, ())

    def table_class(self, table: str) -> str:
        """The classes that hide them."""
        return " ".join(f"hide-{number}" for number in self.hidden_columns(table))

    @property
    def form_token(self) -> str:
        """The token in forms; empty for somebody who is not logged in."""
        if self.logged_in is None:
            return ""
        # As somebody else, forms that were opened before do not count.
        shown = "" if self.administrator is None else self.logged_in.user.id
        return form_token(self.logged_in.token + shown)

    @cached_property
    def once(self) -> str:
        """The token by which the forms of this page differ from those of any other."""
        return secrets.token_urlsafe(9)

    async def read_form(self) -> None:
        """Read the form of a POST."""
        body = (await self.request.body()).decode("utf-8", "replace")
        try:
            fields = parse_qsl(body, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise PageError(400, "bad_form") from None
        self.form = {name: value.replace("\0", "") for name, value in fields}

    def choice(self, name: str, offered: Sequence[str], default: str = "") -> str:
        """The value of a list in the form. Raises PageError: the list does not offer it."""
        value = self.form.get(name, default)
        if value not in offered:
            self.refuse(422, "bad_choice")
        return value

    def render(self, template: str, status: int = 200, **values: object) -> Response:
        """A page, or a part of one."""
        html = self.site.render(template, visit=self, t=self.t, **values)
        return HTMLResponse(html, status)

    def redirect(self, path: str, done: str = "", **query: object) -> Response:
        """Another page; `done` finds the text in `done.*` that says what has happened."""
        fields = {**({"done": done} if done else {}), **query}
        return RedirectResponse(path + ("?" + urlencode(fields) if fields else ""), 303)

    def refuse(self, status: int, key: str, *, retry_after: int = 0, **values: object) -> NoReturn:
        """Raise the page of an error."""
        raise PageError(status, key, retry_after=retry_after, **values)

    def start_session(self, response: Response, opened: LoggedIn) -> None:
        """Give the browser its session."""
        seconds = self.settings.web.session_limit.seconds
        set_session(response, opened.token, seconds, secure=self.is_secure)

    def end_session(self, response: Response) -> None:
        """Take the browser's session away."""
        set_session(response, "", 0, secure=self.is_secure)

    def next_path(self, path: str) -> str:
        """A path to go on to, if it is one of this site, which no `//host` is."""
        is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
        return path if is_local and len(path) <= _MAX_TARGET and path.isprintable() else ""
