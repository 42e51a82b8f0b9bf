"""Plans for a time: beginning one, extending it, and what follows.

Decides when a period may be extended and which plan follows it. Must not know SQL.
"""

from typing import Final

from relay import clock
from relay.accounts import AccountError, InvalidError, users
from relay.config import Settings
from relay.store import periods as stored
from relay.store.database import Database
from relay.store.periods import NewPeriod
from relay.store.users import User

_MAX_SECONDS: Final = 3_660 * 86_400


async def start(
    database: Database, settings: Settings, email: str, new: NewPeriod, now: float
) -> User:
    """Begin a period now. A present one ends, and so do all windows.

    Raises:
        AccountError: no such account or plan, or a length out of range.
    """
    check(settings, new)
    user = await users.find(database, email)
    return await stored.start_now(database, user, new, now)


async def extend(
    database: Database, settings: Settings, email: str, seconds: int, now: float
) -> User:
    """Let the present period end later; windows go on.

    Raises:
        AccountError: no such account, no period runs, or a length out of range.
    """
    _check_length(seconds)
    user = await users.find(database, email)
    extended = await stored.extend_present(database, user.email, seconds, now)
    if extended is None:
        raise AccountError(
            f"{user.email} has no period that could be extended; start one: "
            f"`relay user start-plan {user.email} PLAN 30d`",
            "none",
        )
    return extended


def check(settings: Settings, new: NewPeriod) -> None:
    """Raises InvalidError: a plan that is not there, or a length out of range."""
    users.plan_of(settings, new.plan)
    users.plan_of(settings, new.plan_then)
    _check_length(new.seconds)


def _check_length(seconds: int) -> None:
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidError("the length of a period: more than nothing, up to 3660d", "length")


def seconds_of(length: str) -> int:
    """The length of a period. Raises InvalidError: it is no duration."""
    try:
        return clock.seconds(length)
    except ValueError as error:
        raise InvalidError(f"the length of a period: {error}") from None


def default_then(settings: Settings) -> str:
    """The plan that follows a period if none is stated: the first of relay.toml.

    Raises:
        InvalidError: it has none.
    """
    if not settings.plan:
        raise InvalidError("relay.toml has no plan: add a [[plan]]")
    return settings.plan[0].id
