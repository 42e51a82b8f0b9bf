"""`relay user link`, `relay user invite` and `--password-stdin`: how people get in.

Decides the arguments and what is printed. The rules are in `relay.accounts`.
"""

import sys
import time
from typing import TYPE_CHECKING

import click

from relay.cli.database import run_on_database
from relay.cli.output import print_json
from relay.cli.program import Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.database import Database
    from relay.store.users import User


def read_password(email: str) -> str:
    """The first line of standard input.

    Raises:
        Misuse: it cannot be a password.
    """
    from relay.accounts import InvalidError
    from relay.accounts.passwords import check_strength

    password = sys.stdin.readline().rstrip("\r\n")
    try:
        check_strength(password, email)
    except InvalidError as error:
        raise Misuse(f"relay: --password-stdin: {error}") from None
    return password


async def set_first_password(database: "Database", user: "User", password: str) -> None:
    """Give a new account its password."""
    from relay.accounts.passwords import Passwords
    from relay.accounts.sign_up import SignUp

    await SignUp(Passwords()).change_password(database, user, password, time.time())


@click.command("link")
@click.argument("email", required=False)
@click.option("--no-second-step", is_flag=True, help="Remove their authenticator app now.")
@config_option
@json_option
def user_link(email: str | None, no_second_step: bool, as_json: bool) -> None:
    """Make a link for EMAIL that sets a new password. It works once, within a day.

    Without EMAIL, while nobody has an account: one that opens the first, an administrator's.
    """
    settings = load_settings()
    from relay.accounts import AccountError, users
    from relay.accounts.sign_up import first_account_url, link_url, new_link
    from relay.store.factors import remove_totp

    async def make(database: "Database") -> str:
        now = time.time()
        if email is not None:
            user = await users.find(database, email)
            if no_second_step:
                await remove_totp(database, user.id, now)
            return link_url(settings, "reset", await new_link(database, "reset", now, user=user))
        url = await first_account_url(database, settings, now)
        if not url:
            raise AccountError("there are accounts already; `relay user link EMAIL` names one")
        return url

    _print_link(run_on_database(settings, make), as_json)


@click.command("invite")
@click.option("--plan", help="Id of a plan.  [default: web.sign_up_plan]")
@config_option
@json_option
def user_invite(plan: str | None, as_json: bool) -> None:
    """Make a link that opens one account within 7 days: an invitation for one person.

    `relay code invite` makes many; `relay code list` shows all, `relay code revoke` withdraws them.
    """
    settings = load_settings()
    from relay.accounts import codes

    if settings.web.sign_up == "closed":
        raise Misuse('relay: nobody can sign up: web.sign_up must be "invite" or "open"')

    url = run_on_database(
        settings, lambda database: codes.invite(database, settings, plan, time.time())
    )
    _print_link(url, as_json)


def _print_link(url: str, as_json: bool) -> None:
    if as_json:
        print_json({"url": url})
    else:
        click.echo(url)
