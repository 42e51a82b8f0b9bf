"""Entries as a gateway makes them, a ledger with given changes, and questions to a database."""

import asyncio
import itertools
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from relay.store.database import Database
from relay.store.journal import Journal, Ticket
from relay.store.records import AdmissionRow, BucketRow, Charge, Settlement
from relay.store.recovery import restore

NOON = 1_775_649_600.0  # 2026-04-08 12:00:00 UTC
RUNNING = "SELECT id FROM running"
Mode: TypeAlias = Literal["normal", "full"]
_numbers = itertools.count(1)


def admission(**changes: Any) -> AdmissionRow:
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


def settle(journal: Journal, request: AdmissionRow, **changes: Any) -> Ticket:
    """End a request; one that is billed by the token is charged."""
    end = settlement(request.id, **changes)
    charge = None
    if request.billed_micro and end.cost_micro:
        charge = Charge(request.user_id, NOON + 2, end.cost_micro, request.id, "")
    return journal.settle(end, charge)


def serve(journal: Journal, request: AdmissionRow, **changes: Any) -> Ticket:
    """Begin and end a request."""
    journal.open(request)
    return settle(journal, request, **changes)


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
    """The result that `when_durable` calls back with."""
    durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    ticket.when_durable(durable.set_result)
    return await asyncio.wait_for(durable, within)


async def journalled(
    database: Database,
    *requests: AdmissionRow,
    running: Iterable[AdmissionRow] = (),
    **changes: Any,
) -> None:
    """Journal requests that end, and those that are still `running` when the journal closes."""
    await restore(database, NOON)
    journal = await Journal.start(database, Changes())
    for request in running:
        journal.open(request)
    for request in requests:
        serve(journal, request, **changes)
    assert await journal.close() == 0


def crash(path: Path, number: int = 0) -> Path:
    """A copy of the files that a crash would leave at this moment. The log is copied last, and no
    checkpoint may run meanwhile. Another process copies, since closing a file drops this
    process's locks on it."""
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


async def pragma(database: Database, mode: Mode, text: str) -> int:
    """Run a pragma on the connection that the journal writes with."""

    def work(connection: sqlite3.Connection) -> int:
        found = connection.execute(f"PRAGMA {text}").fetchone()
        return int(found[0]) if found else 0

    return database.run_inline(work) if mode == "normal" else await database.run(work)
