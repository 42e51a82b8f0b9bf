"""`relay restore`: a backup in the place of the database.

Decides the output, and that no server runs meanwhile. Testing and installing a backup is in
`relay.store.restore`.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay import config
from relay.cli.database import locked
from relay.cli.output import print_json, print_records, print_stderr, timestamp
from relay.cli.program import Failure, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.restore import Contents


@click.command()
@click.argument("path")
@click.option("--dry-run", is_flag=True, help="Test the backup, and change nothing.")
@config_option
@json_option
def restore(path: str, dry_run: bool, as_json: bool) -> None:
    """Replace the database by the backup at PATH, once it has passed every test.

    The replaced database stays beside the new one. Stop the server first.
    """
    settings = load_settings()
    from relay.store import restore as store

    target = os.path.realpath(settings.database.path)
    with _errors(), locked(target):
        copy, found = asyncio.run(store.prepare(path, target))
        try:
            _warn_of_responses(settings, copy)
            present = store.contents(target)
            replaced: Path | None = None
            if not dry_run:
                replaced = store.install(copy, target, time.time())
        finally:
            store.discard(copy)
    result = {
        "restored": not dry_run,
        "backup": _view(found),
        "database": None if present is None else _view(present),
        "replaced": None if replaced is None else str(replaced),
    }
    if as_json:
        print_json(result)
        return
    rows = [{"": "backup", **_view(found)}]
    if present is not None:
        rows.append({"": "database until now", **_view(present)})
    print_records(rows, False, "")
    if dry_run:
        click.echo(f"{path} can be restored; nothing was changed.")
        return
    click.echo(f"{settings.database.path} is restored from {path}.")
    if replaced is not None:
        click.echo(f"The database until now is {replaced}; delete it when you need it no more.")


def _view(found: "Contents") -> dict[str, Any]:
    return {
        "bytes": found.octets,
        "schema": found.schema,
        "accounts": found.accounts,
        "keys": found.keys,
        "requests": found.requests,
        "latest": timestamp(found.latest),
    }


def _warn_of_responses(settings: config.Settings, copy: Path) -> None:
    """Say so if the stored responses cannot be read with the key of relay.toml."""
    from relay.secret import derived
    from relay.store.restore import reads_responses

    if settings.responses.store != "database":
        return
    try:
        secret = settings.responses.secret()
    except ValueError as error:
        print_stderr(f"relay: warning: responses.key: {error}")
        return
    assert secret is not None  # config.load has checked it
    if not asyncio.run(reads_responses(copy, derived(secret, b"relay storing"))):
        print_stderr(
            "relay: warning: stored responses cannot be read with this responses.key; their "
            "conversations will be gone"
        )


@contextmanager
def _errors() -> Iterator[None]:
    from relay.store.database import StoreError

    try:
        yield
    except (StoreError, OSError) as error:
        raise Failure(f"relay: {error}") from None
