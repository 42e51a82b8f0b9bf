"""Large requests hold up neither the loop nor other keys.

Eight of one key delay another key's first by the turn of one at most.
"""

import asyncio
import time

import pytest

from tests.attacks.uploads import other_key, several
from tests.fakes.caller import read_answer, request
from tests.fakes.live import RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always

PART = '{"type":"text","text":"a"}'
EIGHT = 8


def large(name: str, count: int) -> bytes:
    parts = f'[{{"type":"text","text":"{name}"}},{",".join([PART] * count)}]'
    return (
        f'{{"model":"claude-haiku-4-5","max_tokens":9,'
        f'"messages":[{{"role":"user","content":{parts}}}]}}'
    ).encode()


@pytest.mark.parametrize(
    ("target", "count"), [("/v1/messages", 33_000), ("/v1/chat/completions", 10_000)]
)
async def test_a_keys_large_requests_hold_no_other_key_up(
    upstream_with: UpstreamWith, relay_with: RelayWith, target: str, count: int
) -> None:
    upstream = await upstream_with(always(OK))
    plan = {"id": "free", "max_keys": 10, "exclude": ["web_search"]}  # so features are read
    relay = await relay_with(upstream, plan=[plan])
    other = await other_key(relay)
    async with several(relay.port, EIGHT + 1) as streams:
        for _, writer in streams[:EIGHT]:
            writer.write(request(relay.key, large("theirs", count), target=target))
        streams[EIGHT][1].write(request(other, large("mine", count), target=target))
        answers = await asyncio.gather(*(read_answer(reader) for reader, _ in streams))
    assert {status for status, _, _ in answers} == {200}
    turn = [b"mine" in seen.body for seen in upstream.requests].index(True)
    assert turn <= 2  # behind the one that was under way, and one beside it


HALVES = "\\ud83d" * 150_000  # 900 KB, each of which is mended
TURN_SECONDS = 0.05  # of the loop's own CPU time


async def longest_turn(ended: asyncio.Event) -> float:
    longest, before = 0.0, time.thread_time()
    while not ended.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/chat/completions"])
async def test_a_body_of_half_characters_is_mended_off_the_loop(
    upstream_with: UpstreamWith, relay_with: RelayWith, target: str
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    octets = request(relay.key, large(HALVES, 1), target=target)
    ended = asyncio.Event()
    async with several(relay.port, 1) as [(reader, writer)]:
        writer.write(octets)
        watching = asyncio.create_task(longest_turn(ended))
        status, _, _ = await read_answer(reader)
        ended.set()
        assert status == 200
        assert await watching < TURN_SECONDS
