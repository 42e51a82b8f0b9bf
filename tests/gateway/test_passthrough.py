"""What goes in comes out: request bodies upstream, response bodies to the caller."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from tests.fakes.caller import BODY, request
from tests.fakes.live import UPSTREAM_KEY, Live, running_relay
from tests.fakes.upstream import OK, always, raw_upstream


async def test_a_message_comes_back_with_the_relays_own_fields(live: Live) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{live.url}/v1/messages", json=BODY, headers=live.headers)
    assert answer.status_code == 200
    assert answer.json()["type"] == "message"
    assert answer.headers["request-id"].startswith("req_")
    assert "relay;dur=" in answer.headers["server-timing"]
