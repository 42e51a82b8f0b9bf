"""A database that cannot be written while requests are served: refusals, and no loss."""

import asyncio
import contextlib
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay.store.batch import read
from tests.fakes.caller import connected, read_answer, read_head, request
from tests.fakes.live import Live, running_relay
from tests.fakes.until import until

from .metered import LAST_CHUNK, STREAM, bucket_state, opened
from .process import serving

PLAN: list[dict[str, Any]] = [{"id": "free", "limits": [{"requests": 100, "per": "5h"}]}]
HEAL_SECONDS = 5.0  # until new work is served again


async def status_of(port: int, key: str, fields: str = "") -> tuple[int, dict[bytes, bytes], bytes]:
    async with connected(port, wait=15) as (reader, writer):
        writer.write(request(key, fields=fields))
        return await read_answer(reader)


async def pragma(relay: Live, statement: str) -> int:
    """Run it on both of the relay's writing connections; returns the inline one's result."""

    def work(connection: sqlite3.Connection) -> int:
        row = connection.execute(f"PRAGMA {statement}").fetchone()
        return int(row[0]) if row else 0

    database = relay.app.database
    await database.run(work)
    await until(lambda: not database.is_writing)  # upkeep begins with the relay
    return database.run_inline(work)


@contextlib.asynccontextmanager
async def read_only(relay: Live) -> AsyncIterator[None]:
    await pragma(relay, "query_only = 1")
    try:
        yield
    finally:
        await pragma(relay, "query_only = 0")


@contextlib.asynccontextmanager
async def full(relay: Live) -> AsyncIterator[None]:
    """SQLite's error for a full disk, once its free pages are used up."""
    pages = await pragma(relay, "page_count")
    limit = await pragma(relay, f"max_page_count = {pages}")
    assert limit == pages
    path = relay.app.settings.database.path

    def fill(connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("CREATE TABLE ballast (data BLOB)")
            connection.execute("INSERT INTO ballast VALUES (zeroblob(1000000))")
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                connection.execute("INSERT INTO ballast VALUES (zeroblob(100))")

    assert path
    await relay.app.database.run(fill)
    try:
        yield
    finally:
        await pragma(relay, "max_page_count = 1000000000")


@contextlib.asynccontextmanager
async def locked(relay: Live) -> AsyncIterator[None]:
    """Another program holds the write lock."""
    path = relay.app.settings.database.path
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def check_refusal(status: int, fields: dict[bytes, bytes], body: bytes) -> None:
    assert status == 503
    assert b'"overloaded_error"' in body
    assert b"cannot write its journal" in body
    assert b"x-should-retry" not in fields
    assert fields[b"x-ratelimit-limit"] == b"100"


# A lock looks like a slow disk for 3 s, so the longer of the two streams is longer there.
@pytest.mark.parametrize(("fault", "longest"), [(read_only, 80), (full, 80), (locked, 200)])
async def test_without_a_journal_work_is_refused_and_streams_go_on(
    tmp_path: Path, fault: Any, longest: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_relay(tmp_path, plan=PLAN) as relay:
        port, key = relay.port, relay.key

        async def stream(count: int) -> bytes:
            script = f"x-simulate: tokens={count};pace=40\r\n"
            async with connected(port, wait=15) as (reader, writer):
                writer.write(request(key, STREAM, fields=script))
                status, fields = await read_head(reader)
                assert (status, fields[b"x-ratelimit-limit"]) == (200, b"100")
                started.release()
                return await reader.readuntil(LAST_CHUNK)

        started = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(count)) for count in (10, longest)]
        for _ in streams:
            await started.acquire()
        await asyncio.sleep(0.05)
        async with fault(relay):
            # The first answer after the fault is held: it must not be completed.
            first = []
            async with asyncio.timeout(HEAL_SECONDS):
                while relay.app.journal.healthy:
                    first.append(asyncio.create_task(status_of(port, key)))
                    await asyncio.wait(first[-1:], timeout=0.2)
            for _ in range(3):
                check_refusal(*await status_of(port, key))
            # This one was on disk before the fault, so it ends normally.
            assert (await streams[0]).count(b"message_stop") == 2
            async with connected(port) as (reader, writer):
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await read_answer(reader))[0] == 503
            held = [task for task in first if not task.done()]
            # The last page may have had room for the admission, but not for its settlement.
            assert held or fault is full
        healed = time.monotonic()
        *earlier, last = [await task for task in first]
        assert {status for status, _, _ in earlier} <= {200}
        if last[0] != 200:  # the journal failed before this request came to it
            check_refusal(*last)
            first.pop()
        async with asyncio.timeout(HEAL_SECONDS):
            while (await status_of(port, key))[0] != 200:  # noqa: ASYNC110 - each asks anew
                await asyncio.sleep(0.02)
        print(f"{fault.__name__}: healed after {time.monotonic() - healed:.2f} s")
        assert (await streams[1]).count(b"message_stop") == 2
        count = len(streams) + len(first) + 1
        await until(lambda: rules(tmp_path) == {"reported": count})
        with opened(tmp_path) as connection:
            used = bucket_state(connection, "requests", 18000)["used"]
        assert used == count  # refused work costs nothing
    assert "new work is refused: the journal cannot be written" in caplog.text
    assert "the journal can be written again" in caplog.text


