"""While every upstream is busy requests wait, in turns between callers, and not for ever."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.accounts import keys, users
from relay.app import App
from relay.pool.vendor_errors import Scope, Verdict
from relay.store.keys import live_keys
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import EMAIL
from tests.fakes.pool import MODEL, Pool, Told, refusing, running_pool
from tests.fakes.until import until

ONE = {"a": {"max_concurrency": 1}}


def waiting(pool: Pool) -> int:
    """How many wait for an upstream, as the pool shows it."""
    found = re.search(r"(\d+) wait>$", repr(pool.relay.app.upstreams))
    assert found is not None
    return int(found[1])


def said(text: str) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}]}


async def new_key(pool: Pool, email: str = EMAIL) -> str:
    app = pool.relay.app
    if email != EMAIL:
        await users.create(
            app.database, app._settings, email, plan=None, is_admin=False, now=time.time()
        )
    issued = await keys.create(
        app.database, app._settings, email, keys.KeyOptions("more"), now=time.time()
    )
    app.callers.replace(await live_keys(app.database))
    return issued.key.reveal()


class Asking:
    """Requests on their way; `ended` has their names in the order in which they were answered."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tasks: list[asyncio.Task[Told]] = []
        self.ended: list[str] = []

    async def send(self, name: str, **how: Any) -> None:
        """One more, and return once it waits or is at an upstream."""
        before = self._there()
        self._tasks.append(asyncio.create_task(self._ask(name, how)))
        await until(lambda: self._there() > before or self._tasks[-1].done())

    def _there(self) -> int:
        """Requests that have come, wherever they are now."""
        return waiting(self._pool) + sum(len(node.came) for node in self._pool.nodes.values())

    async def _ask(self, name: str, how: dict[str, Any]) -> Told:
        told = await self._pool.ask(said(name), **how)
        self.ended.append(name)
        return told

    async def all(self) -> list[Told]:
        return await asyncio.gather(*self._tasks)


@asynccontextmanager
async def full(folder: Path, **sections: Any) -> AsyncIterator[tuple[Pool, Asking]]:
    """One upstream that takes one request at a time, and has one that is not let in yet."""
    async with running_pool(folder, ONE, **sections) as pool:
        pool["a"].hold()
        asking = Asking(pool)
        await asking.send("first")
        yield pool, asking


async def test_a_request_above_the_cap_waits_and_is_sent_when_a_place_is_free(
    tmp_path: Path,
) -> None:
    async with full(tmp_path) as (pool, asking):
        for name in ("second", "third"):
            await asking.send(name)
        assert repr(pool.relay.app.upstreams) == "<Upstreams a: free, 1/1 in flight; 2 wait>"
        assert (pool["a"].held, len(pool["a"].came)) == (1, 1)
        pool["a"].let(3)
        assert [told.status for told in await asking.all()] == [200] * 3
        assert asking.ended == ["first", "second", "third"]
        assert pool["a"].most_held == 1
        assert repr(pool.relay.app.upstreams) == "<Upstreams a: free, 0/1 in flight; 0 wait>"


async def test_a_caller_with_many_waiting_does_not_keep_another_from_its_turn(
    tmp_path: Path,
) -> None:
    async with full(tmp_path) as (pool, asking):
        other = await new_key(pool, "grace@example.com")
        for number in range(50):
            await asking.send(f"A{number}")
        for number in range(3):
            await asking.send(f"B{number}", key=other)
        assert waiting(pool) == 53
        pool["a"].let(54)
        await asking.all()
        assert asking.ended[:8] == ["first", "A0", "B0", "A1", "B1", "A2", "B2", "A3"]
        assert asking.ended[8:] == [f"A{number}" for number in range(4, 50)]
        assert pool["a"].most_held == 1


