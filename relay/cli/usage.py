"""`relay usage`: requests, tokens and cost, summed up.

Decides how far back and by what the sums are grouped. The sums are those of `relay.store`.
"""

import time
from typing import TYPE_CHECKING, Any, Literal

import click

from relay import clock
from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records
from relay.cli.program import Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.database import Database
    from relay.store.usage import Sums


@click.command()
@click.option(
    "--by",
    type=click.Choice(["user", "key", "model", "day"]),
    default="user",
    show_default=True,
    help="What to sum up under; days are UTC.",
)
@click.option("--since", metavar="DURATION", default="7d", show_default=True, help="How far back.")
@click.option("--user", "email", metavar="EMAIL", help="Only what this account used.")
@config_option
@json_option
def usage(
    by: Literal["user", "key", "model", "day"], since: str, email: str | None, as_json: bool
) -> None:
    """Show requests, tokens and cost.

    Counts settled requests from the start of the hour in which DURATION began. "estimated"
    counts the tokens of requests whose upstream reported none.
    """
    try:
        start = max(0, int(time.time()) - clock.seconds(since)) // 3600 * 3600
    except ValueError as error:
        raise Misuse(f"relay: --since: {error}") from None
    settings = load_settings()
    from relay.accounts import users
    from relay.store.keys import list_keys
    from relay.store.usage import Filter, Sums, sums

    async def read(database: "Database") -> "tuple[list[Sums], dict[str, str]]":
        owner = None if email is None else await users.find(database, email)
        selected = Filter(since=start, user_id=None if owner is None else owner.id)
        keys = await list_keys(database, email) if by == "key" else []
        return await sums(database, by, selected), {key.id: key.email for key in keys}

    found, owners = run_on_database(settings, read)
    rows = [_sums_view(by, one, owners) for one in found]
    total = {name: sum(getattr(one, name) for one in found) for name in _count_names(Sums)}
    since_text = clock.rfc3339(start)
    if as_json:
        print_json({"since": since_text, "by": by, "usage": rows, "total": total})
        return
    if not rows:
        click.echo(f"Nothing was used since {since_text}.")
        return
    labels = [name for name in rows[0] if name not in total]
    total_row = {**dict.fromkeys(labels), labels[0]: "total", **total}
    click.echo(f"Since {since_text}:")
    print_records([*rows, total_row], as_json, "")


def _count_names(sums: "type[Sums]") -> tuple[str, ...]:
    """The fields that are summed up: all but id and name."""
    return sums.__struct_fields__[2:]


def _sums_view(by: str, one: "Sums", owners: dict[str, str]) -> dict[str, Any]:
    """A row: its labels and its counts. `owners`: key id → e-mail address."""
    labels: dict[str, Any] = {by: one.id}
    if by == "user":
        labels = {"user": one.name, "id": one.id}
    elif by == "key":
        known = one.id in owners
        labels |= {"name": one.name if known else "", "user": owners.get(one.id)}
    return labels | {name: getattr(one, name) for name in _count_names(type(one))}
