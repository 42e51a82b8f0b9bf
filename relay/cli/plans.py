"""`relay user start-plan`, `extend-plan`, `reset-window`, `bonus`: plans for a time, and windows.

Decides the arguments and what is printed. The rules are in `relay.accounts`.
"""

import time
from typing import TYPE_CHECKING

import click

from relay.cli.database import operator, run_on_database
from relay.cli.output import print_json, timestamp
from relay.cli.program import config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.database import Database
    from relay.store.users import User


@click.command("start-plan")
@click.argument("email")
@click.argument("plan")
@click.argument("length")
@click.option("--then", "plan_then", help="The plan that follows.  [default: the first one]")
@config_option
@json_option
def start_plan(email: str, plan: str, length: str, plan_then: str | None, as_json: bool) -> None:
    """Begin PLAN for EMAIL now, for a LENGTH such as 30d. All windows begin anew."""
    settings = load_settings()
    from relay.accounts import periods
    from relay.store.periods import NewPeriod

    async def begin(database: "Database") -> "User":
        then = plan_then or periods.default_then(settings)
        new = NewPeriod(plan, periods.seconds_of(length), then, operator().name)
        return await periods.start(database, settings, email, new, time.time())

    _print_period(run_on_database(settings, begin), as_json)


@click.command("extend-plan")
@click.argument("email")
@click.argument("length")
@config_option
@json_option
def extend_plan(email: str, length: str, as_json: bool) -> None:
    """Let the present period of EMAIL end later, by a LENGTH such as 30d. Windows go on."""
    settings = load_settings()
    from relay.accounts import periods

    async def extend(database: "Database") -> "User":
        seconds = periods.seconds_of(length)
        return await periods.extend(database, settings, email, seconds, time.time())

    _print_period(run_on_database(settings, extend), as_json)


def _print_period(owner: "User", as_json: bool) -> None:
    until = timestamp(owner.plan_until)
    if as_json:
        view = {"user": owner.email, "plan": owner.plan, "plan_until": until}
        print_json({**view, "plan_then": owner.plan_then})
    else:
        click.echo(f"{owner.email} is on plan {owner.plan} until {until}, then {owner.plan_then}.")


@click.command("reset-window")
@click.argument("email")
@click.argument("window")
@config_option
@json_option
def reset_window(email: str, window: str, as_json: bool) -> None:
    """Make one WINDOW of EMAIL full again, such as 5h or tokens/1d. It ends when it would have."""
    settings = load_settings()
    from relay.accounts import windows

    owner, limit = run_on_database(
        settings,
        lambda database: windows.reset_window(database, settings, email, window, time.time()),
    )
    if as_json:
        print_json({"user": owner.email, "counts": limit.kind, "per": limit.per})
    else:
        click.echo(f"The limit of {owner.email} of {limit.name} is full again.")


@click.command("bonus")
@click.argument("email")
@click.argument("window")
@click.argument("amount", type=int)
@click.option("--windows", type=int, default=1, show_default=True, help="How many; 0 ends it.")
@config_option
@json_option
def bonus(email: str, window: str, amount: int, windows: int, as_json: bool) -> None:
    """Let EMAIL have AMOUNT more in each of the next windows, such as 5h or tokens/1d."""
    settings = load_settings()
    from relay.accounts.windows import give_bonus

    owner, limit = run_on_database(
        settings,
        lambda database: give_bonus(
            database, settings, email, bonus=(window, amount, windows), now=time.time()
        ),
    )
    if as_json:
        view = {"user": owner.email, "counts": limit.kind, "per": limit.per}
        print_json({**view, "amount": amount, "windows": windows})
    elif windows:
        count = "window" if windows == 1 else f"{windows} windows"
        click.echo(f"{owner.email} has {amount:,} more in the next {count}: {limit.name}.")
    else:
        click.echo(f"{owner.email} has no bonus any more: {limit.name}.")
