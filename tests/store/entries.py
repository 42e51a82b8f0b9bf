"""Entries as a gateway makes them, and a ledger that tells what it is told to."""

import asyncio
import itertools
from typing import Any

from relay.store.database import Database
from relay.store.journal import BucketRow, Journal, Opening, Settlement, Ticket

NOON = 1_775_649_600.0  # 2026-04-08 12:00:00 UTC
_numbers = itertools.count(1)


def opening(**changes: Any) -> Opening:
    ordinary = Opening(
        f"req_{next(_numbers):08x}", NOON, "key_1", "usr_1", "claude-sonnet-4-7", "messages",
        "/v1/messages", 1000, 500, False,
    )  # fmt: skip
    return ordinary._replace(**changes)


def settlement(request: str, **changes: Any) -> Settlement:
    ordinary = Settlement(
        request, NOON + 2, 200, "claude-sonnet-4-7", "main", 10, 20, 3, 4, 77, 1500, 2_000_000,
        "whole", "reported",
    )  # fmt: skip
    return ordinary._replace(**changes)


def bucket(used: int, owner: str = "key_1", kind: str = "requests") -> BucketRow:
    return ("key", owner, kind, 18_000, "window", 40, used, int((NOON + 18_000) * 1000))


class Changes:
    """In place of a ledger."""

    def __init__(self) -> None:
        self.rows: list[BucketRow] = []
        self.asked = 0

    def __call__(self) -> list[BucketRow]:
        self.asked += 1
        rows, self.rows = self.rows, []
        return rows


async def outcome(ticket: Ticket, within: float = 10.0) -> bool:
    """What a caller of `when_durable` is told."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    ticket.when_durable(told.set_result)
    return await asyncio.wait_for(told, within)


async def journalled(database: Database, *entries: Opening | Settlement) -> None:
    """Write some entries and close the journal."""
    journal = await Journal.start(database, Changes())
    for entry in entries:
        if isinstance(entry, Opening):
            journal.open(entry)
        else:
            journal.settle(entry)
    assert await journal.close() == 0


async def rows(database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
    return await database.read(lambda c: c.execute(statement, values).fetchall())
