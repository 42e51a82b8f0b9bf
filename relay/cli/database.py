"""The database as a command uses it, `relay backup` and `relay database`.

Decides which errors of the database and of `relay.accounts` are whose fault. SQLite is
imported only when a command uses the database.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from relay import config
from relay.cli.output import print_json, timestamp
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.audit import Actor
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
            return await work(database.by(operator()))
        finally:
            await database.close()

    try:
        return asyncio.run(open_and_work())
    except (AccountError, StoreError) as error:
        failure = Misuse if isinstance(error, InvalidError) else Failure
        raise failure(f"relay: {error}") from None


def operator() -> "Actor":
    """Who uses the command line, for the audit log."""
    import pwd

    from relay.store.audit import Actor

    name = os.environ.get("SUDO_USER", "")
    if not name:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = str(os.getuid())
    return Actor(f"cli:{name}", os.environ.get("SSH_CONNECTION", "").split(" ")[0] or "local")


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


@click.group()
@config_option
def database() -> None:
    """The database file: what is in it, and the space that it takes."""


@database.command("status")
@config_option
@json_option
def database_status(as_json: bool) -> None:
    """Show sizes, numbers of rows, and backups."""
    settings = load_settings()
    from relay.store.scheduled_backup import list_backups
    from relay.store.space import usage

    path = settings.database.path
    found = run_on_database(settings, lambda database: usage(database, path))
    backups = list_backups(settings.backup.path)
    report = {
        "path": path,
        "bytes": found.octets,
        "free_bytes": found.free_octets,
        "log_bytes": found.log_octets,
        "accounts": found.accounts,
        "keys": found.keys,
        "requests": found.requests,
        "oldest_request": timestamp(found.oldest),
        "latest_request": timestamp(found.latest),
        "retention_days": settings.database.retention_days,
        "hourly_sums": found.hours,
        "statement_entries": found.entries,
        "stored_responses": found.responses,
        "stored_response_bytes": found.response_octets,
        "backups": len(backups),
        "backup_bytes": sum(one.octets for one in backups),
        "latest_backup": timestamp(backups[-1].made_at) if backups else None,
        "shrinks_by_itself": found.shrinkable,
    }
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        text = "-" if value is None else f"{value:,}" if type(value) is int else str(value)
        text = {"True": "yes", "False": "no"}.get(text, text)
        click.echo(f"{name.replace('_', ' '):<24}{text}")
    if not found.shrinkable:
        click.echo("`relay database shrink` gives free bytes back; stop the server first.")


@database.command("shrink")
@config_option
@json_option
def database_shrink(as_json: bool) -> None:
    """Give free space back to the disk. The server does so by itself after it deleted much.

    A database that an older version made is rewritten; stop the server first.
    """
    settings = load_settings()
    from relay.store.space import give_back, pages, rewrite

    async def shrink(database: "Database") -> int:
        if (await pages(database)).shrinkable:
            return await give_back(database, always=True)
        with locked(settings.database.path):
            return await rewrite(database)

    octets = run_on_database(settings, shrink)
    if as_json:
        print_json({"bytes": octets})
    else:
        click.echo(f"{octets:,} bytes are given back to the disk.")


@contextmanager
def locked(database: str) -> Iterator[None]:
    """Hold the server's lock on the database. A lock that no server has made goes again.

    Raises:
        Failure: a server runs, or there is no such folder.
    """
    from relay.process import lock_database

    path = f"{os.path.realpath(database)}.lock"
    is_new = not os.path.exists(path)
    try:
        lock = lock_database(database)
    except OSError as error:
        running = "another relay" in str(error)
        raise Failure(f"relay: {error}{'; stop it first' if running else ''}") from None
    try:
        yield
    finally:
        if is_new:  # while it is held, so that nobody holds one that is gone
            os.unlink(path)
        os.close(lock)
