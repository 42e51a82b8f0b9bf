"""`relay audit`: who changed what, from where, with the state before and after.

Decides how entries are selected and printed. The entries are those of `relay.store.audit`.
"""

import json
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records, timestamp
from relay.cli.program import config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.audit import AuditEntry


@click.command()
@click.option("--actor", metavar="ACTOR", help="Only changes by this one, such as cli:root.")
@click.option("--subject", metavar="ID", help="Only changes of this account, key or upstream.")
@click.option("--action", metavar="PREFIX", help="Only actions that begin so, such as key.")
@click.option("--before", type=int, metavar="ID", help="Only entries older than this one.")
@click.option("--last", type=click.IntRange(1, 10_000), default=50, show_default=True)
@config_option
@json_option
def audit(as_json: bool, last: int, **which: Any) -> None:
    """Show the changes that people made, newest first."""
    settings = load_settings()
    from relay.store.audit import AuditFilter, entries

    found = run_on_database(
        settings, lambda database: entries(database, AuditFilter(**which), last)
    )
    if as_json:
        views = [{**structs.asdict(one), "time": timestamp(one.time)} for one in found]
        print_json(views)
        return
    print_records([_row(one) for one in found], False, "There are no entries.")


def _row(one: "AuditEntry") -> dict[str, Any]:
    return {
        "id": one.id,
        "time": timestamp(one.time),
        "actor": one.actor,
        "from": one.address,
        "action": one.action,
        "subject": one.subject,
        "before": _text(one.before),
        "after": _text(one.after),
    }


def _text(state: dict[str, Any] | None) -> str:
    return "" if state is None else json.dumps(state, ensure_ascii=False)
