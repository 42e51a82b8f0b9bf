import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.store import balance, keys, usage, users
from relay.store.change_watch import watch
from relay.store.database import Database
from relay.store.keys import LiveKey
from relay.store.recovery import restore
from tests.store.entries import NOON, admission, journalled

INTERVAL = 0.01


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Database]:
    """Another process, as far as SQLite is concerned."""
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


class Listener:
    """Collects the calls of a watch."""

    def __init__(self, database: Database) -> None:
        self.calls: asyncio.Queue[list[LiveKey]] = asyncio.Queue()

        async def read() -> None:
            self.calls.put_nowait(await keys.live_keys(database))

        self.task = asyncio.create_task(watch(database, INTERVAL, read))

    async def next(self) -> list[LiveKey]:
        return await asyncio.wait_for(self.calls.get(), 5)

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def listener(server: Database) -> AsyncIterator[Listener]:
    listener = Listener(server)
    yield listener
    await listener.stop()


async def add_key(database: Database) -> str:
    user = await users.create_user(database, email="a@b.c", plan="p", is_admin=False, now=1.0)
    assert user is not None
    key = await keys.create_key(database, keys.NewKey(user, "", b"d" * 32, ""), max_keys=1, now=1.0)
    assert key is not None
    return key.id


async def until(listener: Listener, wanted: list[tuple[str, str, bool]]) -> None:
    """User and key come in two transactions, so a call may have one without the other."""
    while [(key.key_id, key.plan, key.suspended) for key in await listener.next()] != wanted:
        pass


async def test_the_first_call_has_the_keys_that_exist(server: Database, shell: Database) -> None:
    key_id = await add_key(shell)
    listener = Listener(server)
    assert [key.key_id for key in await listener.next()] == [key_id]
    await listener.stop()


async def test_every_change_by_another_process_is_noticed(
    shell: Database, listener: Listener
) -> None:
    assert await listener.next() == []
    key_id = await add_key(shell)
    await until(listener, [(key_id, "p", False)])
    await users.suspend(shell, "a@b.c", 2.0)
    await until(listener, [(key_id, "p", True)])
    await users.set_plan(shell, "a@b.c", "q")
    await until(listener, [(key_id, "q", True)])
    await keys.revoke_key(shell, key_id, 3.0)
    await until(listener, [])


async def test_changes_by_its_own_process_are_noticed_too(
    server: Database, listener: Listener
) -> None:
    assert await listener.next() == []
    key_id = await add_key(server)
    await until(listener, [(key_id, "p", False)])
    await users.suspend(server, "a@b.c", 2.0)
    await until(listener, [(key_id, "p", True)])
    [live] = await keys.live_keys(server)
    await balance.credit(server, live.user_id, 5, "", NOON)
    assert [key.credited for key in await listener.next()] == [5]


async def test_journal_writes_are_not_changes(
    server: Database, shell: Database, listener: Listener
) -> None:
    """Requests, charges, sums, limits and pruning do not make it read the keys."""
    await listener.next()
    before = await keys.revision(server)
    requests = [admission(billed_micro=500) for _ in range(20)]
    await journalled(server, *requests, running=[admission()])
    await restore(server, NOON)
    await usage.prune(shell, 1, NOON + 1e6)
    assert await keys.revision(server) == before
    await users.create_user(shell, email="a@b.c", plan="p", is_admin=False, now=1.0)
    await listener.next()  # for that, and for nothing before
    assert listener.calls.empty()


async def test_without_changes_there_are_no_calls(listener: Listener) -> None:
    await listener.next()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.calls.get(), 10 * INTERVAL)


class Log(logging.Handler):
    """Lets a test wait for the next message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.put_nowait(record.getMessage())

    async def next(self) -> str:
        return await asyncio.wait_for(self.messages.get(), 5)


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    logging.getLogger("relay.store.change_watch").addHandler(log)
    yield log
    logging.getLogger("relay.store.change_watch").removeHandler(log)


async def test_the_watch_goes_on_after_the_database_failed(
    shell: Database, listener: Listener, log: Log
) -> None:
    await listener.next()
    await shell.write(lambda c: c.execute("ALTER TABLE revision RENAME TO lost"))
    failed = await log.next()
    assert "not seen for now" in failed
    assert "no such table" in failed
    await asyncio.sleep(5 * INTERVAL)  # fails again and again
    assert listener.calls.empty()
    await shell.write(lambda c: c.execute("ALTER TABLE lost RENAME TO revision"))
    assert "seen again" in await log.next()
    assert log.messages.empty()  # one message when it fails and one when it works again


async def test_a_listener_that_fails_is_called_again(server: Database, log: Log) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def fail_once() -> None:
        calls.put_nowait(None)
        if calls.qsize() == 1:
            raise LookupError("a mistake in the listener")

    watching = asyncio.create_task(watch(server, INTERVAL, fail_once))
    assert "not seen for now" in await log.next()
    assert "seen again" in await log.next()
    assert calls.qsize() == 2
    watching.cancel()
