"""kill -9 and a database that cannot be written, while requests are served: nothing is lost."""

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay.store import balance
from relay.store.database import Database
from relay.store.keys import live_keys
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import Live, running_relay
from tests.fakes.until import until

from .conftest import EMAIL
from .process import Running, data, serving, write_settings

STREAM = {**BODY, "stream": True}
SIZE = 1_000_000
PAID_IN = 900_000 * 1_000_000  # micro-dollars: more than can be used
LIMITS = f"""
limits = [{{ requests = {SIZE}, per = "5h" }}, {{ tokens = 2_000_000_000, per = "1h" }}]
billing = "per-token"
"""
PRICE = "price = { input = 3, output = 15, cache_read = 0.3, cache_write = 3.75 }"
WHOLE_CHUNKS = b"\r\n0\r\n\r\n"
SCRIPTS = ["", "tokens=5", "tokens=40;pace=400", "delay=0.02", "tokens=30;split=7", "thinking=1"]
CALLERS = 24


@pytest.fixture
def metered(simulator: str, tmp_path: Path) -> tuple[Path, str]:
    """A folder with a plan that counts and bills, and the key of an account that has paid."""
    write_settings(tmp_path, simulator)
    text = (tmp_path / "relay.toml").read_text()
    text = text.replace('id = "claude-sonnet-4-7"\n', f'id = "claude-sonnet-4-7"\n{PRICE}\n')
    (tmp_path / "relay.toml").write_text(text + LIMITS)
    data(tmp_path, "user", "create", EMAIL)
    key = data(tmp_path, "key", "create", "--user", EMAIL)["key"]

    async def pay() -> None:
        database = await Database.open(tmp_path / "relay.db")
        [account] = await live_keys(database)
        await balance.credit(database, account.user_id, PAID_IN, "cash", time.time())
        await database.close()

    asyncio.run(pay())
    return tmp_path, key


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / "relay.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


# --- kill -9 ------------------------------------------------------------------------


@dataclass
class Seen:
    """What the callers of one process have seen."""

    whole: list[str] = field(default_factory=list)  # request ids
    begun: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)


async def one_caller(port: int, key: str, seen: Seen, dice: random.Random) -> None:
    """Ask and ask until the relay is gone."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        try:
            while True:
                script = dice.choice(SCRIPTS)
                fields = f"x-simulate: {script}\r\n" if script else ""
                body = STREAM if dice.random() < 0.5 else BODY
                writer.write(request(key, body, fields=fields))
                status, told = await read_head(reader)
                number = told[b"request-id"].decode()
                seen.begun.add(number)
                if b"content-length" in told:
                    await reader.readexactly(int(told[b"content-length"]))
                else:
                    await reader.readuntil(WHOLE_CHUNKS)
                seen.whole.append(number)
                seen.statuses[status] += 1
        finally:
            writer.transport.abort()


async def left(port: int, key: str) -> int:
    """What the plan has left, asked without using any of it."""
    async with connected(port) as (reader, writer):
        writer.write(request(key, b"", method="GET", target="/v1/models"))
        status, told, _ = await read_answer(reader)
        assert status == 200
        return int(told[b"x-ratelimit-remaining"])


async def killed_at_random(running: Running, key: str, dice: random.Random) -> Seen:
    """Load, and after a moment the end."""
    seen = Seen()
    callers = [
        asyncio.create_task(one_caller(running.port, key, seen, random.Random(dice.random())))
        for _ in range(CALLERS)
    ]
    await asyncio.sleep(0.02 + dice.random() ** 2 * 0.5)
    os.kill(running.process.pid, signal.SIGKILL)
    await running.exited(2)
    async with asyncio.timeout(5):
        await asyncio.gather(*callers)
    return seen


def present(connection: sqlite3.Connection, kind: str, per: int) -> dict[str, Any]:
    """A limit's last state: in a batch, if it was not folded yet."""
    names = ("scope", "owner", "kind", "per", "refill", "size", "used", "moment")
    states = list(connection.execute(f"SELECT {', '.join(names)} FROM bucket"))
    for (text,) in connection.execute("SELECT buckets FROM batch ORDER BY number"):
        states += json.loads(text)
    found = [dict(zip(names, state, strict=True)) for state in states]
    return [state for state in found if (state["kind"], state["per"]) == (kind, per)][-1]


