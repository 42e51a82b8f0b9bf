"""`relay import`: accounts, keys, balances and upstreams of another program.

Decides the arguments, where the upstreams are written, and the table that is shown.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import click

from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings
from relay.config import Settings


@click.command("import")
@click.argument("source", type=click.Choice(["new-api", "one-api", "sub2api", "litellm", "relay"]))
@click.argument("file")
@click.option("--plan", help="Plan of those whose group is none.  [default: the first one]")
@click.option("--domain", default="", help="Makes NAME@DOMAIN for users without an address.")
@click.option("--restricted", is_flag=True, help="Take over keys with limits of their own, too.")
@click.option("--upstreams", metavar="PATH", help="Write the upstreams to this new file.")
@click.option("--any-plan", is_flag=True, help="relay: Let accounts have plans not in relay.toml.")
@click.option("--dry-run", is_flag=True, help="Show the import, and change nothing.")
@config_option
@json_option
def import_accounts(
    source: str, file: str, plan: str | None, domain: str, upstreams: str | None, **flags: bool
) -> None:
    """Take over users and keys of SOURCE from FILE: its SQLite file, or a dump as SQL text.

    Users get accounts, their keys go on working, balances are credited. Passwords and admin
    rights are not taken over. Doing it again adds new ones only.

    The database of a `relay` that has served alone comes with everything in it, to the relays that
    share the ledger of relay.toml.
    """
    settings = load_settings()
    if source == "relay":
        has_foreign_options = bool(plan is not None or domain or upstreams or flags["restricted"])
        _import_relay(settings, file, flags, has_foreign_options=has_foreign_options)
        return
    if flags["any_plan"]:
        raise Misuse("relay: --any-plan is for `relay import relay`; see --plan")
    from relay.accounts import AccountError, users
    from relay.store.database import StoreError
    from relay.transfer import TransferError
    from relay.transfer.importing import Options, read_source, take_over, upstreams_toml

    try:
        chosen = users.plan_of(settings, _first_plan(settings) if plan is None else plan).id
        if domain and not users.is_email(f"a@{domain}"):
            raise Misuse(f"relay: --domain: {domain!r} is no domain, such as example.com")
        foreign = read_source(source, Path(file))
    except AccountError as error:
        raise Misuse(f"relay: {error}") from None
    except (TransferError, StoreError) as error:
        raise Failure(f"relay: {error}") from None
    options = Options(source, chosen, domain, flags["restricted"])
    dry_run, as_json = flags["dry_run"], flags["as_json"]
    if upstreams and not dry_run:
        _write_private(Path(upstreams), upstreams_toml(foreign.upstreams))
    lines = run_on_database(
        settings,
        lambda database: take_over(
            database, settings, foreign, options, time.time(), dry_run=dry_run
        ),
    )
    rows = [
        {"what": one.kind, "name": one.name, "action": one.action, "detail": one.detail}
        for one in lines
    ]
    counts = {
        action: sum(one.action == action for one in lines)
        for action in ("new", "there", "left out")
    }
    if as_json:
        print_json({"imported": not dry_run, "counts": counts, "lines": rows})
        return
    print_records(rows, False, f"{file} has nothing to import.")
    summary = ", ".join(f"{number:,} {action}" for action, number in counts.items())
    click.echo(f"{summary}.{' Nothing was changed.' if dry_run else ''}")
    if foreign.upstreams:
        place = upstreams or "a file with --upstreams PATH"
        click.echo(f"Upstreams are settings: copy them from {place} into relay.toml.")


def _first_plan(settings: Settings) -> str:
    if not settings.plan:
        raise Misuse("relay: relay.toml has no plan: add a [[plan]]")
    return settings.plan[0].id


def _import_relay(
    settings: Settings, file: str, flags: Mapping[str, bool], *, has_foreign_options: bool
) -> None:
    """`has_foreign_options`: an option of other sources is given."""
    from relay.cli.import_relay import ImportOptions, import_relay

    if has_foreign_options:
        raise Misuse(
            "relay: `relay import relay` takes no option but --any-plan, --dry-run and --json"
        )
    import_relay(
        settings, file, ImportOptions(flags["dry_run"], flags["any_plan"], flags["as_json"])
    )


def _write_private(path: Path, content: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise Failure(f"relay: {path}: {error.strerror}") from None
