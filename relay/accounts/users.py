"""Who has an account, on which plan, and whether it is open.

Decides what an e-mail address is and which plans there are. Passwords and sign-up
by oneself are not known here.
"""

import re

from relay.accounts import AccountError, InvalidError
from relay.config import PlanSettings, Settings
from relay.store import keys
from relay.store.database import Database
from relay.store.keys import User

# What a browser takes in <input type=email> (WHATWG HTML §4.10.5.1.5), ASCII only.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
_EMAIL_LENGTH = 254  # RFC 5321 §4.5.3.1.3, less the angle brackets


def plan_of(settings: Settings, plan_id: str) -> PlanSettings:
    """The plan of that id in relay.toml.

    Raises:
        InvalidError: there is none; it names those that there are.
    """
    for plan in settings.plan:
        if plan.id == plan_id:
            return plan
    raise InvalidError(f"no plan is named {plan_id!r}; {_plans(settings)}")


def _plans(settings: Settings) -> str:
    if not settings.plan:
        return "relay.toml has none: add a [[plan]]"
    return "relay.toml has " + ", ".join(plan.id for plan in settings.plan)


async def create(
    database: Database,
    settings: Settings,
    email: str,
    *,
    plan: str | None,
    is_admin: bool,
    now: float,
) -> User:
    """Open an account, on the first plan of relay.toml when none is named.

    Raises:
        AccountError: no such plan, no e-mail address, or the address has an account.
    """
    if len(email) > _EMAIL_LENGTH or not _EMAIL.fullmatch(email):
        raise InvalidError(f"{email!r} is no e-mail address; write name@example.com")
    if plan is None:
        if not settings.plan:
            raise InvalidError("relay.toml has no plan: add a [[plan]]")
        plan = settings.plan[0].id
    plan_of(settings, plan)
    user = await keys.create_user(database, email=email, plan=plan, is_admin=is_admin, now=now)
    if user is None:
        raise AccountError(
            f"{email} has an account already; `relay user set-plan {email} {plan}` changes its plan"
        )
    return user


async def find(database: Database, email: str) -> User:
    """The account of an address.

    Raises:
        AccountError: there is none.
    """
    return _known(await keys.find_user(database, email), email)


async def set_plan(database: Database, settings: Settings, email: str, plan: str) -> User:
    """Move an account to another plan of relay.toml.

    Raises:
        AccountError: no such plan, or no such account.
    """
    plan_of(settings, plan)
    return _known(await keys.set_plan(database, email, plan), email)


async def suspend(database: Database, email: str, now: float) -> User:
    """Refuse everything that comes with the account's keys, until it is resumed.

    Raises:
        AccountError: no such account.
    """
    return _known(await keys.suspend(database, email, now), email)


async def resume(database: Database, email: str) -> User:
    """Open a suspended account again; its keys work as before.

    Raises:
        AccountError: no such account.
    """
    return _known(await keys.resume(database, email), email)


def _known(user: User | None, email: str) -> User:
    if user is None:
        raise AccountError(
            f"no user has the address {email!r}; `relay user list` shows who there is, "
            "`relay user create EMAIL` adds one"
        )
    return user
