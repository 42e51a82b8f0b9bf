"""`relay announce`: texts that all people read, maintenance and incidents.

Decides the arguments and what is printed. The rules are in `relay.accounts`.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from relay import clock
from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records, timestamp
from relay.cli.program import Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.announcements import Announcement


@click.group()
@config_option
def announce() -> None:
    """Announcements, maintenance and incidents."""


@announce.command("add")
@click.argument("text")
@click.option("--zh", "text_zh", default="", help="The same text in Chinese.")
@click.option("--title", default="", help="Of maintenance or an incident, on the status page.")
@click.option("--title-zh", default="", help="The same title in Chinese.")
@click.option("--maintenance", is_flag=True, help="Also on the status page, even before it.")
@click.option("--incident", is_flag=True, help="Also on the status page. Needs a title.")
@click.option("--in", "begins", metavar="DURATION", help="From then on; without it: now.")
@click.option("--for", "lasts", metavar="DURATION", help="For so long; without it: until removed.")
@config_option
@json_option
def announce_add(
    text: str, maintenance: bool, incident: bool, as_json: bool, **stated: str | None
) -> None:
    """Show TEXT to all people."""
    if maintenance and incident:
        raise Misuse("relay: --maintenance and --incident exclude each other")
    settings = load_settings()
    from relay.accounts import announcements
    from relay.store.announcements import Announcement

    now = time.time()
    starts_at = now + _seconds("--in", stated["begins"])
    lasts = stated["lasts"]
    new = Announcement(
        "",
        "incident" if incident else "maintenance" if maintenance else "notice",
        text,
        stated["text_zh"] or "",
        starts_at,
        starts_at + _seconds("--for", lasts) if lasts else None,
        now,
        stated["title"] or "",
        stated["title_zh"] or "",
    )
    made = run_on_database(settings, lambda database: announcements.add(database, new))
    if as_json:
        print_json(_view(made, now))
    else:
        click.echo(f"{made.id} is shown from {timestamp(made.starts_at)} on.")


@announce.command("list")
@config_option
@json_option
def announce_list(as_json: bool) -> None:
    """Show all announcements."""
    settings = load_settings()
    from relay.store.announcements import list_all

    found = run_on_database(settings, list_all)
    rows = [_view(one, time.time()) for one in found]
    print_records(rows, as_json, "There are no announcements.")


@announce.command("resolve")
@click.argument("announcement_id")
@config_option
def announce_resolve(announcement_id: str) -> None:
    """Note that an incident or maintenance is over."""
    settings = load_settings()
    from relay.accounts import announcements

    now = time.time()
    run_on_database(
        settings, lambda database: announcements.resolve(database, announcement_id, now)
    )
    click.echo(f"{announcement_id} is resolved.")


@announce.command("remove")
@click.argument("announcement_id")
@config_option
def announce_remove(announcement_id: str) -> None:
    """Remove an announcement."""
    settings = load_settings()
    from relay.accounts import announcements

    now = time.time()
    run_on_database(settings, lambda database: announcements.remove(database, announcement_id, now))
    click.echo(f"{announcement_id} is removed.")


def _seconds(option: str, text: str | None) -> int:
    try:
        return clock.seconds(text) if text else 0
    except ValueError as error:
        raise Misuse(f"relay: {option}: {error}") from None


def _view(one: "Announcement", now: float) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "shown": one.is_shown(now),
        "starts_at": timestamp(one.starts_at),
        "ends_at": timestamp(one.ends_at),
        "resolved_at": timestamp(one.resolved_at),
        "title": one.title,
        "title_zh": one.title_zh,
        "text": one.text,
        "text_zh": one.text_zh,
    }
