"""Opening accounts by people themselves, and their one-time links.

Decides who may sign up, on which plan, and how long a link lasts. Must not know pages, mail or SQL.
"""

from dataclasses import dataclass
from typing import Final, Literal

from relay.accounts import AccountError, InvalidError, codes, users
from relay.accounts.passwords import Passwords, check_strength
from relay.accounts.tokens import new_token, token_digest
from relay.config import Settings
from relay.store import sessions as stored
from relay.store.codes import Code
from relay.store.database import Database
from relay.store.sessions import Link
from relay.store.users import User, find_user

Purpose = Literal["admin", "confirm", "reset"]

_DAY: Final = 86_400.0
_LIFETIMES: Final[dict[Purpose, float]] = {
    "admin": 7 * _DAY,
    "confirm": _DAY,
    "reset": _DAY,
}
MAILED_RESET_SECONDS: Final = 3600.0  # one that comes by mail is used at once


class AddressTakenError(AccountError):
    """The e-mail address has an account, or the link was used meanwhile."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An account that somebody wants."""

    email: str
    password: str


def link_url(settings: Settings, purpose: Purpose, token: str) -> str:
    """Where a link leads. The token is in the query, which no log of the relay has."""
    path = {"admin": "setup", "confirm": "confirm", "reset": "reset"}[purpose]
    return f"{settings.server.public_url.rstrip('/')}/{path}?t={token}"


async def new_link(
    database: Database,
    purpose: Purpose,
    now: float,
    *,
    user: User | None = None,
    seconds: float | None = None,
) -> str:
    """The token of a new one-time link."""
    token = new_token()
    expires_at = now + (seconds or _LIFETIMES[purpose])
    user_id = None if user is None else user.id
    link = Link(token_digest(token), purpose, expires_at, user_id=user_id)
    await stored.add_link(database, link)
    return token


async def first_account_url(database: Database, settings: Settings, now: float) -> str:
    """A link that opens the first account, an administrator's; empty if there is an account."""
    if await stored.has_users(database):
        return ""
    return link_url(settings, "admin", await new_link(database, "admin", now))


async def find_link(database: Database, token: str, purpose: Purpose, now: float) -> Link | None:
    """The link of a token; None if it was used, has expired, or never was one."""
    digest = token_digest(token)
    return await stored.find_link(database, digest, purpose, now) if digest else None


async def find_invitation(database: Database, code: str, now: float) -> Code | None:
    """An invitation that can be used, by its code as its owner writes it."""
    try:
        return await codes.check_invitation(database, code, now)
    except AccountError:
        return None


def plan_of_new(settings: Settings, invitation: Code | None = None) -> str:
    """The plan of a new account.

    Raises:
        AccountError: relay.toml has none.
    """
    wanted = (invitation and invitation.plan) or settings.web.sign_up_plan
    if wanted and any(plan.id == wanted for plan in settings.plan):
        return wanted
    if not settings.plan:
        raise AccountError("relay.toml has no plan: add a [[plan]]")
    return settings.plan[0].id


def check_wanted(wanted: Wanted) -> None:
    """Refuse what can be no account.

    Raises:
        InvalidError: no e-mail address, or a weak password.
    """
    if not users.is_email(wanted.email) or "." not in wanted.email.rpartition("@")[2]:
        raise InvalidError(f"{wanted.email!r} is no e-mail address; write name@example.com")
    check_strength(wanted.password, wanted.email)


class SignUp:
    """Opens accounts. `database` is for changes by who asks, whom the audit log names."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def open(
        self,
        database: Database,
        settings: Settings,
        wanted: Wanted,
        used: Link | Code | None,
        now: float,
    ) -> User:
        """Open an account now. `link`: an invitation, or the first administrator's, which is used
        up.

        Raises:
            InvalidError: no e-mail address, or a weak password.
            AddressTakenError: the address has an account, or the link is used up.
            HashingBusyError: too many others log in at once.
        """
        check_wanted(wanted)
        password_hash = await self._passwords.hash(wanted.password)
        is_admin = isinstance(used, Link) and used.purpose == "admin"
        plan = plan_of_new(settings, used if isinstance(used, Code) else None)
        user = User("", wanted.email, plan, is_admin, None, now)
        opened = await stored.sign_up(database, user, password_hash, used, first=is_admin)
        if opened is None:
            raise AddressTakenError("the address has an account, or the link is used up")
        return opened

    async def prepare(self, database: Database, wanted: Wanted, now: float) -> str | None:
        """Keep a wanted account until a mail confirms its address: the token for that mail; None
        if the address has an account.

        Raises:
            InvalidError: no e-mail address, or a weak password.
            HashingBusyError: too many others log in at once.
        """
        check_wanted(wanted)
        password_hash = await self._passwords.hash(wanted.password)
        if await find_user(database, wanted.email) is not None:
            return None
        token = new_token()
        await stored.add_link(
            database,
            Link(
                token_digest(token),
                "confirm",
                now + _LIFETIMES["confirm"],
                email=wanted.email,
                password_hash=password_hash,
            ),
        )
        return token

    async def confirm(self, database: Database, settings: Settings, link: Link, now: float) -> User:
        """Open the account of a confirmed address.

        Raises:
            AddressTakenError: it was opened meanwhile.
        """
        assert link.email is not None
        assert link.password_hash is not None
        user = User("", link.email, plan_of_new(settings), False, None, now)
        opened = await stored.sign_up(database, user, link.password_hash, link)
        if opened is None:
            raise AddressTakenError("the address has an account, or the link is used up")
        return opened

    async def change_password(
        self, database: Database, user: User, password: str, now: float
    ) -> None:
        """Give an account another password; all its sessions end.

        Raises:
            WeakPasswordError: it cannot be taken.
            HashingBusyError: too many others log in at once.
        """
        check_strength(password, user.email)
        await stored.set_password(database, user.id, await self._passwords.hash(password), now)
