"""`relay usage`: what was used, and what it cost."""

import time
from typing import TYPE_CHECKING, Any, Literal

import click

from relay import clock
from relay.cli.database import with_database
from relay.cli.output import print_json, print_records
from relay.cli.program import Misuse, load_settings, with_config, with_json

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
@with_config
@with_json
def usage(
    by: Literal["user", "key", "model", "day"], since: str, email: str | None, as_json: bool
) -> None:
    """Show what was used, and what it cost.

    Counts the requests that are settled, from the whole hour on in which DURATION began.
    "estimated" are the tokens of those that ended without an upstream's figures.
    """
    try:
        began = max(0, int(time.time()) - clock.seconds(since)) // 3600 * 3600
    except ValueError as error:
        raise Misuse(f"relay: --since: {error}") from None
    settings = load_settings()
    from relay.accounts import users as people
    from relay.store import queries
    from relay.store import usage as used

    async def read(database: "Database") -> "tuple[list[Sums], dict[str, str]]":
        owner = None if email is None else await people.find(database, email)
        which = used.Filter(since=began, user_id=None if owner is None else owner.id)
        keys = await queries.list_keys(database, email) if by == "key" else []
        return await used.sums(database, by, which), {key.id: key.email for key in keys}

    found, owners = with_database(settings, read)
    rows = [_sums_view(by, one, owners) for one in found]
    total = {name: sum(getattr(one, name) for one in found) for name in _counts(used.Sums)}
    start = clock.rfc3339(began)
    if as_json:
        print_json({"since": start, "by": by, "usage": rows, "total": total})
        return
    if not rows:
        click.echo(f"Nothing was used since {start}.")
        return
    headings = [name for name in rows[0] if name not in total]
    last = {**dict.fromkeys(headings), headings[0]: "total", **total}
    click.echo(f"Since {start}:")
    print_records([*rows, last], as_json, "")


def _counts(sums: "type[Sums]") -> tuple[str, ...]:
    return sums.__struct_fields__[2:]


def _sums_view(by: str, one: "Sums", owners: dict[str, str]) -> dict[str, Any]:
    heading: dict[str, Any] = {by: one.id}
    if by == "user":
        heading = {"user": one.name, "id": one.id}
    elif by == "key":
        known = one.id in owners
        heading |= {"name": one.name if known else "", "user": owners.get(one.id)}
    return heading | {name: getattr(one, name) for name in _counts(type(one))}
