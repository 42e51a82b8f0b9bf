"""A person who is logged in proves once more that they are the account's owner.

Decides what is proof enough before something is changed that cannot be undone, or that opens the
account to others. Must not know what is changed.
"""

from typing import Final

from relay.accounts.log_in import TooOftenError, WrongCredentialsError
from relay.store.sessions import find_password
from relay.web.visit import Visit

_FRESH_SECONDS: Final = 600


async def has_password(visit: Visit) -> bool:
    """Whether the account has a password; one that was opened by another provider may have none."""
    found = await find_password(visit.database, visit.user.email)
    return found is not None and found[1] is not None


async def prove(visit: Visit) -> str:
    """Check the present password; what is wrong, if anything.

    An account without a password is proved by a session that has just begun.
    """
    if not await has_password(visit):
        assert visit.logged_in is not None
        is_fresh = visit.now - visit.logged_in.session.created_at < _FRESH_SECONDS
        return "" if is_fresh else visit.t("ways.log_in_anew")
    password = visit.form.get("present", "")
    try:
        await visit.site.log_in.check(
            visit.settings.web, visit.user.email, password, visit.address, visit.now
        )
    except WrongCredentialsError:
        return visit.t("account.wrong_password")
    except TooOftenError as error:
        return visit.t("login.too_often", seconds=error.seconds)
    return ""
