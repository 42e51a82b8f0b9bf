"""While every upstream is busy, requests wait: callers take turns, and waiting has a limit."""

import asyncio
import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.app import App
from relay.pool.vendor_errors import Scope, Verdict
from tests.fakes.caller import BODY, connected, request
from tests.fakes.pool import MODEL, Pool, PoolWith, Reply, refusing, running_pool
from tests.fakes.until import until

ONE = {"a": {"max_concurrency": 1}}


def said(text: str) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}]}


async def grace_key(pool: Pool) -> str:
    await pool.relay.create_user("grace@example.com")
    return await pool.relay.new_key("grace@example.com")


class Asking:
    """Requests in flight. `ended` has their names in the order of their answers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tasks: list[asyncio.Task[Reply]] = []
        self.ended: list[str] = []

    async def send(self, name: str, **how: Any) -> None:
        """Send one more; return once it waits or has reached an upstream."""
        before = self._there()
        self._tasks.append(asyncio.create_task(self._ask(name, how)))
        await until(lambda: self._there() > before or self._tasks[-1].done())

    def _there(self) -> int:
        """Number of requests that wait or have reached an upstream."""
        return self._pool.relay.app.upstreams.waiting + sum(
            len(node.came) for node in self._pool.nodes.values()
        )

    async def _ask(self, name: str, how: dict[str, Any]) -> Reply:
        reply = await self._pool.ask(said(name), **how)
        self.ended.append(name)
        return reply

    async def all(self) -> list[Reply]:
        return await asyncio.gather(*self._tasks)


async def full(pool_with: PoolWith, **sections: Any) -> tuple[Pool, Asking]:
    """A pool of one upstream with one place, which a held request occupies."""
    pool = await pool_with(ONE, **sections)
    pool["a"].hold()
    asking = Asking(pool)
    await asking.send("first")
    return pool, asking


async def test_a_request_above_the_cap_waits_for_a_free_place(pool_with: PoolWith) -> None:
    pool, asking = await full(pool_with)
    for name in ("second", "third"):
        await asking.send(name)
    assert repr(pool.relay.app.upstreams) == "<Upstreams a: free, 1/1 in flight; 2 wait>"
    assert (pool["a"].held, len(pool["a"].came)) == (1, 1)
    pool["a"].let(3)
    assert [reply.status for reply in await asking.all()] == [200] * 3
    assert asking.ended == ["first", "second", "third"]
    assert pool["a"].most_held == 1
    assert repr(pool.relay.app.upstreams) == "<Upstreams a: free, 0/1 in flight; 0 wait>"


async def test_a_long_queue_of_one_caller_does_not_delay_another(pool_with: PoolWith) -> None:
    pool, asking = await full(pool_with)
    other = await grace_key(pool)
    for number in range(50):
        await asking.send(f"A{number}")
    for number in range(3):
        await asking.send(f"B{number}", key=other)
    assert pool.relay.app.upstreams.waiting == 53
    pool["a"].let(54)
    await asking.all()
    assert asking.ended[:8] == ["first", "A0", "B0", "A1", "B1", "A2", "B2", "A3"]
    assert asking.ended[8:] == [f"A{number}" for number in range(4, 50)]
    assert pool["a"].most_held == 1


async def test_an_unservable_request_blocks_no_other(pool_with: PoolWith) -> None:
    """A request that failed at one upstream waits for the other, and the queue goes on."""
    options = {"a": {"max_concurrency": 1}, "b": {"priority": 1}}
    pool = await pool_with(options)
    now = time.time()
    out = Verdict(Scope.ACCOUNT, now + 20, True, "429: limit reached")
    pool.upstream("b").health.failed(out, "", now)
    pool["a"].instead = refusing(529)
    pool["a"].hold()
    asking = Asking(pool)
    await asking.send("fails at a, then waits for b")
    pool["a"].let()
    await until(lambda: pool.relay.app.upstreams.waiting == 1)
    pool["a"].instead = None
    pool.upstream("a").health.clear()
    await asking.send("second")
    await asking.send("third")
    pool["a"].let(2)
    await until(lambda: asking.ended == ["second", "third"], within=2)
    pool.upstream("b").health.clear()
    pool.relay.app.upstreams.wake()
    assert [reply.status for reply in await asking.all()] == [200] * 3


async def test_the_queue_has_a_maximum_length(pool_with: PoolWith) -> None:
    pool, asking = await full(pool_with, pool={"queue": 2})
    await asking.send("second")
    await asking.send("third", key=await grace_key(pool))
    await pool.relay.create_user("edsger@example.com")
    third = await pool.relay.new_key("edsger@example.com")
    reply = await pool.ask(said("too many"), key=third)
    assert (reply.status, reply.fields[b"retry-after"]) == (503, b"1")
    assert "too many requests wait" in reply.message
    assert pool.relay.app.upstreams.waiting == 2
    pool["a"].let(3)
    assert [reply.status for reply in await asking.all()] == [200] * 3


@pytest.mark.parametrize("wait", [0, 0.3])
async def test_a_queued_request_times_out_with_retry_after(
    pool_with: PoolWith, wait: float
) -> None:
    pool, asking = await full(pool_with, pool={"wait": wait})
    before = time.monotonic()
    reply = await pool.ask(said("second"))
    assert wait <= time.monotonic() - before < wait + 1
    assert (reply.status, reply.fields[b"retry-after"]) == (503, b"2")
    assert reply.message == "All upstreams for this model are busy. Try again in a moment."
    assert b"x-should-retry" not in reply.fields
    assert pool.relay.app.upstreams.waiting == 0
    pool["a"].let()
    await asking.all()
    assert len(pool["a"].came) == 1


async def test_a_caller_that_leaves_the_queue_leaves_no_trace(pool_with: PoolWith) -> None:
    plan = [{"id": "free", "limits": [{"requests": 10, "per": "5h"}]}]
    pool, asking = await full(pool_with, plan=plan)
    async with connected(pool.relay.port) as (_, writer):
        writer.write(request(pool.relay.key, said("leaves")))
        await until(lambda: pool.relay.app.upstreams.waiting == 1)
    await until(lambda: pool.relay.app.upstreams.waiting == 0)
    pool["a"].let(2)
    [first] = await asking.all()
    assert first.status == 200
    last = await pool.ask(said("last"))
    assert last.fields[b"x-ratelimit-remaining"] == b"8"  # two requests were charged, not three
    assert len(pool["a"].came) == 2
    assert pool.upstream("a").in_flight == 0
    assert [line["outcome"] for line in pool.relay.log()].count("caller left") == 1


async def test_a_request_waits_out_a_short_retry_after(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}})
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
    """The rest of an upstream's only limit, in the operator's view."""
    [shown] = [one for one in app.upstreams.view() if one["name"] == name]
    rows: Any = shown["limits"]
    [limit] = rows
    return int(limit["left"])


async def test_a_refusal_names_the_moment_a_limit_resets(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": limited(2), "b": limited(1)})
    for number in range(3):
        assert (await pool.ask(said(f"{number}"))).status == 200
    reply = await pool.ask(said("4"))
    assert reply.status == 503
    assert reply.fields[b"x-should-retry"] == b"false"
    seconds = int(reply.fields[b"retry-after"])
    assert 5 * 3600 - 5 < seconds <= 5 * 3600
    named = re.search(r"No upstream can serve this model before (\S+)\.$", reply.message)
    assert named is not None
    until_then = datetime.fromisoformat(named[1]).timestamp()
    assert abs(time.time() + seconds - until_then) < 3
    assert [len(node.came) for node in pool.nodes.values()] == [2, 1]


async def test_concurrent_requests_do_not_overrun_upstream_limits(pool_with: PoolWith) -> None:
    options = {"a": limited(30), "b": {**limited(25), "max_concurrency": 4}}
    pool = await pool_with(options)
    replies = await asyncio.gather(*[pool.ask(said(f"{number}")) for number in range(100)])
    statuses = [reply.status for reply in replies]
    assert (statuses.count(200), statuses.count(503)) == (55, 45)
    assert (len(pool["a"].came), len(pool["b"].came)) == (30, 25)
    assert (left(pool, "a"), left(pool, "b")) == (0, 0)


@pytest.mark.parametrize("script", ["status=500", "status=529", "status=400", "fault=close"])
async def test_a_failure_is_refunded_to_the_upstreams_limit(
    pool_with: PoolWith, script: str
) -> None:
    pool = await pool_with({"a": limited(2)})
    for _ in range(2):
        assert (await pool.ask(said("fails"), script=script)).status >= 400
        assert left(pool, "a") == 2
    assert (await pool.ask(said("works"))).status == 200
    assert left(pool, "a") == 1


async def test_counting_tokens_uses_no_upstream_limit(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": limited(1)})
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    for _ in range(3):
        reply = await pool.ask(body, target="/v1/messages/count_tokens")
        assert reply.status == 200
    assert left(pool, "a") == 1


async def test_token_limits_use_the_reported_usage(pool_with: PoolWith) -> None:
    options = {"a": {"limits": [{"tokens": 100_000, "per": "5h"}]}}
    pool = await pool_with(options)
    reply = await pool.ask(said("how many?"))
    usage = json.loads(reply.payload)["usage"]
    used = usage["input_tokens"] + usage["output_tokens"]
    assert left(pool, "a") == 100_000 - used


async def test_upstream_limits_survive_a_restart(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"a": limited(5)}) as pool:
        for number in range(3):
            assert (await pool.ask(said(f"{number}"))).status == 200
        settings = pool.relay.settings
    with (tmp_path / "second.log").open("ab", buffering=0) as log:
        app = await App.start(settings, log_fd=log.fileno())
        try:
            assert limits_left(app, "a") == 2
        finally:
            await app.stop(0)


async def test_an_unsent_request_uses_no_upstream_limit(pool_with: PoolWith) -> None:
    routes = [{"upstream": "a", "model": "other"}]
    pool = await pool_with({"a": limited(2)}, model=[{"id": MODEL, "routes": routes}])
    twice = b'{"model":"%b","model":"%b","max_tokens":1,"messages":[]}' % (
        MODEL.encode(),
        MODEL.encode(),
    )
    for _ in range(3):
        assert (await pool.ask(twice)).status == 400
    rows: Any = pool.relay.app.upstreams.view()[0]["limits"]
    [row] = rows
    assert row["left"] == 2
