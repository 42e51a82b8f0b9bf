"""Callers who want answers for nothing, and an honest caller beside them."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith
from tests.gateway.metering import PAID, PRICED, ask, credit, plan, user_id
from tests.quota.rows import balance_of

_LINK = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
_SCHEMES: dict[str, bytes] = {
    "plain": json.dumps({**BODY, "messages": [{"role": "user", "content": [_LINK]}]}).encode(),
    "escaped": json.dumps({**BODY, "messages": [{"role": "user", "content": [_LINK]}]})
    .replace("url", "u\\u0072l")
    .encode(),
    "capitals": json.dumps({**BODY, "Container": "c"}).encode(),
    "twice": b'{"container":"c",' + json.dumps(BODY).encode()[1:-1] + b',"container":null}',
    "thread": json.dumps({**BODY, "thread": {"type": "continue"}}).encode(),
}


async def dear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
    """900,000 tokens of input for everything but the honest caller's request."""
    await asyncio.sleep(0.05)
    honest = b"honest" in seen.body
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": BODY["model"],
        "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10 if honest else 900_000, "output_tokens": 1},
    }  # fmt: skip
    writer.write(answers.sized(json.dumps(message).encode()))


HONEST = {**BODY, "messages": [{"role": "user", "content": "honest"}]}


async def honest_key(relay: Live) -> str:
    """The key of another account, whose plan is the same."""
    await relay.create_user("bob@example.com")
    return await relay.new_key("bob@example.com")


@pytest.mark.parametrize("scheme", _SCHEMES)
async def test_twenty_dear_requests_on_ten_cents_are_refused(
    upstream_with: UpstreamWith, relay_with: RelayWith, scheme: str
) -> None:
    upstream = await upstream_with(dear)
    relay = await relay_with(upstream, plan=PAID, model=PRICED)
    await credit(relay, 100_000)
    given = await asyncio.gather(*(ask(relay, body=_SCHEMES[scheme]) for _ in range(20)))
    assert Counter(status for status, _, _ in given) == {402: 20}
    assert not upstream.requests
    assert (await ask(relay, body=HONEST))[0] == 200
    assert balance_of(relay.app.ledger, await user_id(relay)) == 100_000 - 45


async def test_whoever_hangs_up_each_time_is_stopped(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if b"honest" in seen.body:
            await dear(reader, writer, seen)
        else:
            await asyncio.sleep(30)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, plan=plan({"requests": 10, "per": "5h"}))
    other = await honest_key(relay)
    for count in range(1, 11):
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key))
            await until(lambda count=count: len(upstream.requests) == count)  # type: ignore[misc]
    await until(lambda: not relay.app.upstreams[0].in_flight)
    assert (await ask(relay))[0] == 429
    assert len(upstream.requests) == 10
    assert (await ask(relay, other, body=HONEST))[0] == 200
