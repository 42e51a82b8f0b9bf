"""What a key has left is looked at before a request is collected or read."""

import asyncio
import gzip

import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import RelayWith

MINUTE = [{"id": "free", "limits": [{"requests": 3, "per": "1m"}], "max_keys": 10}]
FIVE_HOURS = [{"id": "free", "limits": [{"requests": 1, "per": "5h"}], "max_keys": 10}]
PATHS = [
    "/v1/messages",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/messages/count_tokens",
    "/v1/responses/input_tokens",
]


async def status_of(port: int, octets: bytes) -> int:
    async with connected(port) as (reader, writer):
        writer.write(octets)
        return (await read_answer(reader))[0]


@pytest.mark.parametrize("path", PATHS)
async def test_refusals_use_up_the_limit_per_minute(relay_with: RelayWith, path: str) -> None:
    live = await relay_with(plan=MINUTE)
    broken = request(live.key, b"{", target=path)
    assert [await status_of(live.port, broken) for _ in range(4)] == [400, 400, 400, 429]


@pytest.mark.parametrize("path", PATHS)
async def test_a_refused_request_needs_no_body(relay_with: RelayWith, path: str) -> None:
    """The answer comes while the body has yet to come, so no octet of it was read."""
    live = await relay_with(plan=MINUTE)
    broken = request(live.key, b"{", target=path)
    for _ in range(3):
        await status_of(live.port, broken)
    announced = broken.replace(b"content-length: 1\r\n", b"content-length: 20000000\r\n")
    assert announced != broken
    assert await status_of(live.port, announced) == 429


@pytest.mark.parametrize("path", PATHS[:4])
async def test_with_a_window_used_up_small_bodies_are_not_read(
    relay_with: RelayWith, path: str
) -> None:
    live = await relay_with(plan=FIVE_HOURS)
    assert await status_of(live.port, request(live.key)) == 200
    broken = request(live.key, b"{", target=path)
    assert [await status_of(live.port, broken) for _ in range(2)] == [429, 429]


async def test_a_key_with_nothing_left_is_refused_by_its_head(relay_with: RelayWith) -> None:
    bomb = gzip.compress(bytes(64 << 20))  # made before the relay runs on this loop
    live = await relay_with(plan=FIVE_HOURS)
    assert await status_of(live.port, request(live.key)) == 200
    fields = "content-encoding: gzip\r\n"
    octets = request(live.key, bomb, target="/v1/chat/completions", fields=fields)
    assert await asyncio.wait_for(status_of(live.port, octets), 1) == 429
    body = {"model": "claude-sonnet-4-7", "messages": [{"role": "user", "content": "hi"}]}
    count = request(live.key, body, target="/v1/messages/count_tokens")
    assert await status_of(live.port, count) == 200  # counting uses no quota
