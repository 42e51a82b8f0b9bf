"""A relay whose plan counts and bills, and questions to its database."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.store.batch import read
from tests.fakes.caller import BODY

STREAM = {**BODY, "stream": True}
LIMIT_REQUESTS = 1_000_000
CREDIT_MICRO = 900_000 * 1_000_000  # more than can be used
LIMITS = f"""
limits = [{{ requests = {LIMIT_REQUESTS}, per = "5h" }}, {{ tokens = 2_000_000_000, per = "1h" }}]
billing = "per-token"
"""
PRICE = "price = { input = 3, output = 15, cache_read = 0.3, cache_write = 3.75 }"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the test's own to the relay's database."""
    path = folder / "relay.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def bucket_state(connection: sqlite3.Connection, kind: str, per: int) -> dict[str, Any]:
    """A limit's last state, which may be in a batch that is not unfolded yet."""
    names = ("scope", "owner", "kind", "per", "refill", "size", "used", "moment")
    states = list(connection.execute(f"SELECT {', '.join(names)} FROM bucket"))
    for _, batch in read(connection):
        states += batch.buckets
    found = [dict(zip(names, state, strict=True)) for state in states]
    return [state for state in found if (state["kind"], state["per"]) == (kind, per)][-1]
