"""`relay user`: accounts and balances.

Decides the arguments and what is printed. The rules are in `relay.accounts`, the data in
`relay.store`.
"""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from relay.cli import plans
from relay.cli.amounts import micro_dollars
from relay.cli.database import run_on_database
from relay.cli.links import read_password, set_first_password, user_invite, user_link
from relay.cli.output import dollars, print_json, print_records, print_stderr, timestamp
from relay.cli.program import Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.balance import Entry
    from relay.store.database import Database
    from relay.store.users import User

_MAX_NOTE_CHARACTERS: Final = 200


@click.group()
@config_option
def user() -> None:
    """People: who has an account, and on which plan."""


@user.command("create")
@click.argument("email")
@click.option("--plan", help="Id of a plan.  [default: the first one of relay.toml]")
@click.option("--admin", is_flag=True, help="May administer the relay.")
@click.option("--password-stdin", is_flag=True, help="Read a password for the pages.")
@config_option
@json_option
def user_create(
    email: str, plan: str | None, admin: bool, password_stdin: bool, as_json: bool
) -> None:
    """Open an account for EMAIL."""
    settings = load_settings()
    from relay.accounts import users

    password = read_password(email) if password_stdin else None

    async def create(database: "Database") -> "User":
        user = await users.create(
            database, settings, email, plan=plan, is_admin=admin, now=time.time()
        )
        if password is not None:
            await set_first_password(database, user, password)
        return user

    created = run_on_database(settings, create)
    if as_json:
        print_json(_user_view(created))
    else:
        click.echo(f"{created.email} has an account on plan {created.plan} ({created.id}).")
        click.echo(f"Make a key with: relay key create --user {created.email}")


user.add_command(user_link)
user.add_command(user_invite)


@user.command("list")
@config_option
@json_option
def user_list(as_json: bool) -> None:
    """Show every account."""
    settings = load_settings()
    from relay.store.users import list_users

    found = run_on_database(settings, list_users)
    print_records([_user_view(one) for one in found], as_json, "Nobody has an account yet.")


@user.command("set-plan")
@click.argument("email")
@click.argument("plan")
@config_option
@json_option
def user_set_plan(email: str, plan: str, as_json: bool) -> None:
    """Move EMAIL to PLAN."""
    settings = load_settings()
    from relay.accounts import users

    moved = run_on_database(
        settings, lambda database: users.set_plan(database, settings, email, plan)
    )
    _print_user(moved, as_json, f"is on plan {moved.plan} now.")


@user.command("suspend")
@click.argument("email")
@click.option("--reason", default="", help="A text for its person, also in errors.")
@config_option
@json_option
def user_suspend(email: str, reason: str, as_json: bool) -> None:
    """Refuse every key of EMAIL until resumed."""
    settings = load_settings()
    from relay.accounts import users

    suspended = run_on_database(
        settings, lambda database: users.suspend(database, email, time.time(), reason)
    )
    _print_user(suspended, as_json, "is suspended; every key of theirs is refused.")


@user.command("resume")
@click.argument("email")
@config_option
@json_option
def user_resume(email: str, as_json: bool) -> None:
    """Let the keys of EMAIL work again."""
    settings = load_settings()
    from relay.accounts import users

    resumed = run_on_database(settings, lambda database: users.resume(database, email))
    _print_user(resumed, as_json, "is active; their keys work.")


