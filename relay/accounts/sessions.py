"""Log-ins of browsers: opened, recognised, and ended by age.

Decides how long a session lasts, unused and in all. Must not know cookies or SQL.
"""

from dataclasses import dataclass
from typing import Final

from relay.accounts.tokens import new_token, token_digest
from relay.config import WebSettings
from relay.store import sessions as stored
from relay.store.database import Database
from relay.store.sessions import Session
from relay.store.users import User

_SEEN_STEP_SECONDS: Final = 60.0  # a write for each page would be one too many
_MAX_SESSIONS: Final = 50  # of an account
_MAX_AGENT_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A session in use. Nothing else has its token."""

    token: str
    session: Session
    user: User


async def open_session(
    database: Database, user: User, address: str, agent: str, now: float
) -> LoggedIn:
    """Log a browser in, under a token that nobody had before."""
    token = new_token()
    agent = agent[:_MAX_AGENT_CHARACTERS]
    session = Session(token_digest(token), user.id, now, now, address, agent)
    await stored.add_session(database, session, _MAX_SESSIONS)
    return LoggedIn(token, session, user)


async def recognise(
    database: Database, settings: WebSettings, token: str, now: float
) -> LoggedIn | None:
    """The session of a token; None if there is none, or it has ended."""
    digest = token_digest(token)
    found = await stored.find_session(database, digest) if digest else None
    if found is None:
        return None
    session, user = found
    idle, limit = settings.session_idle.seconds, settings.session_limit.seconds
    if now - session.seen_at > idle + _SEEN_STEP_SECONDS or now - session.created_at > limit:
        return None
    if now - session.seen_at > _SEEN_STEP_SECONDS:
        await stored.see_session(database, digest, now)
    return LoggedIn(token, session, user)


async def list_sessions(
    database: Database, settings: WebSettings, user: User, now: float
) -> list[Session]:
    """The sessions of an account that have not ended, the latest first."""
    oldest = now - settings.session_limit.seconds
    found = await stored.list_sessions(database, user.id, now - settings.session_idle.seconds)
    return [session for session in found if session.created_at > oldest]


async def prune_sessions(database: Database, settings: WebSettings, now: float) -> None:
    """Delete sessions that have ended by age, and links that have expired."""
    idle = now - settings.session_idle.seconds - _SEEN_STEP_SECONDS
    await stored.prune_sessions(database, idle, now - settings.session_limit.seconds, now)
