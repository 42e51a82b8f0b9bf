"""The database as a command uses it, and `relay backup`.

Decides which errors of the database and of `relay.accounts` are whose fault. SQLite is
imported only when a command uses the database.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from relay import config
from relay.cli.output import print_json
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.database import Database

T = TypeVar("T")


def run_on_database(settings: config.Settings, work: "Callable[[Database], Awaitable[T]]") -> T:
    """Open the database, await `work` on it and close it.

    Raises:
        Misuse: an argument of the command is invalid.
        Failure: the database cannot be used, or its contents do not allow the command.
    """
    from relay.accounts import AccountError, InvalidError
    from relay.store.database import Database, StoreError

    async def open_and_work() -> T:
        database = await Database.open(settings.database.path)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(open_and_work())
    except (AccountError, StoreError) as error:
        failure = Misuse if isinstance(error, InvalidError) else Failure
        raise failure(f"relay: {error}") from None


@click.command()
@click.argument("path", required=False)
@config_option
@json_option
def backup(path: str | None, as_json: bool) -> None:
    """Copy the database to PATH, while it is in use or not. Overwrites nothing.

    Without PATH the copy goes to the folder of scheduled backups, and from there to the bucket.
    """
    settings = load_settings()
    from relay.store.backup import backup as copy_database
    from relay.store.database import StoreError

    if path is None:
        _scheduled_backup(settings, as_json)
        return
    try:
        size = copy_database(settings.database.path, path)
    except StoreError as error:
        raise Failure(f"relay: {error}") from None
    if as_json:
        print_json({"path": path, "bytes": size})
    else:
        click.echo(f"{settings.database.path} is saved whole in {path} ({size:,} bytes).")


def _scheduled_backup(settings: config.Settings, as_json: bool) -> None:
    from relay.store.scheduled_backup import BackupError, Backups

    try:
        made = Backups(settings.database.path, settings.backup).make(time.time())
    except BackupError as error:
        raise Failure(f"relay: {error}") from None
    if as_json:
        print_json(
            {
                "path": str(made.path),
                "bytes": made.octets,
                "stored": made.stored,
                "deleted": made.deleted,
            }
        )
        return
    stored = f", and as {made.stored} in the bucket" if made.stored else ""
    click.echo(f"{settings.database.path} is saved in {made.path} ({made.octets:,} bytes){stored}.")
    if made.deleted:
        click.echo(f"Older backups deleted: {made.deleted}.")
