"""Many upstreams, one endpoint: callers do not notice the failures of some."""

import asyncio
import random
import time
from collections import Counter, deque
from itertools import pairwise
from typing import Any

import pytest

from relay.pool.outages import Level
from tests.fakes.caller import BODY
from tests.fakes.pool import MODEL, Pool, PoolWith, Reply, refusing
from tests.fakes.until import until

THREE: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
LIMIT = 5000
PLAN = [{"id": "free", "limits": [{"requests": LIMIT, "per": "5h"}]}]
RATE = 200  # requests a second
SECONDS = 3.4
REFUSES, RELENTS, DIES = 0.5, 0.7, 0.9  # seconds from the start
WAIT = 2  # seconds of the refusing upstream's retry-after
KINDS: list[tuple[bool, str]] = [  # streamed, the simulator's script
    (False, ""),
    (True, ""),
    (False, "delay=0.06"),
    (True, "tokens=12;pace=40"),
]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.alone
async def test_failing_upstreams_are_hidden_until_content(pool_with: PoolWith) -> None:
    pool = await pool_with(THREE, plan=PLAN)
    loop = asyncio.get_running_loop()
    b, c = pool["b"], pool["c"]

    def relent() -> None:
        b.instead = None

    loop.call_later(REFUSES, setattr, b, "instead", refusing(429, retry_after=str(WAIT)))
    loop.call_later(RELENTS, relent)
    loop.call_later(DIES, c.kill)
    replies = await _load(pool)
    assert b.instead is None

    complete = [reply for _, reply in replies if reply.complete]
    cut = [reply for _, reply in replies if not reply.complete]
    assert {reply.status for _, reply in replies} == {200}
    assert all(b"event: error" not in reply.payload for reply in complete)
    # Only the killed upstream's answers are cut: after content, with an error event.
    assert cut
    outcomes = {line["id"]: line for line in pool.relay.log()}
    for reply in cut:
        assert outcomes[reply.id]["upstream"] == "c"
        assert outcomes[reply.id]["outcome"].startswith("cut: the upstream")
        content, _, error = reply.payload.partition(b"event: error")
        assert b"content_block_delta" in content
        assert b'"api_error"' in error
        assert b"message_stop" not in reply.payload
    # Nothing was generated twice or without a reader, but for answers whose last octets were
    # on their way as their upstream was killed.
    completed = {name: node.completed for name, node in pool.nodes.items()}
    surplus = sum(completed.values()) - len(complete)
    assert 0 <= surplus <= len(cut)
    # An upstream with a retry-after gets no request until then, and is used right after.
    gap = max(after - before for before, after in pairwise(b.came))
    assert WAIT - 0.02 <= gap < WAIT + 0.4
    retried = Counter(line.get("tried", "").partition(":")[0] for line in outcomes.values())
    assert retried["b"] >= 1
    assert retried["c"] >= 1
    # Each answered request is charged once.
    last = await pool.ask(said("last"))
    assert int(last.fields[b"x-ratelimit-remaining"]) == LIMIT - len(replies) - 1
    assert [one.in_flight for one in pool.relay.app.upstreams] == [0, 0, 0]


async def _load(pool: Pool) -> list[tuple[int, Reply]]:
    """Send `RATE` requests a second, each on schedule regardless of the others."""

    async def one(number: int) -> tuple[int, Reply]:
        streamed, script = KINDS[number % len(KINDS)]
        return number, await pool.ask(said(f"number {number}", stream=streamed), script=script)

    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks: list[asyncio.Task[tuple[int, Reply]]] = []
    while (passed := loop.time() - start) < SECONDS:
        while len(tasks) < passed * RATE:
            tasks.append(asyncio.create_task(one(len(tasks))))
        await asyncio.sleep(1 / RATE)
    return await asyncio.gather(*tasks)


async def test_a_restarted_upstream_is_found_by_a_probe(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}, "b": {"priority": 1}})
    a, health = pool["a"], pool.upstream("a").health
    a.kill()
    for number in range(5):
        assert (await pool.ask(said(f"{number}"))).status == 200
    assert (health.failures, health.view(time.time())["state"]) == (3, "down")
    await a.open()
    before = len(a.came)
    assert (await pool.ask(said("its time is not over"))).status == 200
    assert len(a.came) == before
    health.probe_at = 0.0  # it is over now
    await until(lambda: health.level(MODEL, time.time()) is Level.FREE)
    assert len(a.came) == before + 1  # the relay's own
    for number in range(3):
        await pool.ask(said(f"and again {number}"))
    assert len(a.came) == before + 4


