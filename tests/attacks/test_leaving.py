"""A caller who sends large bodies and leaves pays for them, and keeps nothing in memory."""

import asyncio

from relay.gateway import large_requests
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import RelayWith

PARTS = b'{"type":"text","text":"a"},' * 30_000
BODY = b'{"model":"claude-haiku-4-5","messages":[{"role":"user","content":[' + PARTS[:-1] + b"]}]}"


async def test_a_caller_who_leaves_while_it_is_read_pays(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=[{"id": "free", "limits": [{"requests": 5, "per": "1m"}]}])
    for _ in range(20):
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key, BODY, target="/v1/chat/completions"))
            await writer.drain()
            await asyncio.sleep(0.02)  # the body is read meanwhile
    assert not large_requests._reading
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 429
