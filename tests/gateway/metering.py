"""Plans, prices and requests of the metering tests, and the rows that they leave on disk."""

import asyncio
import contextlib
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

from relay.store import balance
from relay.store.database import Database
from relay.store.keys import live_keys
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import EMAIL, MODELS, Live
from tests.fakes.until import until
from tests.quota.rows import balance_of

HOURS = 5 * 3600
FREE = [
    {"requests": 40, "per": "5h"},
    {"requests": 200, "per": "7d"},
    {"requests": 6000, "per": "1m"},
    {"tokens": 80_000_000, "per": "1m"},
]
PRICE = {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}
PRICED = [{**model, "price": PRICE} for model in MODELS]
STREAM = {**BODY, "stream": True}
Answer = tuple[int, dict[bytes, bytes], bytes]


def plan(*limits: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"id": "free", "name": "Free", "limits": list(limits), "max_keys": 100, **more}]


async def ask(
    relay: Live,
    key: str | None = None,
    script: str = "",
    body: bytes | dict[str, Any] = BODY,
    **how: Any,
) -> Answer:
    """One request on a connection of its own."""
    fields = f"x-simulate: {script}\r\n" if script else ""
    async with connected(relay.port) as (reader, writer):
        writer.write(request(key or relay.key, body, fields=fields, **how))
        return await read_answer(reader)


def moment(text: bytes) -> float:
    """A reset field as epoch seconds: RFC 3339 in UTC with milliseconds."""
    stated = text.decode()
    assert len(stated) == len("2026-04-08T12:01:00.000Z")
    assert (stated[10], stated[19], stated[23]) == ("T", ".", "Z")
    return datetime.fromisoformat(stated).timestamp()


def left(fields: dict[bytes, bytes], group: bytes = b"x-ratelimit") -> int:
    return int(fields[group + b"-remaining"])


PACE = b"anthropic-ratelimit-requests"


@contextlib.contextmanager
def beside(relay: Live) -> Iterator[sqlite3.Connection]:
    """The database, from a connection of another process's kind."""
    path = relay.settings.database.path
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


async def settled(relay: Live, count: int) -> list[sqlite3.Row]:
    """The rows of `count` ended requests, once they are on disk."""
    with beside(relay) as connection:

        def there() -> bool:
            ended = connection.execute("SELECT count(*) FROM usage").fetchone()[0]
            return bool(ended == count)

        await until(there)
        return list(connection.execute("SELECT * FROM usage ORDER BY number"))


def refusal(answer: Answer) -> tuple[float, str]:
    """The reset and the message of a 429 that says not to retry."""
    status, fields, body = answer
    assert status == 429
    assert fields[b"x-should-retry"] == b"false"
    assert fields[b"retry-after"].isdigit()
    assert fields[b"anthropic-ratelimit-unified-status"] == b"rejected"
    error = json.loads(body)
    assert error["error"]["type"] == "rate_limit_error"
    assert error["request_id"] == fields[b"request-id"].decode()
    reset = time.time() + int(fields[b"retry-after"])
    return reset, error["error"]["message"]


Connections = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@contextlib.asynccontextmanager
async def crowd(relay: Live, count: int) -> AsyncIterator[Connections]:
    """Hold `count` connections to the relay open."""
    pairs: Connections = []
    try:
        for _ in range(count):
            pairs.append(await asyncio.open_connection("127.0.0.1", relay.port))
        yield pairs
    finally:
        for _, writer in pairs:
            writer.transport.abort()


async def all_at_once(pairs: Connections, *octets: bytes) -> list[Answer]:
    """Send one request on each connection, cycling through `octets`, then read all answers."""
    for number, (_, writer) in enumerate(pairs):
        writer.write(octets[number % len(octets)])
    async with asyncio.timeout(20):
        return await asyncio.gather(*(read_answer(reader) for reader, _ in pairs))


COUNT = {key: value for key, value in BODY.items() if key != "max_tokens"}
CACHED = {
    **BODY,
    "system": [
        {"type": "text", "text": "All of it. " * 900, "cache_control": {"type": "ephemeral"}}
    ],
}


PAID = plan(billing="per-token")
# The highest cost of BODY: its input all written into a cache, its output at max_tokens.
COST = math.ceil(3.75 * (len(json.dumps(BODY)) // 2) + 15 * 100)


async def user_id(relay: Live) -> str:
    [key] = [key for key in await live_keys(relay.app.database) if key.email == EMAIL]
    return key.user_id


async def pay(relay: Live, micro: int) -> None:
    """Credit the account as the command line does: over another connection."""
    other = await Database.open(relay.settings.database.path)
    try:
        await balance.credit(other, await user_id(relay), micro, "cash", time.time())
    finally:
        await other.close()


async def credit(relay: Live, micro: int) -> None:
    """Credit the account, and wait until the relay has seen it."""
    user = await user_id(relay)
    balance_after = balance_of(relay.app.ledger, user) + micro
    await pay(relay, micro)
    await until(lambda: balance_of(relay.app.ledger, user) == balance_after, within=1)
