"""Responses kept in the owner's memory: every process goes on from any of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from relay.store.database import StoreError
from relay.store.responses import Bounds, MemoryResponseStore
from relay.workers.inner_server import InnerServer
from relay.workers.remote_responses import RemoteResponseStore
from tests.fakes.until import until
from tests.store.test_responses import LIFE, NOW, turn
from tests.workers.remote import remote_store

ITEM = bytes(1_000_000)


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[tuple[RemoteResponseStore, InnerServer]]:
    """A worker's store, and the owner's server."""
    async with remote_store(MemoryResponseStore(LIFE, 1 << 30), tmp_path) as opened:
        yield opened


async def test_a_worker_finds_what_the_owner_keeps(tmp_path: Path) -> None:
    kept = MemoryResponseStore(LIFE, 1 << 30)
    async with remote_store(kept, tmp_path) as (store, _):
        await kept.put(turn("ada", 1), NOW)
        await store.put(turn("ada", 2, 1), NOW)
        assert await store.conversation("ada", "resp_2", NOW) == [
            *turn("ada", 1).input, *turn("ada", 1).output,
            *turn("ada", 2).input, *turn("ada", 2).output,
        ]  # fmt: skip
        assert await kept.get("ada", "resp_2", NOW) == turn("ada", 2, 1)


async def test_a_long_conversation_holds_up_no_loop(
    remote: tuple[RemoteResponseStore, InnerServer],
) -> None:
    store, _ = remote
    for number in range(1, 4):
        made = turn("ada", number, number - 1 or None)
        assert await store.put(replace(made, input=[ITEM] * 8), NOW)
    longest = 0.0
    asking = asyncio.ensure_future(store.conversation("ada", "resp_3", NOW))
    while not asking.done():
        before = time.process_time()
        await asyncio.sleep(0)
        longest = max(longest, time.process_time() - before)
    items = await asking
    assert items is not None
    assert sum(map(len, items)) > 24_000_000
    assert longest < 0.025  # of both processes, which are one here


async def test_a_turn_beyond_the_bound_is_not_even_sent(tmp_path: Path) -> None:
    kept = MemoryResponseStore(LIFE, 1 << 30, Bounds(conversation=100_000))
    async with remote_store(kept, tmp_path) as (store, inner):
        made = turn("ada", 1)
        assert not await store.put(replace(made, input=[ITEM]), NOW)
        assert not inner.connections


async def test_without_the_owner_the_store_cannot_be_used(
    remote: tuple[RemoteResponseStore, InnerServer],
) -> None:
    store, inner = remote
    await store.put(turn("ada", 1), NOW)
    inner.close()
    await until(lambda: not inner.connections)
    for ask in (store.get("ada", "resp_1", NOW), store.put(turn("ada", 2), NOW)):
        with pytest.raises(StoreError):
            await ask


async def test_a_call_that_fails_harms_no_later_one(
    remote: tuple[RemoteResponseStore, InnerServer], caplog: pytest.LogCaptureFixture
) -> None:
    store, inner = remote
    await store.put(turn("ada", 1), NOW)
    for _ in range(3):
        with pytest.raises(StoreError):
            await store.get(1, "resp_1", NOW)  # type: ignore[arg-type]
    assert await store.get("ada", "resp_1", NOW) == turn("ada", 1)
    assert len(inner.connections) == 1


async def test_a_call_that_is_given_up_harms_no_later_one(
    remote: tuple[RemoteResponseStore, InnerServer],
) -> None:
    store, _ = remote
    await store.put(turn("ada", 1), NOW)
    for _ in range(20):
        given_up = asyncio.ensure_future(store.get("ada", "resp_2", NOW))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await store.get("ada", "resp_1", NOW) == turn("ada", 1)
