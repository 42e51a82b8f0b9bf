"""Overload: new requests are refused early, those in flight go on."""

import asyncio
import contextlib
import json

import pytest

from relay.gateway.load import Load, ShedError
from tests.api.admin_listener import LISTEN
from tests.api.scrape import scraped, total
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith, always


def refused(load: Load, requests: int) -> int:
    """How many of so many requests are refused; each ends at once."""
    count = 0
    for _ in range(requests):
        load.in_flight += 1
        try:
            load.check()
        except ShedError:
            count += 1
        load.in_flight -= 1
    return count


def test_a_punctual_loop_sheds_nothing() -> None:
    load = Load(10, 0.1)
    for _ in range(100):
        load.observe(0.09)
    assert refused(load, 100) == 0


def test_the_share_grows_while_the_loop_is_late_and_falls_after() -> None:
    load = Load(10, 0.1)
    shares = []
    for lag in (0.2, 0.2, 0.2, 0.0):
        load.observe(lag)
        shares.append(round(load.share, 2))
    assert shares == [0.1, 0.2, 0.3, 0.28]
    assert refused(load, 100) == pytest.approx(28, abs=1)
    for _ in range(20):
        load.observe(0.2)
    assert refused(load, 100) in (99, 100)
    for _ in range(50):
        load.observe(0.0)
    assert load.share == 0
    assert refused(load, 100) == 0


def test_a_lag_limit_of_zero_sheds_by_the_number_alone() -> None:
    load = Load(0, 0.0)
    load.observe(9.0)
    assert load.share == 0
    assert refused(load, 1) == 1


async def test_above_the_cap_requests_are_refused_before_their_body(
    relay_with: RelayWith,
) -> None:
    relay = await relay_with(server={"limits": {"in_flight": 2}})
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(2):
            slow = request(relay.key, {**BODY, "stream": True}, fields="x-simulate: delay=0.5\r\n")
            reader, writer = await stack.enter_async_context(connected(relay.port))
            writer.write(slow)
            streams.append(reader)
        await until(lambda: sum(one.in_flight for one in relay.app.upstreams) == 2)
        reader, writer = await stack.enter_async_context(connected(relay.port))
        head = request(relay.key, b"x" * 100_000).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        writer.write(head)  # the body never comes
        status, fields, payload = await read_answer(reader)
        assert status == 503
        assert 1 <= int(fields[b"retry-after"]) <= 3
        assert json.loads(payload)["error"]["type"] == "overloaded_error"
        assert b"anthropic-ratelimit-requests-limit" in fields or b"request-id" in fields
        reader, writer = await stack.enter_async_context(connected(relay.port))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        for reader in streams:
            status, _, payload = await read_answer(reader)
            assert (status, payload.count(b"event: message_stop")) == (200, 1)
    assert next(line for line in relay.log() if line["path"] != "/healthz")["status"] == 503
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize("plan_allows", [0, 50])
async def test_a_key_has_at_most_its_number_in_flight(
    relay_with: RelayWith, plan_allows: int
) -> None:
    plan = [{"id": "free", "max_concurrency": plan_allows}]
    relay = await relay_with(plan=plan, server={"limits": {"in_flight_per_key": 2}})
    slow = request(relay.key, fields="x-simulate: delay=0.3\r\n")

    async def ask() -> int:
        async with connected(relay.port) as (reader, writer):
            writer.write(slow)
            return (await read_answer(reader))[0]

    statuses = await asyncio.gather(*(ask() for _ in range(5)))
    assert sorted(statuses) == [200, 200, 429, 429, 429]
    assert await ask() == 200


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("place", ["reading", "translating"])
async def test_an_internal_error_is_one_500_in_its_dialect(
    relay_with: RelayWith,
    upstream_with: UpstreamWith,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    place: str,
) -> None:
    document = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-7",
        "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    upstream = await upstream_with(always(answers.sized(json.dumps(document).encode())))
    relay = await relay_with(upstream, server=LISTEN)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    where = "relay.gateway.messages.MessagesRequest" if target == "/v1/messages" else (
        "relay.gateway.chat.ChatRequest"
    )  # fmt: skip
    name = "upstream_request" if place == "reading" else "respond"
    with monkeypatch.context() as patch:
        patch.setattr(f"{where}.{name}", fail)
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, target=target))
            status, _, payload = await read_answer(reader)
    error = json.loads(payload)["error"]
    assert status == 500
    assert error["type"] == ("api_error" if target == "/v1/messages" else "server_error")
    async with connected(relay.port) as (reader, writer):  # the process lives
        writer.write(request(relay.key, target=target))
        assert (await read_head(reader))[0] == 200
    samples = await scraped(relay)
    assert total(samples, "relay_request_outcomes_total", outcome="failed") == 1
    assert total(samples, "relay_requests_total", code="5xx") == 1
    assert relay.log()[0]["outcome"] == "failed"
    assert sum(one.in_flight for one in relay.app.upstreams) == 0
