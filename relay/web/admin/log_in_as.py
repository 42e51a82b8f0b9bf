"""Logging in as somebody else: an administrator sees a person's pages, as the person does.

The administrator's own session stays; a second cookie names the person. It is signed with a key of
this process and bound to that session, so it ends with either, and nobody can make one. Decides
for how long. Must not know what is refused meanwhile (`relay.web.pages`).
"""

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from relay.accounts.sessions import LoggedIn
from relay.secret import same
from relay.store.users import user_by_id
from relay.web.security import set_private

if TYPE_CHECKING:
    from relay.web.visit import Visit

_SECONDS: Final = 3600
_COOKIE: Final = "relay-as"


class LogInAs:
    """See the module."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def start(self, visit: "Visit", response: Response, user_id: str) -> None:
        """Let the administrator of a visit be this person from the next request on."""
        assert visit.logged_in is not None
        until = str(int(visit.now) + _SECONDS)
        seal = self._seal(visit.logged_in.token, user_id, until)
        value = f"{user_id}.{until}.{seal}"
        set_private(response, _cookie(visit), value, _SECONDS, secure=visit.is_secure)

    def end(self, visit: "Visit", response: Response) -> None:
        """Be oneself again."""
        set_private(response, _cookie(visit), "", 0, secure=visit.is_secure)

    async def apply(self, visit: "Visit") -> None:
        """Make a visit of an administrator one of the person whom the cookie names."""
        found, value = visit.logged_in, visit.request.cookies.get(_cookie(visit), "")
        if found is None or not value or not found.user.is_admin:
            return
        user_id, _, rest = value.partition(".")
        until, _, seal = rest.partition(".")
        if not same(seal, self._seal(found.token, user_id, until)) or float(until) < visit.now:
            return
        user = await user_by_id(visit.database, user_id)
        if user is None or user.is_admin:
            return
        visit.administrator = found.user
        visit.logged_in = LoggedIn(found.token, found.session, user)

    def _seal(self, token: str, user_id: str, until: str) -> str:
        text = f"{token} {user_id} {until}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _cookie(visit: "Visit") -> str:
    return f"__Host-{_COOKIE}" if visit.is_secure else _COOKIE
