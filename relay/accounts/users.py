"""Accounts: opening, finding, moving to another plan, suspending.

Decides what a valid e-mail address is and which plans exist. Must not know passwords or SQL.
"""

import re
from typing import Final

from relay.accounts import AccountError, InvalidError
from relay.config import PlanSettings, Settings
from relay.store import users as stored
from relay.store.database import Database
from relay.store.users import User

# As a browser accepts in <input type=email> (WHATWG HTML §4.10.5.1.5), ASCII only.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
_MAX_REASON_LENGTH: Final = 200
_MAX_EMAIL_LENGTH: Final = 254  # RFC 5321 §4.5.3.1.3, less the angle brackets


def is_email(text: str) -> bool:
    """Whether `text` may be the address of an account."""
    return len(text) <= _MAX_EMAIL_LENGTH and _EMAIL.fullmatch(text) is not None


def plan_of(settings: Settings, plan_id: str) -> PlanSettings:
    """The plan with this id in relay.toml.

    Raises:
        InvalidError: there is none; the text lists the plans that exist.
    """
    for plan in settings.plan:
        if plan.id == plan_id:
            return plan
    raise InvalidError(f"no plan is named {plan_id!r}; {_describe_plans(settings)}", "plan")


def _describe_plans(settings: Settings) -> str:
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
    """Open an account. `plan` None: the first plan of relay.toml.

    Raises:
        InvalidError: no such plan, or not an e-mail address.
        AccountError: the address has an account already.
    """
    if not is_email(email):
        raise InvalidError(f"{email!r} is no e-mail address; write name@example.com", "email")
    if plan is None:
        if not settings.plan:
            raise InvalidError("relay.toml has no plan: add a [[plan]]")
        plan = settings.plan[0].id
    plan_of(settings, plan)
    user = await stored.create_user(database, email=email, plan=plan, is_admin=is_admin, now=now)
    if user is None:
        raise AccountError(
            f"{email} has an account already; `relay user set-plan {email} {plan}` changes its plan"
        )
    return user


async def find(database: Database, email: str) -> User:
    """The account with this e-mail address.

    Raises:
        AccountError: there is none.
    """
    return _existing(await stored.find_user(database, email), email)


async def set_plan(database: Database, settings: Settings, email: str, plan: str) -> User:
    """Move an account to another plan of relay.toml.

    Raises:
        AccountError: no such plan, or no such account.
    """
    plan_of(settings, plan)
    return _existing(await stored.set_plan(database, email, plan), email)


async def suspend(database: Database, email: str, now: float, reason: str = "") -> User:
    """Refuse all requests with the account's keys, until it is resumed. Its person reads `reason`.

    Raises:
        InvalidError: a reason that is not allowed.
        AccountError: no such account.
    """
    if len(reason) > _MAX_REASON_LENGTH or not reason.isprintable():
        raise InvalidError(f"a reason has up to {_MAX_REASON_LENGTH} printable characters")
    return _existing(await stored.suspend(database, email, now, reason), email)


async def resume(database: Database, email: str) -> User:
    """Open a suspended account again; its keys work as before.

    Raises:
        AccountError: no such account.
    """
    return _existing(await stored.resume(database, email), email)


def _existing(user: User | None, email: str) -> User:
    if user is None:
        raise AccountError(
            f"no user has the address {email!r}; `relay user list` shows who there is, "
            "`relay user create EMAIL` adds one"
        )
    return user
