"""Resets and bonuses of an account's windows.

Decides which limits of a plan may be reset or enlarged, and how one is named. Must not know how the
running server applies them.
"""

from typing import Final

from relay import clock, config
from relay.accounts import InvalidError, users
from relay.config import PlanSettings, Settings
from relay.quota.plans import Limit, compile_plan
from relay.store.adjustments import Adjustment, adjust
from relay.store.database import Database
from relay.store.users import User

_MAX_WINDOWS: Final = 1_000
_MAX_AMOUNT: Final = 10**12


async def reset_window(
    database: Database, settings: Settings, email: str, window: str, now: float
) -> tuple[User, Limit]:
    """Make one limit of an account full again; its window ends when it would have.

    `window` is a period such as `5h`, or `tokens/1d` for a limit on tokens.

    Raises:
        AccountError: no such account, or its plan has no such limit.
    """
    user = await users.find(database, email)
    limit = _limit(settings, user, window, now)
    await adjust(database, Adjustment(user.id, "reset", limit.kind, limit.per), now)
    return user, limit


async def give_bonus(
    database: Database,
    settings: Settings,
    email: str,
    *,
    bonus: tuple[str, int, int],
    now: float,
) -> tuple[User, Limit]:
    """Let the next windows of a limit be larger, the present one first. `bonus`: the window (see
    `reset_window`), the amount, and the number of windows; 0 ends an earlier bonus, which another
    one replaces.

    Raises:
        AccountError: no such account, its plan has no such window, or a number is out of range.
    """
    window, amount, windows = bonus
    if not 0 < amount <= _MAX_AMOUNT:
        raise InvalidError(f"a bonus is a number from 1 to {_MAX_AMOUNT:,}", "amount")
    if not 0 <= windows <= _MAX_WINDOWS:
        raise InvalidError(f"a bonus is for up to {_MAX_WINDOWS:,} windows (0 ends one)", "windows")
    user = await users.find(database, email)
    limit = _limit(settings, user, window, now)
    if limit.refill != "window":
        raise InvalidError(
            f"the limit of {limit.name} refills all the time and has no windows; a bonus is for a "
            "limit with windows",
            "smooth",
        )
    new = Adjustment(user.id, "bonus", limit.kind, limit.per, amount, windows)
    await adjust(database, new, now)
    return user, limit


def limits_of(plan: PlanSettings) -> tuple[Limit, ...]:
    """The limits of a plan. Raises InvalidError: the plan contradicts itself."""
    try:
        return compile_plan(plan).limits
    except config.ConfigError as error:
        raise InvalidError(str(error)) from None


def _limit(settings: Settings, user: User, window: str, now: float) -> Limit:
    kind, _, period = window.rpartition("/")
    try:
        per = clock.seconds(period)
    except ValueError as error:
        raise InvalidError(str(error)) from None
    limits = limits_of(users.plan_of(settings, user.plan_at(now)))
    for limit in limits:
        if (limit.kind, limit.per) == (kind or "requests", per):
            return limit
    there = ", ".join(limit.name for limit in limits) or "no limit"
    raise InvalidError(
        f"plan {user.plan_at(now)!r} has no limit of {kind or 'requests'} per {period}; it has "
        f"{there}",
        "window",
    )
