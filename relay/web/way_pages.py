"""The page of all ways to log in: what is on, and what may be turned on or off."""

from dataclasses import dataclass

from starlette.responses import Response

from relay.accounts.passkeys import MAX_NAME, relying_party
from relay.store import factors
from relay.store.identities import Identity, list_identities
from relay.store.passkeys import Passkey, list_passkeys
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
    passkeys: list[Passkey]
    can_have_passkeys: bool  # at this address
    identities: list[Identity]

    def has_another(self, but: str) -> bool:
        """Whether somebody could still log in without one of them."""
        handles = [one.handle for one in self.passkeys] + [one.handle for one in self.identities]
        return self.has_password or any(one != but for one in handles)

    def identity_of(self, issuer: str) -> Identity | None:
        """The account at a provider that is linked."""
        return next((one for one in self.identities if one.issuer == issuer), None)


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
        await list_passkeys(visit.database, user_id),
        relying_party(visit.settings) is not None,
        await list_identities(visit.database, user_id),
    )


async def describe_ways(visit: Visit) -> dict[str, object]:
    """What the account has, for the export of its data: no secret, no digest."""
    ways = await ways_in(visit)
    return {
        "password": ways.has_password,
        "authenticator_app_since": ways.app_since,
        "recovery_codes_left": ways.recovery_codes,
        "passkeys": [
            {"name": one.name, "created_at": one.created_at, "used_at": one.used_at}
            for one in ways.passkeys
        ],
        "other_providers": [
            {
                "issuer": one.issuer,
                "subject": one.subject,
                "email": one.email,
                "linked_at": one.linked_at,
                "used_at": one.used_at,
            }
            for one in ways.identities
        ],
    }


async def show(visit: Visit) -> Response:
    """All of it."""
    return await page(visit)


async def page(visit: Visit, status: int = 200, where: str = "", problem: str = "") -> Response:
    """The page, with what is wrong in one of its sections."""
    return visit.render(
        "ways.html",
        status,
        ways=await ways_in(visit),
        where=where,
        problem=problem,
        longest_name=MAX_NAME,
    )


async def code_page(visit: Visit, user_id: str, status: int = 200, problem: str = "") -> Response:
    """The second step of a log-in: for a code, and for the account's passkeys."""
    has_passkeys = relying_party(visit.settings) is not None and bool(
        await list_passkeys(visit.database, user_id)
    )
    return visit.render("code.html", status, problem=problem, has_passkeys=has_passkeys)
