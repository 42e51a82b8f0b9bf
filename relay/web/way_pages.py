"""The page of all ways to log in: what is on, and what may be turned on or off."""

from dataclasses import dataclass

from starlette.responses import Response

from relay.store import factors
from relay.web.pages import Pages
from relay.web.proof import has_password
from relay.web.visit import Visit

PATH = "/account/log-in"


@dataclass(frozen=True, slots=True)
class WaysIn:
    """What an account has."""

    has_password: bool
    app_since: float | None
    recovery_codes: int


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get(PATH, show)


async def ways_in(visit: Visit) -> WaysIn:
    """What the account has."""
    user_id = visit.user.id
    totp = await factors.find_totp(visit.database, user_id)
    return WaysIn(
        await has_password(visit),
        None if totp is None else totp.confirmed_at,
        await factors.count_recovery_codes(visit.database, user_id),
    )


async def describe_ways(visit: Visit) -> dict[str, object]:
    """What the account has, for the export of its data: no secret, no digest."""
    ways = await ways_in(visit)
    return {
        "password": ways.has_password,
        "authenticator_app_since": ways.app_since,
        "recovery_codes_left": ways.recovery_codes,
    }


async def show(visit: Visit) -> Response:
    """All of it."""
    return await page(visit)


async def page(visit: Visit, status: int = 200, where: str = "", problem: str = "") -> Response:
    """The page, with what is wrong in one of its sections."""
    return visit.render(
        "ways.html", status, ways=await ways_in(visit), where=where, problem=problem
    )
