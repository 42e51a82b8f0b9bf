"""A caller of raw octets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

BODY: dict[str, Any] = {
    "model": "claude-sonnet-4-7",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}


def request(
    key: str | None,
    body: bytes | dict[str, Any] | None = None,
    *,
    target: str = "/v1/messages",
    method: str = "POST",
    fields: str = "",
) -> bytes:
    """A canonical request; `fields` are further lines, each with CRLF."""
    if body is None:
        body = BODY
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    auth = f"x-api-key: {key}\r\n" if key is not None else ""
    return (
        f"{method} {target} HTTP/1.1\r\nhost: relay\r\n{auth}anthropic-version: 2023-06-01\r\n"
        f"content-type: application/json\r\n{fields}content-length: {len(octets)}\r\n\r\n"
    ).encode() + octets


async def exchange(port: int, octets: bytes, *, wait: float = 10.0) -> bytes:
    """Send octets; return everything received until the relay closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(octets)
        async with asyncio.timeout(wait):
            return await reader.read(-1)
    finally:
        writer.transport.abort()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    """Read one response head: status and fields."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields = {
        name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:-2])
    }
    return int(lines[0].split()[1]), fields


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """Read one response, framed by content-length or chunks: status, fields, payload."""
    status, fields = await read_head(reader)
    if fields.get(b"transfer-encoding") == b"chunked":
        payload = b""
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            payload += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return status, fields, payload
    return status, fields, await reader.readexactly(int(fields[b"content-length"]))


@contextlib.asynccontextmanager
async def connected(
    port: int, *, wait: float = 10.0, limit: int = 64 * 1024 * 1024
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the relay for `wait` seconds at most; aborted at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        async with asyncio.timeout(wait):
            yield reader, writer
    finally:
        writer.transport.abort()
