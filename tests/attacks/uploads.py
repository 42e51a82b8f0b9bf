"""Requests in parts, for attacks on what is held of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import Live

KIB, MIB = 1024, 1024 * 1024
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PATHS = ["/v1/messages", "/v1/chat/completions", "/v1/responses"]


def head(key: str, *, target: str = "/v1/messages", length: int = -1, fields: str = "") -> bytes:
    framing = "transfer-encoding: chunked" if length < 0 else f"content-length: {length}"
    return (
        f"POST {target} HTTP/1.1\r\nhost: relay\r\nx-api-key: {key}\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n{fields}"
        f"{framing}\r\n\r\n"
    ).encode()


def chunk(octets: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(octets), octets)


def asked(target: str) -> dict[str, Any]:
    """A small request for a path."""
    if "/responses" in target:
        return {"model": BODY["model"], "input": "hi"}
    return BODY if "count" not in target else {k: BODY[k] for k in ("model", "messages")}


def padded(size: int, target: str = "/v1/messages") -> bytes:
    """A request of exactly `size` octets."""
    body = json.dumps(asked(target)).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


@contextlib.asynccontextmanager
async def several(port: int, number: int) -> AsyncIterator[list[Stream]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port)) for _ in range(number)]


async def other_key(relay: Live, email: str = "ben@example.com") -> str:
    await relay.create_user(email)
    return await relay.new_key(email)


def held(relay: Live) -> int:
    return relay.app.server.budget.held


async def refusal(stream: Stream) -> tuple[int, dict[bytes, bytes], str]:
    status, fields, payload = await read_answer(stream[0])
    return status, fields, json.loads(payload)["error"]["message"]


async def served(relay: Live, key: str) -> bool:
    async with connected(relay.port) as (reader, writer):
        writer.write(request(key))
        return (await read_answer(reader))[0] == 200
