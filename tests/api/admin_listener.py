"""A relay with an admin listener, and requests to it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from relay.api.admin import proof
from relay.api.admin_token import read_token
from tests.fakes.caller import BODY
from tests.fakes.live import UPSTREAM_KEY, Live, running_relay, running_simulator

LISTEN = {"admin_listen": "127.0.0.1:0"}
TWO: list[dict[str, Any]] = [{"name": "one"}, {"name": "two"}]


@contextlib.asynccontextmanager
async def admin_relay(
    folder: Path, upstream: list[dict[str, Any]] = TWO, **sections: Any
) -> AsyncIterator[Live]:
    """A relay with an admin listener, in front of upstreams that work."""
    async with running_simulator() as (_, url):
        rows = [{"base_url": url, "api_key": UPSTREAM_KEY, **one} for one in upstream]
        sections = {"server": LISTEN, "pool": {"wait": 5}, **sections}
        async with running_relay(folder, rows, **sections) as relay:
            yield relay


def token_fields(relay: Live) -> dict[str, str]:
    token = read_token(relay.settings.database.path)
    return {"authorization": f"Bearer {token}"} if token else {}


def admin_fields(relay: Live) -> dict[str, str]:
    return {"x-relay-admin": proof(relay.settings.database.path), **token_fields(relay)}


async def admin(
    relay: Live, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send a request, with this relay's proof and token, to the admin listener."""
    async with httpx.AsyncClient() as client:
        url = f"http://{relay.app.admin_address}{path}"
        return await client.request(method, url, headers={**admin_fields(relay), **(headers or {})})


async def served_by(relay: Live) -> str:
    """The upstream that answered a request, or else the error's status."""
    async with httpx.AsyncClient() as client:
        url = f"{relay.url}/v1/messages"
        answer = await client.post(url, headers=relay.headers, json=BODY)
    if answer.status_code != 200:
        return str(answer.status_code)
    return str(relay.log()[-1]["upstream"])
