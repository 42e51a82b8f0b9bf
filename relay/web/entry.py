"""The last steps into an account: the second one where it is asked, then a session.

Everything that lets somebody in by one proof ends in `proceed`. Must not know which proof it was.
"""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from relay.accounts.ceremonies import LIFETIME_SECONDS
from relay.accounts.sessions import open_session
from relay.store import sessions as stored
from relay.store.identities import Identity, link_identity
from relay.store.users import User
from relay.web.security import set_step, step_cookie_name
from relay.web.visit import Visit

STEP: Final = "login-step"


@dataclass(slots=True)
class PendingLogIn:
    """A log-in whose first step is done."""

    user_id: str
    target: str
    done: str
    identity: Identity | None = None  # to be linked once all steps are done
    tries: int = 0


async def proceed(
    visit: Visit, user: User, target: str, done: str = "", identity: Identity | None = None
) -> Response:
    """Go on to a page: at once, or after the second step of the log-in."""
    ways = visit.site.ways
    pending = PendingLogIn(user.id, target, done, identity)
    if not await ways.second_step.is_asked(user.id):
        return await finish(visit, user, pending)
    token = ways.pending.start(user.id, pending, visit.now)
    answer = visit.redirect("/login/code")
    bind(visit, answer, STEP, token)
    return answer


async def finish(visit: Visit, user: User, pending: PendingLogIn) -> Response:
    """Let somebody in who has done all steps."""
    if pending.identity is not None:
        await link_identity(visit.acting_as(user.id), pending.identity)
    answer = await enter(visit, user, pending.target, pending.done)
    bind(visit, answer, STEP, "")
    return answer


async def enter(visit: Visit, user: User, target: str, done: str = "") -> Response:
    """Go on to a page with a new session; an earlier one of this browser ends."""
    if visit.logged_in is not None:
        session = visit.logged_in.session
        await stored.end_session(visit.database, session.user_id, session.id)
    agent = visit.request.headers.get("user-agent", "")
    opened = await open_session(visit.database, user, visit.address, agent, visit.now)
    answer = visit.redirect(target, done)
    visit.start_session(answer, opened)
    return answer


def bind(visit: Visit, answer: Response, kind: str, token: str) -> None:
    """Bind something under way to this browser; an empty token lets it go."""
    set_step(answer, kind, token, LIFETIME_SECONDS, secure=visit.is_secure)


def bound(visit: Visit, kind: str) -> str:
    """The token of what is under way in this browser."""
    return visit.request.cookies.get(step_cookie_name(kind, secure=visit.is_secure), "")
