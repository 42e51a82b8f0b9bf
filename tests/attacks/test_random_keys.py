"""Keys at random: none is let in, and none makes the relay ask its database."""

import time
from typing import Any

import pytest

from relay.gateway.authentication import KeyIndex
from relay.provisioning.access import KeyCheck
from relay.provisioning.problems import Problem
from relay.secret import new_key
from relay.store.keys import live_keys
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live

PREFIX, ADMIN_PREFIX = "sk-llmapi-", "sk-llmapi-admin-"
OVER_A_SOCKET = 500
MICROSECONDS_EACH = 50
ADMIN_TRIES = 30  # of an address in a minute


async def traced(live: Live) -> list[str]:
    """The statements that are read from the database from now on."""
    seen: list[str] = []
    database: Any = live.app.database
    await database.checkpoint()
    await database._reader.set_trace_callback(seen.append)
    return seen


def about_keys(statements: list[str]) -> list[str]:
    return [one for one in statements if "digest = " in one]


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.alone])]
)
async def test_random_keys_are_refused_from_memory(live: Live, count: int) -> None:
    index = KeyIndex()
    index.replace(await live_keys(live.app.database))
    assert index.find({b"x-api-key": live.key.encode()}) is not None
    started = time.process_time()
    for number in range(count):
        octets = new_key(PREFIX).encode()
        name, value = (
            (b"x-api-key", octets) if number % 2 else (b"authorization", b"Bearer " + octets)
        )
        assert index.find({name: value}) is None
    assert time.process_time() - started < count * MICROSECONDS_EACH / 1e6
    near = live.key[:-1] + ("A" if live.key[-1] != "A" else "B")
    assert index.find({b"x-api-key": near.encode()}) is None


async def test_wrong_keys_of_callers_read_nothing(live: Live) -> None:
    statements = await traced(live)
    async with connected(live.port, wait=30) as (reader, writer):
        for _ in range(OVER_A_SOCKET):
            writer.write(request(new_key(PREFIX)))
            assert (await read_answer(reader))[0] == 401
    assert about_keys(statements) == []


async def test_wrong_admin_keys_read_a_bounded_number(live: Live) -> None:
    """Without the prefix nothing is read; with it, as often as the address has tries."""
    access, statements = KeyCheck(live.app.database), await traced(live)
    for prefix, count, most in ((PREFIX, 5_000, 0), (ADMIN_PREFIX, 5_000, ADMIN_TRIES)):
        statements.clear()
        for number in range(count):
            peer = "192.0.2.1" if most else f"192.0.2.{number % 200}"
            headers = {b"authorization": b"Bearer " + new_key(prefix).encode()}
            with pytest.raises(Problem):
                await access.admit(headers, peer, ADMIN_PREFIX, 1e9)
        assert len(about_keys(statements)) <= most