def adds_up(folder: Path, seen: Seen) -> int:
    """Check the database of a relay that was killed and started again; the requests it knows."""
    with opened(folder) as connection:
        [integrity] = connection.execute("PRAGMA integrity_check").fetchone()
        assert integrity == "ok"
        rows = {row["id"]: row for row in connection.execute("SELECT * FROM usage")}
        lost = [number for number in seen.whole if number not in rows]
        assert not lost, f"{len(lost)} of {len(seen.whole)} answers that were seen whole are lost"
        assert not connection.execute(
            "SELECT json_extract(value, '$[0]') FROM batch, json_each(opened)"
        ).fetchall()
        assert {row["rule"] for row in rows.values()} <= {
            *("reported", "partial", "refunded", "crashed"),
        }
        bucket = present(connection, "requests", 18000)
        counted = [row for row in rows.values() if row["rule"] != "refunded"]
        assert bucket["used"] == len(counted)
        cost = sum(row["cost_micro"] for row in rows.values())
        [account] = connection.execute("SELECT * FROM balance")
        assert (account["credited"], account["charged"]) == (PAID_IN, cost)
        [[told]] = connection.execute("SELECT sum(amount_micro) FROM statement")
        assert told == account["micro"] == PAID_IN - cost
        return len(counted)


async def kill_again_and_again(folder: Path, key: str, rounds: int, seconds: float) -> None:
    """At most so many rounds in so many seconds, and at least 8."""
    dice = random.Random()
    begun = time.monotonic()
    ready, whole, crashed = [], 0, 0
    count = 0
    running: Running
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(folder))
        while count < rounds and (count < 8 or time.monotonic() - begun < seconds):
            count += 1
            seen = await killed_at_random(running, key, dice)
            assert set(seen.statuses) <= {200}
            whole += len(seen.whole)
            running = stack.enter_context(serving(folder))
            assert running.said.startswith("relay"), running.said
            now_left = await left(running.port, key)
            ready.append(running.ready_after)
            counted = adds_up(folder, seen)
            assert now_left == SIZE - counted
            assert counted >= whole  # what was granted stays granted
            with opened(folder) as connection:
                [[crashed]] = connection.execute(
                    "SELECT count(*) FROM usage WHERE rule = 'crashed'"
                )
    print(
        f"{count} kills in {time.monotonic() - begun:.1f} s: {whole} answers seen whole, "
        f"{crashed} requests interrupted; ready after {statistics.median(ready):.2f} s, "
        f"at worst {max(ready):.2f} s"
    )
    assert whole > 10 * count
    assert crashed
    assert statistics.median(ready) < 1


async def test_a_kill_loses_no_answer_that_was_received_completely(
    metered: tuple[Path, str],
) -> None:
    await kill_again_and_again(*metered, rounds=12, seconds=8)


@pytest.mark.long
async def test_many_kills_lose_no_answer(metered: tuple[Path, str]) -> None:
    await kill_again_and_again(*metered, rounds=25, seconds=120)


# --- a database that cannot be written ----------------------------------------------

PLAN: list[dict[str, Any]] = [{"id": "free", "limits": [{"requests": 100, "per": "5h"}]}]
HEALED = 5.0  # seconds in which new work is served again


async def status_of(port: int, key: str, fields: str = "") -> tuple[int, dict[bytes, bytes], bytes]:
    async with connected(port, wait=15) as (reader, writer):
        writer.write(request(key, fields=fields))
        return await read_answer(reader)


async def pragma(relay: Live, statement: str) -> int:
    """Run it on the relay's own connections; what it returns on the one that is at once."""

    def work(connection: sqlite3.Connection) -> int:
        row = connection.execute(f"PRAGMA {statement}").fetchone()
        return int(row[0]) if row else 0

    await relay.app.database.run(work)
    return relay.app.database.at_once(work)


@contextlib.asynccontextmanager
async def read_only(relay: Live) -> AsyncIterator[None]:
    await pragma(relay, "query_only = 1")
    try:
        yield
    finally:
        await pragma(relay, "query_only = 0")


