"""Kept conversations cost others nothing, and counting their tokens has its price first."""

import asyncio
import gzip
import json
import time
from typing import Any

import orjson
import pytest

from tests.attacks.uploads import KIB, MIB, held, other_key, refusal, served
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until

RESPONSES, COUNT = "/v1/responses", "/v1/responses/input_tokens"
KEY = "0123456789abcdef0123456789abcdef"
MODEL = "claude-sonnet-4-7"
STORES: dict[str, dict[str, Any]] = {
    "memory": {"store": "memory"},
    "database": {"store": "database", "key": KEY},
}


@pytest.fixture(params=STORES)
async def storing(request: pytest.FixtureRequest, relay_with: RelayWith) -> Live:
    return await relay_with(responses={**STORES[request.param], "conversation": 12 * MIB})


async def ask(
    relay: Live, body: dict[str, Any], *, target: str = RESPONSES, key: str = ""
) -> tuple[int, dict[str, Any], int]:
    """Status, document and octets of the answer to a compressed request."""
    octets = await asyncio.to_thread(_compressed, body)
    async with connected(relay.port) as (reader, writer):
        fields = "content-encoding: gzip\r\n"
        writer.write(request(key or relay.key, octets, target=target, fields=fields))
        status, _, payload = await read_answer(reader)
    return status, json.loads(payload), len(payload)


def _compressed(body: dict[str, Any]) -> bytes:
    return gzip.compress(orjson.dumps({"model": MODEL, **body}), 1)


async def conversation(relay: Live, turns: int, size: int) -> str:
    """The id of the last turn."""
    previous: str | None = None
    for _ in range(turns):
        body = {"input": "x" * size, "previous_response_id": previous}
        status, answer, _ = await ask(relay, body)
        assert (status, answer["store"]) == (200, True)
        previous = answer["id"]
    assert previous is not None
    return previous


async def test_counting_a_long_conversation_many_times_stops_nobody(storing: Live) -> None:
    """20 requests of 130 octets: nobody was served for 13 s, eight of nine refused."""
    previous = await conversation(storing, 5, 500 * KIB)
    other = await other_key(storing)
    body = {"input": "x", "previous_response_id": previous}
    counts = [asyncio.create_task(ask(storing, body, target=COUNT)) for _ in range(20)]
    times = []
    while not all(task.done() for task in counts):
        started = time.monotonic()
        assert await served(storing, other)
        times.append(time.monotonic() - started)
    statuses = {(await task)[0] for task in counts}
    assert 200 in statuses
    assert statuses <= {200, 429}
    assert max(times) < 2
    await until(lambda: held(storing) == 0)


async def test_a_conversation_that_grows_too_long_is_not_kept(storing: Live) -> None:
    previous = await conversation(storing, 2, 5 * MIB)
    body = {"input": "x" * 5 * MIB, "previous_response_id": previous}
    status, answer, _ = await ask(storing, body)
    assert (status, answer["store"]) == (200, False)
    status, error, _ = await ask(storing, {"input": "x", "previous_response_id": answer["id"]})
    assert (status, error["error"]["code"]) == (400, "previous_response_not_found")
    status, answer, _ = await ask(storing, {"input": "x" * 13 * MIB})
    assert (status, answer["store"]) == (200, False)


async def test_loaded_turns_count_as_held(storing: Live) -> None:
    previous = await conversation(storing, 3, 3 * MIB)
    body = {"model": MODEL, "input": "x", "previous_response_id": previous}
    most = 0
    async with connected(storing.port) as (reader, writer):
        writer.write(request(storing.key, body, target=RESPONSES))
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            most = max(most, held(storing))
            await asyncio.sleep(0)
        assert (await answer)[0] == 200
    assert most >= 9 * MIB
    await until(lambda: held(storing) == 0)


async def test_one_account_does_not_push_out_anothers_responses(storing: Live) -> None:
    other = await other_key(storing)
    status, honest, _ = await ask(storing, {"input": "hello"}, key=other)
    assert status == 200
    for _ in range(10):
        items = [{"type": "other"}] * 95_000
        assert (await ask(storing, {"input": [*items, {"role": "user", "content": "x"}]}))[0] < 500
    body = {"input": "and now?", "previous_response_id": honest["id"]}
    assert (await ask(storing, body, key=other))[0] == 200


async def test_counting_is_admitted_before_a_conversation_is_loaded(live: Live) -> None:
    """Those of an unknown response are counted, too."""
    body = {"model": MODEL, "input": "x", "previous_response_id": "resp_unknown"}
    octets = request(live.key, body, target=COUNT)
    statuses = []
    async with connected(live.port) as (reader, writer):
        writer.write(octets * 620)
        for _ in range(620):
            statuses.append((await read_answer(reader))[0])
    assert statuses[:600] == [400] * 600
    assert statuses[-1] == 429


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["instructions", "tools", "metadata"])
async def test_a_short_request_has_no_answer_of_many_mebibytes(
    live: Live, field: str, stream: bool
) -> None:
    """29 KiB of gzip were answered with 45 MiB."""
    value: Any = {
        "instructions": "i" * 4 * MIB,
        "tools": [{"type": "tool_search", "x": "y" * KIB}] * 1000,
        "metadata": {"k": "v" * 30 * MIB},
    }[field]
    octets = json.dumps({"model": MODEL, "input": "x", "stream": stream, field: value}).encode()
    body = gzip.compress(octets)
    assert len(body) < 64 * KIB
    async with connected(live.port) as (reader, writer):
        fields = "content-encoding: gzip\r\n"
        writer.write(request(live.key, body, target=RESPONSES, fields=fields))
        if field == "metadata":
            status, _, message = await refusal((reader, writer))
            assert (status, message[:9]) == (400, "metadata:")
        else:
            status, _, payload = await read_answer(reader)
            assert status == 200
            assert len(payload) < 64 * KIB