def rules(folder: Path) -> dict[str | None, int]:
    with opened(folder) as connection:
        return dict(
            map(tuple, connection.execute("SELECT rule, count(*) FROM usage GROUP BY rule"))
        )


async def test_an_answer_without_a_durable_reservation_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.journal.GRACE_SECONDS", 1.0)
    async with running_relay(tmp_path, plan=PLAN) as relay:
        async with read_only(relay):
            await two_answers_that_wait(relay)
        # Both are written later: the answer that was sent counts, the refusal does not.
        await until(lambda: rules(tmp_path) == {"partial": 1, "refunded": 1})
        with opened(tmp_path) as connection:
            used = bucket_state(connection, "requests", 18000)["used"]
            settled = connection.execute("SELECT status, outcome FROM usage ORDER BY status")
            outcomes = [(row["status"], row["outcome"].partition(":")[0]) for row in settled]
        assert used == 1
        assert outcomes == [(200, "refused"), (503, "refused")]


async def two_answers_that_wait(relay: Live) -> None:
    """Both are admitted before the journal is known to fail. The stream is cut in the end; the
    document has not started and becomes a refusal."""
    port, key = relay.port, relay.key
    async with connected(port, wait=15) as stream, connected(port, wait=15) as document:
        sent = time.monotonic()
        stream[1].write(request(key, STREAM))
        document[1].write(request(key))
        assert (await read_head(stream[0]))[0] == 200
        seen = await stream[0].read(-1)
        assert b"content_block_delta" in seen  # events were passed on
        assert LAST_CHUNK not in seen
        status, fields, body = await read_answer(document[0])
        assert 1 < time.monotonic() - sent < 3
    assert status == 503
    assert b"overloaded_error" in body
    assert fields[b"x-ratelimit-remaining"]


async def test_the_process_survives_a_full_disk(metered: tuple[Path, str]) -> None:
    """A limit on file sizes: writes fail as on a full disk, and then succeed again."""
    folder, key = metered
    with serving(folder) as running:
        process = psutil.Process(running.process.pid)
        for _ in range(3):
            assert (await status_of(running.port, key))[0] == 200
        size = max(file.stat().st_size for file in folder.iterdir())
        hard = process.rlimit(psutil.RLIMIT_FSIZE)[1]
        process.rlimit(psutil.RLIMIT_FSIZE, (size, hard))
        refused, given = 0, []
        async with asyncio.timeout(HEAL_SECONDS):
            while refused < 3:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        given.append((await status_of(running.port, key))[0])
                        refused += given[-1] == 503
        assert set(given) <= {200, 503}
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        healed = time.monotonic()
        async with asyncio.timeout(HEAL_SECONDS):
            while (await status_of(running.port, key))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        print(f"full disk: healed after {time.monotonic() - healed:.2f} s")
        assert running.process.poll() is None
        running.signal()
        assert await running.exited(5) == 0
    with opened(folder) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        rows = list(connection.execute("SELECT rule FROM usage"))
        [[used]] = connection.execute("SELECT used FROM bucket WHERE kind = 'requests'")
    assert used == sum(row["rule"] != "refunded" for row in rows)
    assert len(rows) >= given.count(200) + 4


def test_a_small_disk_refuses_and_recovers(metered: tuple[Path, str], tmp_path: Path) -> None:
    """A real file system of one mebibyte, if this machine allows it."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be made here")
    folder, key = metered
    try:
        text = (folder / "relay.toml").read_text()
        (folder / "relay.toml").write_text(f'[database]\npath = "{small / "relay.db"}"\n{text}')
        with (
            contextlib.closing(sqlite3.connect(folder / "relay.db")) as source,
            contextlib.closing(sqlite3.connect(small / "relay.db")) as target,
        ):
            source.backup(target)

        async def story() -> None:
            with serving(folder) as running:
                assert (await status_of(running.port, key))[0] == 200
                ballast = small / "ballast"
                with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while file.write(b"0" * 4096):
                        pass
                assert not shutil.disk_usage(small).free
                status = 200
                async with asyncio.timeout(20):
                    while status == 200:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.5):
                                status = (await status_of(running.port, key))[0]
                assert status == 503
                ballast.unlink()
                healed = time.monotonic()
                async with asyncio.timeout(HEAL_SECONDS):
                    while (await status_of(running.port, key))[0] != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                print(f"small disk: healed after {time.monotonic() - healed:.2f} s")
                running.signal()
                assert await running.exited(5) == 0

        asyncio.run(story())
        with opened(small) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert connection.execute("SELECT * FROM running").fetchall() == []
            assert list(read(connection)) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
