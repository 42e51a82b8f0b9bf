"""What holds in one process of a relay holds in all of them: real processes, one simulator."""

import asyncio
import re
import time
from collections import Counter
from typing import cast

from relay.quota.plans import COUNTS_PER_MINUTE
from tests.durability.process import data, relay
from tests.fakes.caller import read_answer, request
from tests.fakes.live import Live
from tests.fakes.until import until
from tests.scoreboard import RecordProperty
from tests.web.visitor import Visitor

from .everywhere import Caller, Everywhere
from .shared import Shared, body, together

COUNT = {"model": "main", "messages": [{"role": "user", "content": "hi"}]}


def command(shared: Shared, *arguments: str) -> None:
    """Run one command, which succeeds."""
    done = relay(shared.folder, *arguments)
    assert done.returncode == 0, done.stderr


async def asked_at_once(shared: Shared, keys: list[str], model: str, fields: str = "") -> list[int]:
    """A request with each key over a connection of its own, all at once; the statuses."""

    async def ask(key: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", shared.running.port)
        try:
            writer.write(request(key, body(model), fields=fields))
            return (await read_answer(reader))[0]
        finally:
            writer.transport.abort()

    return await together(*(ask(key) for key in keys))


# --- keys ---


async def test_a_new_key_is_accepted_everywhere_in_a_second(
    shared: Shared, all_three: Everywhere, record_property: RecordProperty
) -> None:
    email, _ = await shared.account("open")
    key = data(shared.folder, "key", "create", "--user", email)["key"]
    started = time.monotonic()
    await all_three.knows(key, within=1)
    record_property("figure", f"in all processes after {time.monotonic() - started:.2f} s at most")
    assert await all_three.statuses(key, body("main")) == [200] * 3


async def test_a_revoked_key_is_refused_everywhere_in_a_second(
    shared: Shared, all_three: Everywhere
) -> None:
    email, _ = await shared.account("open")
    made = data(shared.folder, "key", "create", "--user", email)
    await all_three.knows(made["key"])
    assert await all_three.statuses(made["key"], body("main")) == [200] * 3
    command(shared, "key", "revoke", made["id"])
    await asyncio.sleep(1)  # within this
    assert await all_three.statuses(made["key"], body("main")) == [401] * 3


# --- upstreams ---


async def test_a_conversation_keeps_its_upstream_everywhere(
    shared: Shared, all_three: Everywhere
) -> None:
    key = await shared.key()
    await all_three.knows(key)
    upstreams = Counter[str]()
    for number in range(8):
        await shared.forget()
        caller = all_three.callers[number % 3]
        text = f"conversation {number}"
        assert (await caller.ask(key, body("both", text))).status == 200
        await asyncio.sleep(0.05)  # the others learn of it on its next turn, over two links
        for _ in range(2):
            assert await all_three.statuses(key, body("both", text)) == [200] * 3
        [upstream] = set(await shared.reached())
        upstreams[upstream] += 1
    assert set(upstreams) == {"left", "right"}


async def test_a_stated_outage_holds_everywhere(shared: Shared, all_three: Everywhere) -> None:
    key = await shared.key()
    await all_three.knows(key)
    assert await all_three.statuses(key, body("cool")) == [200] * 3
    assert await shared.reached() == ["cooling"] * 3
    await shared.forget()
    await shared.script("status=429;retry-after=2")
    assert (await all_three.callers[1].ask(key, body("cool"))).status == 200
    for number in range(3):
        assert await all_three.statuses(key, body("cool", f"{number}")) == [200] * 3
    assert await shared.reached() == ["cooling", *["spare"] * 10]
    await asyncio.sleep(2)
    await shared.forget()
    assert await all_three.statuses(key, body("cool", "after it")) == [200] * 3
    assert await shared.reached() == ["cooling"] * 3


async def test_a_paused_upstream_gets_nothing_from_anywhere(
    shared: Shared, all_three: Everywhere
) -> None:
    key = await shared.key()
    await all_three.knows(key)
    command(shared, "upstreams", "pause", "paused")
    assert await all_three.statuses(key, body("paused")) == [503] * 3
    assert await shared.reached() == []
    command(shared, "upstreams", "resume", "paused")
    assert await all_three.statuses(key, body("paused")) == [200] * 3


async def test_max_concurrency_is_reached_and_not_exceeded(
    shared: Shared, all_three: Everywhere
) -> None:
    _, keys = await shared.account("open", 4)
    for key in keys:
        await all_three.knows(key)
    statuses = await asked_at_once(shared, keys * 10, "bounded", "x-simulate: delay=0.05\r\n")
    assert Counter(statuses) == {200: 40}
    assert (await shared.report())["totals"]["most_in_flight"] == 4


async def test_limits_of_an_upstream_are_exact(shared: Shared, all_three: Everywhere) -> None:
    _, keys = await shared.account("open", 3)
    for key in keys:
        await all_three.knows(key)
    started = time.monotonic()
    statuses = Counter(await asked_at_once(shared, keys * 20, "limited"))
    assert time.monotonic() - started < 60  # none waits for a window that is hours away
    assert set(statuses) == {200, 503}
    async with asyncio.timeout(10):  # on a busy machine slots may be called back too late
        while statuses[200] < 20:
            statuses.update(await asked_at_once(shared, keys[:1], "limited"))
    assert await asked_at_once(shared, keys, "limited") == [503] * 3
    assert await shared.reached() == ["limited"] * 20


async def test_limits_of_an_upstream_are_used_up(shared: Shared, all_three: Everywhere) -> None:
    key = await shared.key()
    await all_three.knows(key)
    statuses = []
    for _ in range(10):  # the first process has the last word, as it has the first
        statuses += await all_three.statuses(key, body("used-up"))
    assert statuses == [200] * 20 + [503] * 10


# --- plans ---


async def test_max_concurrency_of_a_plan_is_exact(shared: Shared, all_three: Everywhere) -> None:
    key = await shared.key("three-at-once")
    await all_three.knows(key)
    stream = body("main", stream=True)
    slow = "x-simulate: tokens=8;pace=8\r\n"

    async def ask(caller: Caller, statuses: list[int]) -> None:
        statuses.append(await caller.begin(key, stream, fields=slow))
        if statuses[-1] == 200:
            await caller.rest()

    for round in range(2):
        statuses: list[int] = []
        callers = [Caller(*await asyncio.open_connection("127.0.0.1", shared.running.port), 0)
                   for _ in range(12)]  # fmt: skip
        await together(*(ask(one, statuses) for one in callers))
        assert Counter(statuses) == {200: 3, 429: 9}, round
        for one in callers:
            one.writer.transport.abort()


async def test_what_a_process_holds_unused_is_not_lost(
    shared: Shared, all_three: Everywhere
) -> None:
    key = await shared.key("minute")
    await all_three.knows(key)
    first, second, third = all_three.callers
    for caller, times in ((second, 30), (third, 15), (first, 15)):
        for _ in range(times):
            assert (await caller.ask(key, body("main"))).status == 200
    assert await all_three.statuses(key, body("main")) == [429] * 3


async def test_a_bonus_holds_everywhere(shared: Shared, all_three: Everywhere) -> None:
    email, [key] = await shared.account("two")
    await all_three.knows(key)
    assert await all_three.statuses(key, body("main")) == [200, 200, 429]
    command(shared, "user", "bonus", email, "5h", "3")
    await asyncio.sleep(1)
    assert await all_three.statuses(key, body("main")) == [200] * 3
    assert await all_three.statuses(key, body("main")) == [429] * 3


async def test_a_window_is_reset_everywhere(shared: Shared, all_three: Everywhere) -> None:
    email, [key] = await shared.account("two")
    await all_three.knows(key)
    assert await all_three.statuses(key, body("main")) == [200, 200, 429]
    command(shared, "user", "reset-window", email, "5h")
    await asyncio.sleep(1)
    answers = [await caller.ask(key, body("main")) for caller in reversed(all_three.callers)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert answers[0].fields[b"x-ratelimit-remaining"] == b"1"


async def test_counting_tokens_is_limited_once_for_all(
    shared: Shared, all_three: Everywhere
) -> None:
    key = await shared.key()
    await all_three.knows(key)

    async def count(caller: Caller) -> list[int]:
        target = "/v1/messages/count_tokens"
        many = COUNTS_PER_MINUTE // 2
        return [(await caller.ask(key, COUNT, target=target)).status for _ in range(many)]

    started = time.monotonic()
    statuses = Counter[int]()
    for found in await together(*map(count, all_three.callers)):
        statuses.update(found)
    refilled = (time.monotonic() - started) * COUNTS_PER_MINUTE / 60
    assert COUNTS_PER_MINUTE <= statuses[200] <= COUNTS_PER_MINUTE + refilled + 1
    assert set(statuses) <= {200, 429}


# --- what is kept ---


async def test_responses_are_kept_for_all(shared: Shared, all_three: Everywhere) -> None:
    key = await shared.key()
    await all_three.knows(key)
    await kept_for_all(key, "main", all_three)


async def kept_for_all(key: str, model: str, all_three: Everywhere) -> None:
    """A conversation by ids of responses goes from process to process, and ends everywhere."""
    id = None
    for caller in all_three.callers * 2:
        asked = {"model": model, "input": "hi", "previous_response_id": id}
        answer = await caller.ask(key, asked, target="/v1/responses")
        assert answer.status == 200, answer.payload
        id = answer.json["id"]
    where = {"target": f"/v1/responses/{id}"}
    assert await all_three.statuses(key, b"", method="GET", **where) == [200] * 3
    deleted = await all_three.callers[1].ask(key, b"", method="DELETE", **where)
    assert deleted.status == 200
    assert await all_three.statuses(key, b"", method="GET", **where) == [404] * 3


async def test_usage_counts_everything_once(shared: Shared, all_three: Everywhere) -> None:
    email = f"grace{time.monotonic_ns()}@example.com"
    async with Visitor(cast(Live, shared)) as visitor:
        await visitor.sign_up(email)
        key = await visitor.new_key()
        await all_three.knows(key)
        for _ in range(4):
            assert await all_three.statuses(key, body("main")) == [200] * 3

        def used() -> list[int]:
            found = data(shared.folder, "usage", "--user", email)
            return [row["requests"] for row in found["usage"]]

        await until(lambda: used() == [12], within=5)
        page = (await visitor.get("/dashboard/usage")).text
        assert re.search(r"\b12\b", re.sub(r"<[^>]+>", " ", page))
        answers = await all_three.ask(key, b"", method="GET", target="/v1/usage")
        assert len({one.payload for one in answers}) == 1
