"""The database as a command opens it, and its backup."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from relay import config
from relay.cli.output import print_json
from relay.cli.program import Failure, Misuse, load_settings, with_config, with_json

if TYPE_CHECKING:
    from relay.store.database import Database

T = TypeVar("T")


def with_database(settings: config.Settings, ask: "Callable[[Database], Awaitable[T]]") -> T:
    """Open the database, ask, and close it; what the operator must know becomes an error."""
    from relay.accounts import AccountError, InvalidError
    from relay.store.database import Database, StoreError

    async def session() -> T:
        database = await Database.open(settings.database.path)
        try:
            return await ask(database)
        finally:
            await database.close()

    try:
        return asyncio.run(session())
    except (AccountError, StoreError) as error:
        failure = Misuse if isinstance(error, InvalidError) else Failure
        raise failure(f"relay: {error}") from None


@click.command()
@click.argument("path")
@with_config
@with_json
def backup(path: str, as_json: bool) -> None:
    """Copy the database to PATH, while it is in use or not. Overwrites nothing."""
    settings = load_settings()
    from relay.store.backup import backup as copy
    from relay.store.database import StoreError

    try:
        size = copy(settings.database.path, path)
    except StoreError as error:
        raise Failure(f"relay: {error}") from None
    if as_json:
        print_json({"path": path, "bytes": size})
    else:
        click.echo(f"{settings.database.path} is saved whole in {path} ({size:,} bytes).")
