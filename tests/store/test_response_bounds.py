"""What one account keeps is bounded, and pushes out nothing of another's."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from sys import getsizeof

import pytest

from relay.store.database import Database
from relay.store.responses import (
    Bounds,
    DatabaseResponseStore,
    MemoryResponseStore,
    ResponseStore,
    StoredResponse,
)
from tests.fakes.memory import peak_octets
from tests.store.test_responses import KEY, LIFE, NOW, database

KIB, MIB = 1024, 1024 * 1024
Opened = tuple[Callable[[Bounds], ResponseStore], str, str]


@pytest.fixture(params=["memory", "database"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """Makes a store with these bounds, and two accounts."""
    file, (ada, ben) = await database(tmp_path)
    if request.param == "memory":
        yield (lambda bounds: MemoryResponseStore(LIFE, 64 * MIB, bounds)), ada, ben
    else:
        yield (lambda bounds: DatabaseResponseStore(file, KEY, LIFE, bounds)), ada, ben
    await file.close()


def turn(owner: str, number: int, size: int, previous: int | None = None) -> StoredResponse:
    before = None if previous is None else f"resp_{owner}_{previous}"
    return StoredResponse(
        f"resp_{owner}_{number}", owner, before, NOW, b"{}", [b'"%b"' % (b"x" * size)], [b"1"]
    )


async def kept(store: ResponseStore, owner: str, last: int, now: float) -> list[int]:
    """The numbers of an account's turns that are there."""
    return [
        number
        for number in range(last)
        if await store.get(owner, f"resp_{owner}_{number}", now) is not None
    ]


@pytest.mark.parametrize(
    "bounds", [Bounds(account=64 * KIB), Bounds(account_turns=6)], ids=["octets", "turns"]
)
async def test_the_oldest_turns_of_the_same_account_go_first(
    opened: Opened, bounds: Bounds
) -> None:
    make, ada, ben = opened
    store = make(bounds)
    assert await store.put(turn(ben, 0, 10 * KIB), NOW - 100)
    for number in range(20):
        assert await store.put(turn(ada, number, 10 * KIB), NOW + number)
        if number == 4:  # its use makes the first one the latest
            assert await store.conversation(ada, f"resp_{ada}_0", NOW + 500) is not None
        if number == 6:
            await store.delete(ada, f"resp_{ada}_0")
    left = await kept(store, ada, 20, NOW + 20)
    assert left == list(range(20 - len(left), 20))
    assert 5 <= len(left) <= 6
    assert await kept(store, ben, 1, NOW + 20) == [0]


async def test_the_account_with_the_most_gives_way_in_a_full_memory() -> None:
    store = MemoryResponseStore(LIFE, 4 * MIB, Bounds())
    greedy = ("ada", "ben", "cy", "di")
    for number in range(30):
        for owner in greedy:
            assert await store.put(turn(owner, number, 100 * KIB), NOW)
    honest = ("ed", "flo", "gus")
    for owner in honest:
        assert await store.put(turn(owner, 0, 300 * KIB), NOW)
    for number in range(30, 40):
        for owner in greedy:
            assert await store.put(turn(owner, number, 100 * KIB), NOW)
    assert 3 * MIB < store.octets <= 4 * MIB
    assert [await kept(store, owner, 1, NOW) for owner in honest] == [[0]] * 3
    assert [(await kept(store, owner, 40, NOW))[-1] for owner in greedy] == [39] * 4


async def test_items_count_at_their_real_size_in_memory() -> None:
    store = MemoryResponseStore(LIFE, 64 * MIB)
    items = [b'{"type":"zz%d"}' % number for number in range(95_000)]
    await store.put(StoredResponse("resp_1", "ada", None, NOW, b"{}", items, []), NOW)
    assert store.octets >= sum(getsizeof(item) + 8 for item in items)


async def test_a_conversation_is_kept_up_to_its_bound(opened: Opened) -> None:
    make, ada, _ = opened
    store = make(Bounds(conversation=100 * KIB))
    assert await store.put(turn(ada, 0, 40 * KIB), NOW)
    assert await store.put(turn(ada, 1, 40 * KIB, 0), NOW)
    assert not await store.put(turn(ada, 2, 40 * KIB, 1), NOW)
    assert not await store.put(turn(ada, 3, 140 * KIB), NOW)
    assert await kept(store, ada, 4, NOW) == [0, 1]
    assert await store.conversation(ada, f"resp_{ada}_1", NOW) is not None
    assert await store.put(turn(ada, 4, 40 * KIB, 7), NOW)  # what it continues is gone


async def test_a_longer_conversation_is_not_loaded(tmp_path: Path) -> None:
    file, (ada, _) = await database(tmp_path)
    before = DatabaseResponseStore(file, KEY, LIFE)
    for number in range(8):
        await before.put(turn(ada, number, MIB, number - 1 if number else None), NOW)
    store = DatabaseResponseStore(file, KEY, LIFE, Bounds(conversation=4 * MIB))
    assert await store.conversation(ada, f"resp_{ada}_7", NOW) is None
    assert await store.conversation(ada, f"resp_{ada}_2", NOW) is not None
    await file.close()


async def test_going_on_from_a_turn_waits_for_no_writer(tmp_path: Path) -> None:
    file, (ada, _) = await database(tmp_path)
    store = DatabaseResponseStore(file, KEY, LIFE)
    await store.put(turn(ada, 0, MIB), NOW)
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        started = time.monotonic()
        for _ in range(3):
            assert await store.conversation(ada, f"resp_{ada}_0", NOW + 1) is not None
        assert time.monotonic() - started < 1
    finally:
        other.execute("ROLLBACK")
        other.close()
    await file.close()


async def test_a_writer_waits_for_no_conversation(tmp_path: Path) -> None:
    """Twenty requests that loaded 242 MiB kept the journal from writing for 13 s."""
    file, (ada, _) = await database(tmp_path)
    store = DatabaseResponseStore(file, KEY, LIFE)
    for number in range(15):
        assert await store.put(turn(ada, number, 2 * MIB, number - 1 if number else None), NOW)
    loading = [
        asyncio.create_task(store.conversation(ada, f"resp_{ada}_14", NOW + LIFE / 2))
        for _ in range(5)
    ]
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None, timeout=2)
    longest = 0.0
    while not all(task.done() for task in loading):
        started = time.monotonic()
        other.execute("INSERT OR REPLACE INTO value VALUES ('x', x'00')")
        longest = max(longest, time.monotonic() - started)
        await asyncio.sleep(0.01)
    assert all(task.result() for task in loading)
    assert longest < 2
    other.close()
    await file.close()


def test_what_a_store_refuses_costs_nothing() -> None:
    store = MemoryResponseStore(LIFE, MIB)
    big = turn("ada", 0, 4 * MIB)

    def put() -> None:
        asyncio.run(store.put(big, NOW))

    put()
    assert store.octets == 0
    assert peak_octets(put) < MIB


async def test_old_files_get_the_new_index(tmp_path: Path) -> None:
    file, _ = await database(tmp_path)
    rows = await file.select("SELECT name FROM sqlite_schema WHERE name = 'response_by_owner'")
    assert rows == [("response_by_owner",)]
    await file.close()
    assert isinstance(file, Database)
