"""Several processes keep responses in one database, beside a journal that writes all the time."""

import asyncio
import subprocess
import sys
from pathlib import Path

from relay.store.database import BusyError, Connection, Database
from relay.store.responses import DatabaseResponseStore
from tests.store.test_responses import KEY, LIFE, NOW, database, turn

_WRITER = """
import asyncio, sys
from relay.store.database import Database
from relay.store.responses import DatabaseResponseStore
from tests.store.test_responses import KEY, LIFE, NOW, turn

async def main(path, owner, first, count):
    opened = await Database.open(path)
    store = DatabaseResponseStore(opened, KEY, LIFE)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(first), int(first) + int(count)):
        assert await store.put(turn(owner, number, number - 1), NOW)
        assert await store.conversation(owner, f"resp_{number}", NOW) is not None
    await opened.close()

asyncio.run(main(*sys.argv[1:]))
"""
_EACH = 60


def _write(connection: Connection) -> None:
    connection.execute("UPDATE meanwhile SET number = number + 1")


async def _journal(opened: Database, stop: asyncio.Event) -> int:
    """Write as the journal does, without waiting for a lock; returns how often."""
    opened.open_inline()
    written = 0
    while not stop.is_set():
        try:
            opened.run_inline(_write)
            written += 1
        except BusyError:  # it tries again in a moment
            pass
        await asyncio.sleep(0.001)
    return written


async def test_several_processes_keep_turns_beside_a_journal(tmp_path: Path) -> None:
    opened, owners = await database(tmp_path)
    await opened.write(lambda connection: _create(connection))
    store = DatabaseResponseStore(opened, KEY, LIFE)
    writers = []
    for place, owner in enumerate(owners):
        first = 1 + place * 1000
        await store.put(turn(owner, first - 1), NOW)
        arguments = ("-c", _WRITER, str(tmp_path / "relay.db"), owner, str(first), str(_EACH))
        writers.append(
            await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
    stop = asyncio.Event()
    journal = asyncio.create_task(_journal(opened, stop))
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert await writer.stdout.readline() == b"ready\n"
        writer.stdin.write(b"go\n")
    async with asyncio.timeout(60):
        statuses = [await writer.wait() for writer in writers]
    stop.set()
    assert statuses == [0, 0]
    [(number,)] = await opened.select("SELECT number FROM meanwhile")
    assert number == await journal > 0
    for place, owner in enumerate(owners):
        items = await store.conversation(owner, f"resp_{place * 1000 + _EACH}", NOW)
        assert items is not None
        assert len(items) == 2 * (_EACH + 1)
    await opened.close()


def _create(connection: Connection) -> None:
    connection.execute("CREATE TABLE meanwhile (number)")
    connection.execute("INSERT INTO meanwhile VALUES (0)")
