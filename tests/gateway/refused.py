"""An error as its caller receives it, and the checks that every error must pass."""

import dataclasses
import json
from typing import Any

from tests.fakes.caller import connected, read_answer
from tests.fakes.live import UPSTREAM_KEY, Live

BAD = "invalid_request_error"


@dataclasses.dataclass(frozen=True)
class Reply:
    """An error answer. `usable`: the connection took another request after it."""

    status: int
    fields: dict[bytes, bytes]
    error: dict[str, Any]
    usable: bool

    @property
    def final(self) -> bool:
        return self.fields.get(b"x-should-retry") == b"false"


async def ask(live: Live, octets: bytes) -> Reply:
    """Send `octets`, then a request that always works on the same connection."""
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        status, fields, body = await read_answer(reader)
        assert fields[b"content-type"] == b"application/json"
        document = json.loads(body)
        if "request_id" in document:
            assert document["request_id"].encode() == fields[b"request-id"]
        usable = b"connection" not in fields
        if usable:
            writer.write(b"HEAD / HTTP/1.1\r\nhost: relay\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        else:
            assert fields[b"connection"] == b"close"
            assert await reader.read(-1) == b""
        return Reply(status, fields, document, usable)


def is_refusal(reply: Reply, status: int, kind: str, *words: str) -> bool:
    """Check for this error in Anthropic's shape; whether just 401 and 403 forbid a retry."""
    assert set(reply.error) == {"type", "error", "request_id"}
    assert reply.error["type"] == "error"
    assert set(reply.error["error"]) == {"type", "message"}
    assert (reply.status, reply.error["error"]["type"]) == (status, kind)
    message = reply.error["error"]["message"]
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert UPSTREAM_KEY not in message
    return reply.final == (status in (401, 403))
