"""`relay code`: codes for credit or a plan, and invitations.

Decides the arguments and what is printed. The rules are in `relay.accounts.codes`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relay.cli.amounts import micro_dollars
from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records, timestamp
from relay.cli.program import Failure, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.accounts.codes import MadeCode
    from relay.store.codes import Code, Grant, Redemption
    from relay.store.database import Database

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _batch_options(command: _Command) -> _Command:
    for option in (
        json_option,
        config_option,
        click.option("--csv", "csv_path", metavar="FILE", help="Write them here instead."),
        click.option("--note", default="", help="For the operator and the statement."),
        click.option("--expires", "lifetime", metavar="DURATION", help="How long they work."),
        click.option("--uses", default=1, show_default=True, help="People for each code."),
        click.option("--number", default=1, show_default=True, help="How many codes."),
    ):
        command = option(command)
    return command


@click.group()
@config_option
def code() -> None:
    """Codes that people redeem, and invitations."""


@code.command("credit")
@click.argument("amount")
@_batch_options
def code_credit(amount: str, **stated: Any) -> None:
    """Make codes for a credit of AMOUNT dollars."""
    from relay.store.codes import Grant

    _create(Grant("credit", amount_micro=micro_dollars(amount)), **stated)


@code.command("plan")
@click.argument("plan")
@click.argument("length")
@click.option("--then", "plan_then", help="The plan that follows.  [default: the first one]")
@_batch_options
def code_plan(plan: str, length: str, plan_then: str | None, **stated: Any) -> None:
    """Make codes for PLAN for a LENGTH such as 30d."""
    from relay.accounts import AccountError, periods
    from relay.store.codes import Grant

    try:
        seconds = periods.seconds_of(length)
        then = plan_then or periods.default_then(load_settings())
    except AccountError as error:
        raise Failure(f"relay: {error}") from None
    _create(Grant("plan", plan=plan, seconds=seconds, plan_then=then), **stated)


@code.command("invite")
@click.option("--plan", help="The plan of its accounts.  [default: the first one]")
@_batch_options
def code_invite(plan: str | None, **stated: Any) -> None:
    """Make invitations to sign up."""
    from relay.store.codes import Grant

    _create(Grant("invite", plan=plan), **stated)


def _create(grant: "Grant", csv_path: str | None, as_json: bool, **stated: Any) -> None:
    settings = load_settings()
    from relay.accounts import codes

    options = codes.BatchOptions(**stated)
    made = run_on_database(
        settings, lambda database: codes.create(database, settings, grant, options, time.time())
    )
    if csv_path is not None:
        _write(Path(csv_path), codes.as_csv(made))
    if as_json:
        print_json([_made_view(one, csv_path is None) for one in made])
    elif csv_path is not None:
        click.echo(f"{len(made)} codes of {made[0].record.batch} are in {csv_path}.")
    else:
        for one in made:
            click.echo(one.code.reveal())
        click.echo(f"\n{made[0].record.batch}: the codes are not shown again.")


def _write(path: Path, text: str) -> None:
    try:
        path.touch(mode=0o600)
        path.write_text(text)
    except OSError as error:
        raise Failure(f"relay: {path}: {error.strerror}") from None


@code.command("list")
@click.option("--batch", metavar="ID", help="Only this batch.")
@click.option("--last", type=click.IntRange(1, 1_000_000), default=1000, show_default=True)
@config_option
@json_option
def code_list(batch: str | None, last: int, as_json: bool) -> None:
    """Show codes by their ends, newest first."""
    settings = load_settings()
    from relay.store.codes import list_codes

    found = run_on_database(settings, lambda database: list_codes(database, batch, last))
    now = time.time()
    print_records([_view(one, now) for one in found], as_json, "There are no codes.")


@code.command("revoke")
@click.argument("code_or_batch")
@config_option
@json_option
def code_revoke(code_or_batch: str, as_json: bool) -> None:
    """Withdraw a code or a batch by its id."""
    settings = load_settings()
    from relay.accounts import codes

    count = run_on_database(
        settings, lambda database: codes.revoke(database, code_or_batch, time.time())
    )
    if as_json:
        print_json({"revoked": count})
    else:
        click.echo(f"{count} codes are withdrawn.")


@code.command("redeem")
@click.argument("email")
@click.argument("text", metavar="CODE")
@click.option("--replace", is_flag=True, help="Its plan takes the place of the present one.")
@config_option
@json_option
def code_redeem(email: str, text: str, replace: bool, as_json: bool) -> None:
    """Redeem CODE for EMAIL."""
    settings = load_settings()
    from relay.accounts import codes, users

    async def redeem(database: "Database") -> "Redemption":
        owner = await users.find(database, email)
        return await codes.redeem(database, owner, text, time.time(), replace=replace)

    done = run_on_database(settings, redeem)
    if as_json:
        view = {"code": done.code.id, "balance_micro": done.balance_micro}
        until = timestamp(done.plan_until)
        print_json({**view, "plan_until": until, "extended": done.extended})
    elif done.plan_until is not None:
        word = "goes on" if done.extended else "begins anew and runs"
        click.echo(f"Plan {done.code.plan} {word} until {timestamp(done.plan_until)}.")
    else:
        click.echo("The credit is in the balance.")


def _made_view(made: "MadeCode", with_code: bool) -> dict[str, Any]:
    view = _view(made.record, time.time())
    return {**view, "code": made.code.reveal()} if with_code else view


def _view(one: "Code", now: float) -> dict[str, Any]:
    return {
        "id": one.id,
        "batch": one.batch,
        "hint": one.hint,
        "kind": one.kind,
        "state": one.state(now),
        "credit_micro": one.amount_micro,
        "plan": one.plan,
        "days": one.seconds / 86_400,
        "plan_then": one.plan_then,
        "uses": one.uses,
        "used": one.used,
        "expires_at": timestamp(one.expires_at),
        "note": one.note,
    }