async def test_a_request_that_nobody_is_left_for_does_not_block_those_behind_it(
    tmp_path: Path,
) -> None:
    """It has failed at the one upstream, and waits for the other."""
    options = {"a": {"max_concurrency": 1}, "b": {"priority": 1}}
    async with running_pool(tmp_path, options) as pool:
        now = time.time()
        out = Verdict(Scope.ACCOUNT, now + 20, True, "429: limit reached")
        pool.upstream("b").health.failed(out, "", now)
        pool["a"].instead = refusing(529)
        pool["a"].hold()
        asking = Asking(pool)
        await asking.send("fails at a, then waits for b")
        pool["a"].let()
        await until(lambda: waiting(pool) == 1)
        pool["a"].instead = None
        pool.upstream("a").health.clear()
        await asking.send("second")
        await asking.send("third")
        pool["a"].let(2)
        await until(lambda: asking.ended == ["second", "third"], within=2)
        pool.upstream("b").health.clear()
        pool.relay.app.upstreams.wake()
        assert [told.status for told in await asking.all()] == [200] * 3


async def test_no_more_wait_than_are_allowed_to(tmp_path: Path) -> None:
    async with full(tmp_path, pool={"queue": 2}) as (pool, asking):
        for name in ("second", "third"):
            await asking.send(name)
        told = await pool.ask(said("too many"))
        assert (told.status, told.fields[b"retry-after"]) == (503, b"1")
        assert "too many requests wait" in told.message
        assert waiting(pool) == 2
        pool["a"].let(3)
        assert [told.status for told in await asking.all()] == [200] * 3


@pytest.mark.parametrize("wait", [0, 0.3])
async def test_who_has_waited_long_enough_is_told_to_try_again(tmp_path: Path, wait: float) -> None:
    async with full(tmp_path, pool={"wait": wait}) as (pool, asking):
        before = time.monotonic()
        told = await pool.ask(said("second"))
        assert wait <= time.monotonic() - before < wait + 1
        assert (told.status, told.fields[b"retry-after"]) == (503, b"2")
        assert told.message == "All upstreams for this model are busy. Try again in a moment."
        assert b"x-should-retry" not in told.fields
        assert waiting(pool) == 0
        pool["a"].let()
        await asking.all()
        assert len(pool["a"].came) == 1


async def test_a_caller_who_leaves_the_queue_leaves_no_trace(tmp_path: Path) -> None:
    plan = [{"id": "free", "limits": [{"requests": 10, "per": "5h"}]}]
    async with full(tmp_path, plan=plan) as (pool, asking):
        async with connected(pool.relay.port) as (_, writer):
            writer.write(request(pool.relay.key, said("leaves")))
            await until(lambda: waiting(pool) == 1)
        await until(lambda: waiting(pool) == 0)
        pool["a"].let(2)
        [first] = await asking.all()
        assert first.status == 200
        last = await pool.ask(said("last"))
        assert last.fields[b"x-ratelimit-remaining"] == b"8"  # two, and not three
        assert len(pool["a"].came) == 2
        assert pool.upstream("a").in_flight == 0
        assert [line["outcome"] for line in pool.relay.log()].count("caller left") == 1


async def test_a_request_waits_for_an_upstream_that_told_when_it_is_back(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"a": {}}) as pool:
        pool["a"].instead = refusing(429, retry_after="1")
        assert (await pool.ask()).status == 429
        pool["a"].instead = None
        before = time.monotonic()
        assert (await pool.ask()).status == 200
        assert 0.7 < time.monotonic() - before < 2
        refused, served = pool["a"].came
        assert served - refused >= 1


# --- the upstreams' own limits ------------------------------------------------------


def limited(number: int, **more: Any) -> dict[str, Any]:
    return {"limits": [{"requests": number, "per": "5h", **more}]}


def left(pool: Pool, name: str) -> int:
    return limits_left(pool.relay.app, name)


def limits_left(app: App, name: str) -> int:
    """What an upstream's one limit has left, as the operator sees it."""
    [shown] = [one for one in app.upstreams.view() if one["name"] == name]
    rows: Any = shown["limits"]
    [limit] = rows
    return int(limit["left"])