@contextlib.asynccontextmanager
async def full(relay: Live) -> AsyncIterator[None]:
    """As SQLite tells of a full disk, once the pages that it has are used up."""
    pages = await pragma(relay, "page_count")
    most = await pragma(relay, f"max_page_count = {pages}")
    assert most == pages
    path = relay.app._settings.database.path

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
    """By another program that does not let go of it."""
    path = relay.app._settings.database.path
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


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
                begun.release()
                return await reader.readuntil(WHOLE_CHUNKS)

        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(count)) for count in (10, longest)]
        for _ in streams:
            await begun.acquire()
        await asyncio.sleep(0.05)
        async with fault(relay):
            # Whoever finds it out is held: that answer must not be ended.
            first = []
            async with asyncio.timeout(HEALED):
                while relay.app.journal.healthy:
                    first.append(asyncio.create_task(status_of(port, key)))
                    await asyncio.wait(first[-1:], timeout=0.2)
            for _ in range(3):
                status, fields, body = await status_of(port, key)
                assert status == 503
                assert b'"overloaded_error"' in body
                assert b"cannot write its journal" in body
                assert b"x-should-retry" not in fields
                assert fields[b"x-ratelimit-limit"] == b"100"
            # one that ends meanwhile was on disk before, so it ends well
            assert (await streams[0]).count(b"message_stop") == 2
            async with connected(port) as (reader, writer):
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await read_answer(reader))[0] == 503
            held = [task for task in first if not task.done()]
            # The last page may just have had room for it, and not for what it used.
            assert held or fault is full
        healed = time.monotonic()
        assert {(await task)[0] for task in first} == {200}
        async with asyncio.timeout(HEALED):
            while (await status_of(port, key))[0] != 200:  # noqa: ASYNC110 - each asks anew
                await asyncio.sleep(0.02)
        print(f"{fault.__name__}: healed after {time.monotonic() - healed:.2f} s")
        assert (await streams[1]).count(b"message_stop") == 2
        count = len(streams) + len(first) + 1
        await until(lambda: rules(tmp_path) == {"reported": count})
        with opened(tmp_path) as connection:
            used = present(connection, "requests", 18000)["used"]
        assert used == count  # refused work has cost nothing
    assert "new work is refused, for the journal cannot be written" in caplog.text
    assert "the journal is written again" in caplog.text


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
        # Both are written later all the same: what was given counts, the refused does not.
        await until(lambda: rules(tmp_path) == {"partial": 1, "refunded": 1})
        with opened(tmp_path) as connection:
            used = present(connection, "requests", 18000)["used"]
            told = connection.execute("SELECT status, outcome FROM usage ORDER BY status")
            outcomes = [(row["status"], row["outcome"].partition(":")[0]) for row in told]
        assert used == 1
        assert outcomes == [(200, "refused"), (503, "refused")]


async def two_answers_that_wait(relay: Live) -> None:
    """Both are admitted before the journal is known to fail.

    A stream is cut in the end, a document that has not begun becomes a refusal."""
    port, key = relay.port, relay.key
    async with connected(port, wait=15) as stream, connected(port, wait=15) as document:
        begun = time.monotonic()
        stream[1].write(request(key, STREAM))
        document[1].write(request(key))
        assert (await read_head(stream[0]))[0] == 200
        seen = await stream[0].read(-1)
        assert b"content_block_delta" in seen  # it came as it came
        assert WHOLE_CHUNKS not in seen
        status, fields, body = await read_answer(document[0])
        assert 1 < time.monotonic() - begun < 3
    assert status == 503
    assert b"overloaded_error" in body
    assert fields[b"x-ratelimit-remaining"]


async def test_the_process_survives_a_full_disk(metered: tuple[Path, str]) -> None:
    """Files may not grow any more: writes fail as on a full disk, and then succeed again."""
    folder, key = metered
    with serving(folder) as running:
        process = psutil.Process(running.process.pid)
        for _ in range(3):
            assert (await status_of(running.port, key))[0] == 200
        size = max(file.stat().st_size for file in folder.iterdir())
        hard = process.rlimit(psutil.RLIMIT_FSIZE)[1]
        process.rlimit(psutil.RLIMIT_FSIZE, (size, hard))
        refused, given = 0, []
        async with asyncio.timeout(HEALED):
            while refused < 3:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        given.append((await status_of(running.port, key))[0])
                        refused += given[-1] == 503
        assert set(given) <= {200, 503}
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        healed = time.monotonic()
        async with asyncio.timeout(HEALED):
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
    """The real thing, where this machine lets us make a file system."""
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
                async with asyncio.timeout(HEALED):
                    while (await status_of(running.port, key))[0] != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                print(f"small disk: healed after {time.monotonic() - healed:.2f} s")
                running.signal()
                assert await running.exited(5) == 0

        asyncio.run(story())
        with opened(small) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            [[unfolded]] = connection.execute("SELECT count(*) FROM batch")
            assert unfolded == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)
