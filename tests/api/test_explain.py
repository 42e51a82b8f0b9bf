"""`GET /explain/ID` on the admin listener: all that is known of one request."""

import asyncio
from typing import Any

import pytest

from tests.api.admin_listener import LISTEN, admin
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.pool import PoolWith, refusing
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith
from tests.gateway.metering import PRICED, credit, plan, settled
from tests.gateway.streaming import EVENTS, HEAD, in_chunks, steps

BY_TURN = {"a": {}, "b": {"priority": 1}}


async def explained(relay: Live, request_id: str) -> tuple[dict[str, Any], str]:
    """The facts of a request, and their text."""
    answer = await admin(relay, "GET", f"/explain/{request_id}")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["database"] == relay.settings.database.path
    return document["request"], document["text"]


async def test_a_plain_request_is_explained(pool_with: PoolWith) -> None:
    limits = plan({"requests": 40, "per": "5h"}, billing="per-token")
    pool = await pool_with(BY_TURN, server=LISTEN, plan=limits, model=PRICED)
    await credit(pool.relay, 10_000_000)
    reply = await pool.ask()
    [row] = await settled(pool.relay, 1)
    facts, text = await explained(pool.relay, reply.id)
    assert (facts["id"], facts["state"], facts["outcome"]) == (reply.id, "ended", "whole")
    assert facts["route"] == [
        {"upstream": "a", "priority": 0, "model": "claude-sonnet-4-7"},
        {"upstream": "b", "priority": 1, "model": "claude-sonnet-4-7"},
    ]
    assert (facts["upstream"], facts["rule"]) == ("a", "reported")
    assert facts["charged"]["input"] == row["input"] > 0
    assert facts["cost_micro"] == facts["billed"]["charged"] == row["cost_micro"] > 0
    assert facts["plan_now"] == "free"
    [limit] = facts["limits_now"]
    assert (limit["limit"], limit["remaining"]) == ("40 requests per 5 hours", 39)
    assert "Ended: status 200, answered completely" in text
    assert "Rule: reported" in text
    assert "passed over and tried" in facts["not_kept"][0]


async def test_a_failover_names_each_upstream_and_its_words(pool_with: PoolWith) -> None:
    pool = await pool_with(BY_TURN, server=LISTEN)
    pool["a"].instead = refusing(529)
    reply = await pool.ask()
    assert reply.status == 200
    await settled(pool.relay, 1)
    facts, text = await explained(pool.relay, reply.id)
    [failed] = facts["tried"]
    assert failed["upstream"] == "a"
    assert failed["why"].startswith("529")
    assert "Not now." in facts["words"]
    assert (facts["upstream"], facts["choice"], facts["rule"]) == ("b", "turn", "reported")
    first, second = text.index("1. a failed: 529"), text.index("2. b answered")
    assert first < text.index("It said: ") < second
    assert "the reason and the time of each choice but the last" in facts["not_kept"]


async def test_a_request_that_no_upstream_served_is_explained(pool_with: PoolWith) -> None:
    pool = await pool_with(BY_TURN, server=LISTEN)
    for name in BY_TURN:
        pool[name].instead = refusing(529)
    reply = await pool.ask()
    assert reply.status == 529
    await settled(pool.relay, 1)
    facts, text = await explained(pool.relay, reply.id)
    assert [one["upstream"] for one in facts["tried"]] == ["a", "b"]
    assert (facts["status"], facts["rule"], facts["cost_micro"]) == (529, "refunded", 0)
    assert not any(line.startswith("3. ") for line in text.splitlines())
    assert "the words of all upstreams but the last that failed" in text


async def test_what_was_passed_over_is_explained(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}, "b": {}, "c": {"priority": 1}}, server=LISTEN)
    pool.upstream("a").health.pause()
    pool["b"].instead = refusing(529)
    reply = await pool.ask()
    await settled(pool.relay, 1)
    facts, text = await explained(pool.relay, reply.id)
    assert {"upstream": "a", "why": "paused"} in facts["passed"]
    assert "Passed over a: paused." in text


