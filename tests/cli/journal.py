"""Requests as a server writes them into the database that a command reads."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from relay.store.database import Database
from relay.store.records import AdmissionRow
from tests.store.entries import journalled

T = TypeVar("T")


def _on_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Await work on the database of this folder."""

    async def open_and_work() -> T:
        database = await Database.open("relay.db")
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(open_and_work())


def write_requests(*requests: AdmissionRow, **options: Any) -> None:
    """Write requests through a journal; `options` as of `journalled`."""
    _on_database(lambda database: journalled(database, *requests, **options))