async def test_when_all_are_at_their_limits_the_answer_names_the_moment_that_ends(
    tmp_path: Path,
) -> None:
    async with running_pool(tmp_path, {"a": limited(2), "b": limited(1)}) as pool:
        for number in range(3):
            assert (await pool.ask(said(f"{number}"))).status == 200
        told = await pool.ask(said("4"))
        assert told.status == 503
        assert told.fields[b"x-should-retry"] == b"false"
        seconds = int(told.fields[b"retry-after"])
        assert 5 * 3600 - 5 < seconds <= 5 * 3600
        named = re.search(r"No upstream can serve this model before (\S+)\.$", told.message)
        assert named is not None
        until_then = datetime.fromisoformat(named[1]).timestamp()
        assert abs(time.time() + seconds - until_then) < 3
        assert [len(node.came) for node in pool.nodes.values()] == [2, 1]


async def test_limits_are_not_overrun_however_many_requests_there_are_at_once(
    tmp_path: Path,
) -> None:
    options = {"a": limited(30), "b": {**limited(25), "max_concurrency": 4}}
    async with running_pool(tmp_path, options) as pool:
        tolds = await asyncio.gather(*[pool.ask(said(f"{number}")) for number in range(100)])
        statuses = [told.status for told in tolds]
        assert (statuses.count(200), statuses.count(503)) == (55, 45)
        assert (len(pool["a"].came), len(pool["b"].came)) == (30, 25)
        assert (left(pool, "a"), left(pool, "b")) == (0, 0)


@pytest.mark.parametrize("script", ["status=500", "status=529", "status=400", "fault=close"])
async def test_a_failure_is_given_back_to_the_upstreams_limit(tmp_path: Path, script: str) -> None:
    async with running_pool(tmp_path, {"a": limited(2)}) as pool:
        for _ in range(2):
            assert (await pool.ask(said("fails"), script=script)).status >= 400
            assert left(pool, "a") == 2
        assert (await pool.ask(said("works"))).status == 200
        assert left(pool, "a") == 1


async def test_counting_tokens_takes_nothing_of_an_upstreams_limits(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"a": limited(1)}) as pool:
        body = {name: value for name, value in BODY.items() if name != "max_tokens"}
        for _ in range(3):
            told = await pool.ask(body, target="/v1/messages/count_tokens")
            assert told.status == 200
        assert left(pool, "a") == 1


async def test_tokens_are_counted_as_the_upstream_has_told_them(tmp_path: Path) -> None:
    options = {"a": {"limits": [{"tokens": 100_000, "per": "5h"}]}}
    async with running_pool(tmp_path, options) as pool:
        told = await pool.ask(said("how many?"))
        usage = json.loads(told.payload)["usage"]
        used = usage["input_tokens"] + usage["output_tokens"]
        assert left(pool, "a") == 100_000 - used


async def test_a_restart_remembers_what_an_upstreams_limits_have_left(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"a": limited(5)}) as pool:
        for number in range(3):
            assert (await pool.ask(said(f"{number}"))).status == 200
        settings = pool.relay.app._settings
    with (tmp_path / "second.log").open("ab", buffering=0) as log:
        app = App(settings, log_fd=log.fileno())
        await app.start()
        try:
            assert limits_left(app, "a") == 2
        finally:
            await app.stop(0)


async def test_what_never_goes_out_uses_nothing_of_an_upstreams_own_limits(tmp_path: Path) -> None:
    routes = [{"upstream": "a", "model": "other"}]
    async with running_pool(
        tmp_path, {"a": limited(2)}, model=[{"id": MODEL, "routes": routes}]
    ) as pool:
        twice = b'{"model":"%b","model":"%b","max_tokens":1,"messages":[]}' % (
            MODEL.encode(),
            MODEL.encode(),
        )
        for _ in range(3):
            assert (await pool.ask(twice)).status == 400
        [row] = pool.relay.app.upstreams.view()[0]["limits"]
        assert row["left"] == 2
