"""A relay and callers of its provisioning API."""

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from relay.accounts import admin_keys
from relay.accounts.admin_keys import SCOPES
from tests.fakes.caller import connected, read_answer
from tests.fakes.live import Live, RelayWith
from tests.gateway.metering import PRICED

PLANS: list[dict[str, Any]] = [
    {"id": "free", "limits": [{"requests": 5, "per": "5h"}], "max_keys": 3},
    {"id": "paid", "billing": "per-token", "max_keys": 3},
]


@dataclass
class Answer:
    """An answer, decoded."""

    status: int
    fields: dict[bytes, bytes]
    value: Any


class Caller:
    """Calls the API with one admin key."""

    def __init__(self, relay: Live, key: str) -> None:
        self.relay = relay
        self.key = key

    async def call(
        self, method: str, path: str, body: Any = None, fields: str = "", **how: Any
    ) -> Answer:
        octets = b"" if body is None else json.dumps(body).encode()
        octets = how.get("octets", octets)
        key = how.get("key", self.key)
        auth = f"authorization: Bearer {key}\r\n" if key else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: relay\r\n{auth}{fields}"
            f"content-length: {len(octets)}\r\n\r\n"
        )
        async with connected(self.relay.port) as (reader, writer):
            writer.write(head.encode() + octets)
            status, answered, payload = await read_answer(reader)
        kind = answered[b"content-type"]
        expected = b"application/problem+json" if status >= 400 else b"application/json"
        assert kind == expected, payload
        value = json.loads(payload)
        if status >= 400:
            assert set(value) == {"type", "title", "status", "detail", "request_id"}
            assert value["status"] == status
            assert value["detail"].endswith(".")
        return Answer(status, answered, value)

    async def get(self, path: str) -> Any:
        """The value of a call that succeeds."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer.value
        return answer.value

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The value of a POST that is answered with this status."""
        answer = await self.call("POST", path, {} if body is None else body)
        assert answer.status == status, answer.value
        return answer.value


@pytest.fixture
async def relay(relay_with: RelayWith) -> Live:
    return await relay_with(plan=PLANS, model=PRICED)


async def caller_with(relay: Live, *scopes: str) -> Caller:
    issued = await admin_keys.create(
        relay.app.database, relay.settings, scopes, name="test", now=time.time()
    )
    return Caller(relay, issued.key.reveal())


@pytest.fixture
async def api(relay: Live) -> Caller:
    """A caller with all scopes."""
    return await caller_with(relay, *SCOPES)