async def test_no_request_goes_to_an_upstream_that_is_probed(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}, "b": {"priority": 1}})
    a, health = pool["a"], pool.upstream("a").health
    health.probe_failed("a probe: 500", time.time())
    a.hold()
    health.probe_at = 0.0
    await until(lambda: a.held == 1)
    for number in range(8):
        assert (await pool.ask(said(f"{number}"))).status == 200
    assert len(a.came) == 1
    a.let(2)
    await until(lambda: health.level(MODEL, time.time()) is Level.FREE)
    assert (await pool.ask(said("it works"))).status == 200
    assert len(a.came) == 2


async def test_a_request_tries_at_most_the_configured_number(pool_with: PoolWith) -> None:
    pool = await pool_with({**THREE, "d": {}}, pool={"tries": 3})
    for node in pool.nodes.values():
        node.instead = refusing(529)
    reply = await pool.ask(said("nobody can"))
    assert reply.status == 529  # word for word, unchanged, from the last one tried
    assert sorted(len(node.came) for node in pool.nodes.values()) == [0, 1, 1, 1]
    [line] = pool.relay.log()
    assert line["tried"].count("529") == 3


# --- sessions -----------------------------------------------------------------------

WEIGHTS = {"a": 3, "b": 2, "c": 1}
SESSIONS, TURNS, AT_ONCE = 200, 20, 16


class Trace:
    """Conversations of many turns. `went` has the ids of the answers of each."""

    def __init__(self, pool: Pool, first: int, number: int) -> None:
        self._pool = pool
        self.went: dict[int, list[str]] = {name: [] for name in range(first, first + number)}

    async def turn(self, session: int) -> None:
        """The next turn of a session, identified by a field or by its first message."""
        body: dict[str, Any] = said(f"conversation {session}")
        for turn in range(len(self.went[session])):
            body["messages"] += [
                {"role": "assistant", "content": f"step {turn}"},
                {"role": "user", "content": "go on"},
            ]
        field = f"x-claude-code-session-id: {session}\r\n" if session % 2 else ""
        reply = await self._pool.ask(body, fields=field)
        assert reply.status == 200
        self.went[session].append(reply.id)

    async def run(self, turns: int, chance: random.Random) -> None:
        """Run `turns` turns of each session, interleaved and concurrent."""
        ready = deque(self.went)
        left = dict.fromkeys(ready, turns)

        async def work() -> None:
            while ready:
                ready.rotate(chance.randrange(len(ready)))
                session = ready.popleft()
                await self.turn(session)
                left[session] -= 1
                if left[session]:
                    ready.append(session)

        await asyncio.gather(*[work() for _ in range(AT_ONCE)])

    def upstreams(self) -> dict[int, list[str]]:
        """The upstream of each turn, by session."""
        served = {line["id"]: line["upstream"] for line in self._pool.relay.log()}
        return {session: [served[id] for id in ids] for session, ids in self.went.items()}


async def test_load_follows_weights_and_sessions_stay(pool_with: PoolWith) -> None:
    options = {name: {"weight": weight} for name, weight in WEIGHTS.items()}
    chance = random.Random(4)
    pool = await pool_with(options)
    trace = Trace(pool, 0, SESSIONS)
    await trace.run(TURNS, chance)
    went = trace.upstreams()
    later = [name == turns[0] for turns in went.values() for name in turns[1:]]
    assert sum(later) >= 0.99 * len(later)
    load = Counter(name for turns in went.values() for name in turns)
    for name, weight in WEIGHTS.items():
        share = weight / sum(WEIGHTS.values()) * SESSIONS * TURNS
        assert abs(load[name] / share - 1) <= 0.10, load

    # An upstream at its limit loses its sessions to others, for good.
    moved = [session for session, turns in went.items() if turns[-1] == "a"][:20]
    pool["a"].instead = refusing(429, retry_after="1")
    for session in moved:
        await trace.turn(session)
    assert len(pool["a"].came) == load["a"] + 1
    a = pool.upstream("a").health
    assert a.level(MODEL, time.time(), caller=pool.account) is Level.OUT
    pool["a"].instead = None
    await until(lambda: a.level(MODEL, time.time(), caller=pool.account) is Level.FREE, within=2)
    for session in moved:
        await trace.turn(session)
    went = trace.upstreams()
    assert all(went[session][-2] != "a" for session in moved)
    assert all(went[session][-2] == went[session][-1] for session in moved)

    # It gets its share of new sessions afterwards, and no more.
    new = Trace(pool, SESSIONS, 60)
    await new.run(2, chance)
    first = Counter(turns[0] for turns in new.upstreams().values())
    assert 30 <= first["a"] <= 40, first


async def test_three_error_events_take_an_upstream_out(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}, "b": {"priority": 1}})
    body = {**BODY, "stream": True}
    for _ in range(3):
        await pool.ask(body, script="fault=error;at=6")
    health = pool.upstream("a").health
    described = health.describe(MODEL, time.time(), pool.account)
    assert described.startswith("ended its answer with an error event")
    reply = await pool.ask(body)
    assert reply.complete
    assert pool.relay.log()[-1]["upstream"] == "b"