# "-4" is an amount: click must not take it for an option.
@user.command("credit", context_settings={"ignore_unknown_options": True})
@click.argument("email")
@click.argument("amount")
@click.option("--note", default="", help="A text for the statement.")
@config_option
@json_option
def user_credit(email: str, amount: str, note: str, as_json: bool) -> None:
    """Add AMOUNT dollars to the balance of EMAIL.

    An AMOUNT less than zero takes back what was credited by mistake.
    """
    _check_note(note)
    micro = micro_dollars(amount)
    settings = load_settings()
    from relay.accounts import InvalidError, users
    from relay.store import balance

    async def add_credit(database: "Database") -> "tuple[User, Entry]":
        owner = await users.find(database, email)
        try:
            return owner, await balance.credit(database, owner.id, micro, note, time.time())
        except ValueError as error:
            raise InvalidError(str(error)) from None

    owner, entry = run_on_database(settings, add_credit)
    if any(plan.id == owner.plan and plan.billing != "per-token" for plan in settings.plan):
        print_stderr(f"{owner.email} is on plan {owner.plan}, which charges nothing to the balance")
    if as_json:
        print_json({"user": owner.email, **_entry_view(entry)})
        return
    balance_text = f"the balance is {dollars(entry.balance_after)}."
    if micro > 0:
        click.echo(f"{owner.email} is credited {dollars(micro)}; {balance_text}")
    else:
        click.echo(f"{dollars(-micro)} is taken back from {owner.email}; {balance_text}")


@user.command("statement")
@click.argument("email")
@click.option(
    "--last",
    type=click.IntRange(1, 10**9),
    default=100,
    show_default=True,
    help="Number of entries, the latest ones.",
)
@config_option
@json_option
def user_statement(email: str, last: int, as_json: bool) -> None:
    """Show what EMAIL was credited and charged, oldest first."""
    settings = load_settings()
    from relay.accounts import users
    from relay.store import balance

    async def read(database: "Database") -> "tuple[User, list[Entry]]":
        owner = await users.find(database, email)
        return owner, await balance.statement(database, owner.id, limit=last + 1)

    owner, found = run_on_database(settings, read)
    current = found[0].balance_after if found else 0
    entries = [_entry_view(one) for one in reversed(found[:last])]
    if as_json:
        print_json(
            {
                "user": owner.email,
                "balance_micro": current,
                "entries": entries,
                "older": len(found) > last,
            }
        )
        return
    if len(found) > last:
        click.echo(f"There are older entries; --last shows more than {last}.")
    print_records(entries, as_json, f"{owner.email} was neither credited nor charged anything.")
    click.echo(f"The balance is {dollars(current)}.")


@user.command("refund")
@click.argument("request_id")
@click.option("--note", default="", help="A text for the statement.")
@config_option
@json_option
def user_refund(request_id: str, note: str, as_json: bool) -> None:
    """Give back what the request REQUEST_ID was charged, once."""
    _check_note(note)
    settings = load_settings()
    from relay.accounts import AccountError
    from relay.store import balance

    async def give_back(database: "Database") -> "Entry":
        try:
            return await balance.refund(database, request_id, note, time.time())
        except ValueError as error:
            raise AccountError(str(error)) from None

    entry = run_on_database(settings, give_back)
    if as_json:
        print_json(_entry_view(entry))
    else:
        after = dollars(entry.balance_after)
        click.echo(f"{dollars(entry.amount_micro)} is given back; the balance is {after}.")


def _check_note(note: str) -> None:
    if len(note) > _MAX_NOTE_CHARACTERS or not note.isprintable():
        raise Misuse(f"relay: a note has up to {_MAX_NOTE_CHARACTERS} printable characters")


for _command in (plans.start_plan, plans.extend_plan, plans.reset_window, plans.bonus):
    user.add_command(_command)


def _user_view(one: "User") -> dict[str, Any]:
    return {
        "id": one.id,
        "email": one.email,
        "plan": one.plan_at(time.time()),
        "plan_until": timestamp(one.plan_until),
        "plan_then": one.plan_then,
        "admin": one.is_admin,
        "created_at": timestamp(one.created_at),
        "suspended_at": timestamp(one.suspended_at),
        "suspended_reason": one.suspended_reason,
    }


def _entry_view(one: "Entry") -> dict[str, Any]:
    return {
        "time": timestamp(one.time),
        "kind": one.reason or one.kind,
        "amount_micro": one.amount_micro,
        "balance_micro": one.balance_after,
        "request": one.request_id,
        "note": one.note,
    }


def _print_user(one: "User", as_json: bool, change: str) -> None:
    """Print an account after a change; `change` continues the sentence after its address."""
    if as_json:
        print_json(_user_view(one))
    else:
        click.echo(f"{one.email} {change}")
