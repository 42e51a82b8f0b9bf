"""Every answer to a known key carries the state of its limits."""

import time
from typing import Any

import pytest

from relay.accounts import users
from tests.fakes.caller import BODY
from tests.fakes.live import EMAIL, RelayWith
from tests.gateway.metering import COUNT, FREE, HOURS, STREAM, ask, left, moment, plan

GROUPS = (b"x-ratelimit", b"anthropic-ratelimit-requests", b"anthropic-ratelimit-tokens")
LIMIT_FIELDS = {group + part for group in GROUPS for part in (b"-limit", b"-remaining", b"-reset")}


def limit_fields(fields: dict[bytes, bytes]) -> set[bytes]:
    """The names of the limit fields, without Anthropic's unified ones."""
    return {
        name for name in fields if b"ratelimit" in name and not name.count(b"ratelimit-unified")
    }


UNSERVED = {**BODY, "model": "gpt-unheard-of"}
EVERY_ANSWER = [
    pytest.param(200, {}, id="whole"),
    pytest.param(200, {"body": STREAM}, id="stream"),
    pytest.param(200, {"body": COUNT, "target": "/v1/messages/count_tokens"}, id="count"),
    pytest.param(200, {"method": "GET", "target": "/v1/models", "body": b""}, id="models"),
    pytest.param(
        200, {"method": "GET", "target": "/v1/models/claude-opus-4-8", "body": b""}, id="model"
    ),
    pytest.param(
        404, {"method": "GET", "target": "/v1/models/no-such", "body": b""}, id="no-such-model"
    ),
    pytest.param(400, {"body": b"{"}, id="no-json"),
    pytest.param(400, {"body": {"model": "claude-opus-4-8"}}, id="refused-upstream"),
    pytest.param(404, {"body": UNSERVED}, id="unserved"),
    pytest.param(404, {"target": "/v1/embeddings"}, id="no-such-path"),
    pytest.param(405, {"method": "PUT"}, id="wrong-method"),
    pytest.param(413, {"body": b" " * 5000}, id="too-large"),
    *(
        pytest.param(status, {"script": f"status={status}"}, id=f"upstream-{status}")
        for status in (400, 404, 429, 500, 529)
    ),
    pytest.param(503, {"script": "status=401"}, id="upstream-401"),
    pytest.param(502, {"script": "fault=close"}, id="upstream-closes"),
    pytest.param(502, {"script": "fault=html;status=200"}, id="upstream-html"),
]


@pytest.mark.parametrize(("status", "how"), EVERY_ANSWER)
async def test_every_answer_to_a_known_key_has_limit_fields(
    relay_with: RelayWith, status: int, how: dict[str, Any]
) -> None:
    server = {"limits": {"body": 4096}}
    relay = await relay_with(plan=plan(*FREE), server=server)
    before = time.time()
    got, fields, _ = await ask(relay, **how)
    if how.get("script") == "fault=html;status=200":
        status = got  # the status is not this test's subject
    assert got == status
    assert limit_fields(fields) == LIMIT_FIELDS
    assert fields[b"request-id"]
    assert b"relay;dur=" in fields[b"server-timing"]
    sizes = [int(fields[group + b"-limit"]) for group in GROUPS]
    assert sizes == [40, 6000, 80_000_000]
    for group, size, longest in zip(GROUPS, sizes, (HOURS, 60, 60), strict=True):
        assert 0 <= left(fields, group) <= size
        assert before - 0.002 <= moment(fields[group + b"-reset"]) <= time.time() + longest


async def test_a_refused_request_has_limit_fields(relay_with: RelayWith) -> None:
    limits = [{"requests": 1, "per": "5h"}, *FREE[1:]]
    relay = await relay_with(plan=plan(*limits))
    await ask(relay)
    status, fields, _ = await ask(relay)
    assert (status, limit_fields(fields)) == (429, LIMIT_FIELDS)


async def test_a_suspended_account_gets_limit_fields(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*FREE))
    await users.suspend(relay.app.database, EMAIL, time.time())
    await relay.reload_keys()
    status, fields, _ = await ask(relay)
    assert (status, limit_fields(fields)) == (403, LIMIT_FIELDS)


@pytest.mark.parametrize(
    "target", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens", "/v1/embeddings"]
)
async def test_an_unknown_key_gets_nothing_but_a_request_id(
    relay_with: RelayWith, target: str
) -> None:
    method = "GET" if target == "/v1/models" else "POST"
    relay = await relay_with(plan=plan(*FREE))
    _, fields, _ = await ask(relay, "sk-llmapi-" + "0" * 43, target=target, method=method)
    openai = target == "/v1/embeddings"  # OpenAI's SDKs read the id from x-request-id
    assert set(fields) == {
        *(b"content-type", b"content-length", b"date", b"request-id", b"server-timing"),
        *(b"access-control-allow-origin", b"access-control-expose-headers"),
        b"x-request-id" if openai else b"x-should-retry",
    }
