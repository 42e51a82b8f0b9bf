"""Entries as a gateway makes them, and a ledger that tells what it is told to."""

import asyncio
import itertools
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from relay.store.batch import AdmissionRow, BucketRow, Charge, Settlement
from relay.store.database import Database
from relay.store.journal import Journal, Ticket
from relay.store.recovery import restore

NOON = 1_775_649_600.0  # 2026-04-08 12:00:00 UTC
_numbers = itertools.count(1)


def opening(**changes: Any) -> AdmissionRow:
    ordinary = AdmissionRow(
        f"req_{next(_numbers):08x}", NOON, "key_1", "usr_1", "claude-sonnet-4-7", "messages",
        1000, 0,
    )  # fmt: skip
    return msgspec.structs.replace(ordinary, **changes)


def settlement(request: str, **changes: Any) -> Settlement:
    ordinary = Settlement(
        request, 200, "claude-sonnet-4-7", "main", 10, 20, 3, 4, 77, 1500, 2_000_000, "whole",
        "reported",
    )  # fmt: skip
    return msgspec.structs.replace(ordinary, **changes)


def settle(journal: Journal, ticket: Ticket, request: AdmissionRow, **changes: Any) -> Ticket:
    """End a request; one that is billed by the token is charged."""
    end = settlement(request.id, **changes)
    charge = None
    if request.billed_micro and end.cost_micro:
        charge = Charge(request.user_id, NOON + 2, end.cost_micro, request.id, "")
    return journal.settle(ticket, request, end, charge)


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


async def journalled(
    database: Database,
    *requests: AdmissionRow,
    running: Iterable[AdmissionRow] = (),
    **changes: Any,
) -> None:
    """Requests that came to their ends, and the journal to its own, before those that run."""
    await restore(database, NOON)
    journal = await Journal.start(database, Changes())
    for request in running:
        journal.open(request)
    for request in requests:
        settle(journal, journal.open(request), request, **changes)
    assert await journal.close() == 0


def crash(path: Path, number: int = 0) -> Path:
    """What a crash of the process would leave of its database at this moment: a copy. The log is
    copied last, and nothing may check it in meanwhile. By another process, since to close a
    file takes its locks from this one."""
    folder = path.parent / f"crash{number}"
    folder.mkdir()
    subprocess.run(["cp", path, folder], check=True)
    subprocess.run(["cp", f"{path}-wal", folder], check=True)
    return folder / path.name


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path)
    try:
        yield database
    finally:
        await database.close()


async def rows(database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
    return await database.select(statement, values)
