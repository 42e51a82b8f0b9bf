"""A body that an upstream could read as another request is refused, whatever the path."""

import time

import pytest

from relay.accounts import users
from relay.store import balance
from tests.attacks.uploads import (
    PATHS,
    other_key,
    refusal,
)
from tests.fakes.caller import connected, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.quota.rows import balance_of


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("billing", ["subscription", "per-token"])
@pytest.mark.parametrize("target", [*PATHS, "/v1/messages/count_tokens", "/v1/responses/compact"])
@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("model", b'"model":"claude-haiku-4-5"'),
        ("model", rb'"mod\u0065l":"claude-haiku-4-5"'),
        ("model", b'"Model":"claude-haiku-4-5"'),
        ("stream", b'"STREAM":true'),
        ("max_tokens", b'"max_tokens":128000,"max_tokens":1'),
        ("messages", b'"messages":[],"m\\u0065ssages":[]'),
    ],
)
async def test_a_body_with_two_readings_is_refused_on_every_path(
    upstream_plans: Live, target: str, field: str, other: bytes, billing: str
) -> None:
    relay = upstream_plans
    key = relay.key if billing == "subscription" else await other_key(relay)
    if billing == "per-token":
        await users.set_plan(relay.app.database, relay.settings, "ben@example.com", "paid")
        ben = (await users.find(relay.app.database, "ben@example.com")).id
        await balance.credit(relay.app.database, ben, 10_000_000, "", time.time())
        await relay.reload_keys()
        await until(lambda: balance_of(relay.app.ledger, ben) > 0)
    body = b'{"model":"claude-sonnet-4-7",%b}' % other
    async with connected(relay.port) as stream:
        stream[1].write(request(key, body, target=target))
        status, _, message = await refusal(stream)
    assert status == 400
    assert message.startswith(f"{field}: give it once")


@pytest.fixture
async def upstream_plans(relay_with: RelayWith) -> Live:
    """A relay with a plan of each billing."""
    price = {"input": 3.0, "output": 15.0}
    models = [{"id": name, "price": price} for name in ("claude-sonnet-4-7", "claude-haiku-4-5")]
    plans = [{"id": "free", "max_keys": 10}, {"id": "paid", "billing": "per-token"}]
    return await relay_with(model=models, plan=plans)