async def test_a_refusal_by_the_plan_says_which_limit(relay_with: RelayWith) -> None:
    relay = await relay_with(server=LISTEN, plan=plan({"requests": 1, "per": "5h"}))
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key) + request(relay.key))
        seen = b""
        while b"HTTP/1.1 429" not in seen or seen.count(b"request-id: ") < 2:
            seen += await reader.read(65536)
    refused = seen.rpartition(b"\r\nrequest-id: ")[2].partition(b"\r\n")[0].decode()
    facts, text = await explained(relay, refused)
    assert (facts["status"], facts["found_in"]) == (429, ["failures since the start"])
    assert "request" in facts["outcome"].removeprefix("refused: ")
    assert "Ended: status 429, refused" in text
    assert "No upstream was chosen." in text
    assert "Left now of 1 request per 5 hours: 0, full again at " in text
    assert "refused before it was admitted" in text


async def test_a_stream_that_its_caller_left_is_explained(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(steps(HEAD, in_chunks(EVENTS[:4]), asyncio.Event()))
    relay = await relay_with(upstream, server=LISTEN)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, {**BODY, "stream": True}))
        seen = b""
        while b"Hel" not in seen:
            seen += await reader.read(65536)
    request_id = seen.partition(b"\r\nrequest-id: ")[2].partition(b"\r\n")[0].decode()
    await settled(relay, 1)
    facts, text = await explained(relay, request_id)
    assert (facts["outcome"], facts["rule"]) == ("caller left", "partial")
    assert facts["found_in"] == ["failures since the start", "database"]
    assert facts["charged"]["input"] == 25
    assert facts["first_us"] > 0
    assert "the caller left" in text
    assert "first content of the stream" in text


async def test_a_request_in_flight_is_explained(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}}, server=LISTEN, plan=plan({"requests": 40, "per": "5h"}))
    pool["a"].hold()
    asked = asyncio.create_task(pool.ask())
    await until(lambda: pool["a"].held)
    [running] = pool.relay.app.operations.watch.running
    facts, text = await explained(pool.relay, running.id[:12])
    assert (facts["id"], facts["state"], facts["stage"]) == (running.id, "in flight", "asking")
    assert (facts["upstream"], facts["choice"], facts["plan"]) == ("a", "only", "free")
    assert facts["reserved"] > 0
    assert "rule" not in facts
    assert "a has it, without an answer yet" in text
    pool["a"].let()
    assert (await asked).id == running.id


async def test_a_request_in_the_queue_is_explained(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {"max_concurrency": 1}}, server=LISTEN)
    pool["a"].hold()
    first = asyncio.create_task(pool.ask())
    await until(lambda: pool["a"].held)
    second = asyncio.create_task(pool.ask())
    await until(lambda: pool.relay.app.upstreams.waiting)
    waiting = next(one for one in pool.relay.app.operations.watch.running if not one.upstream)
    facts, text = await explained(pool.relay, waiting.id)
    assert facts["stage"] == "waiting"
    assert "it waits for an upstream" in text
    assert "Passed over a: has 1 in flight." in text
    pool["a"].let(2)
    await asyncio.gather(first, second)


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ("xyz", 400, "no request id of this relay"),
        ("req_abc", 400, "too short"),
        ("msg_01abcdef", 400, "no request id of this relay"),
        ("req_" + "0" * 33, 400, "no request id of this relay"),
        ("req_" + "0" * 32, 404, "not in flight"),
    ],
)
async def test_an_id_that_leads_nowhere_is_answered_with_advice(
    relay_with: RelayWith, given: str, status: int, words: str
) -> None:
    relay = await relay_with(server=LISTEN)
    answer = await admin(relay, "GET", f"/explain/{given}")
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


async def test_an_ambiguous_beginning_names_the_requests(pool_with: PoolWith) -> None:
    pool = await pool_with({"a": {}}, server=LISTEN)
    pool["a"].hold()
    tasks = [asyncio.create_task(pool.ask()) for _ in range(2)]
    await until(lambda: pool["a"].held == 2)
    running = list(pool.relay.app.operations.watch.running)
    for number, one in enumerate(running):
        one.id = f"req_{'ab' * 8}{number:016x}"
    answer = await admin(pool.relay, "GET", "/explain/abababab")
    assert answer.status_code == 409
    assert all(one.id in answer.json()["error"]["message"] for one in running)
    pool["a"].let(2)
    await asyncio.gather(*tasks)
