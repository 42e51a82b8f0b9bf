"""The error for a head that cannot be read has the shape of its path's API."""

import json

import pytest

from tests.fakes.caller import connected, read_answer
from tests.fakes.http2 import http2_caller
from tests.fakes.live import Live

HOST = b"host: relay\r\n"
FAULTS: dict[str, tuple[bytes, int]] = {
    "417": (HOST + b"expect: coffee\r\ncontent-length: 1\r\n", 417),
    "431, many fields": (HOST + b"x: y\r\n" * 101, 431),
    "431, long": (HOST + b"x: " + b"y" * 40_000 + b"\r\n", 431),
    "both lengths": (HOST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n", 400),
    "two lengths": (HOST + b"content-length: 1\r\ncontent-length: 2\r\n", 400),
    "501": (HOST + b"transfer-encoding: gzip, chunked\r\n", 501),
    "no host": (b"x: y\r\n", 400),
    "no colon": (HOST + b"hello\r\n", 400),
    "a bare LF": (HOST + b"x: y\n", 400),
}
OPENAI = ["/v1/chat/completions", "/v1/responses", "/v1/responses/resp_1", "/v1/models",
          "/responses", "/v1/v1/chat/completions?x=y", "http://relay/v1/responses"]  # fmt: skip
MESSAGES = ["/v1/messages", "/v1/messages/count_tokens?beta=true", "/", "/messages/"]


def is_openai(payload: bytes, fields: dict[bytes, bytes]) -> bool:
    document = json.loads(payload)
    assert fields[b"request-id"].startswith(b"req_")
    if set(document) == {"error"}:
        assert set(document["error"]) == {"message", "type", "param", "code"}
        assert fields[b"x-request-id"] == fields[b"request-id"]
        return True
    assert document["type"] == "error"
    assert document["request_id"].encode() == fields[b"request-id"]
    return False


@pytest.mark.parametrize(("rest", "status"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("target", [*OPENAI, *MESSAGES])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_broken_head_is_refused_in_its_paths_shape(
    live: Live, target: str, rest: bytes, status: int, pieces: int
) -> None:
    octets = b"POST %b HTTP/1.1\r\n%b\r\n" % (target.encode(), rest)
    async with connected(live.port) as (reader, writer):
        size = -(-len(octets) // pieces)
        for start in range(0, len(octets), size):
            writer.write(octets[start : start + size])
            await writer.drain()
        answered, fields, payload = await read_answer(reader)
    assert answered == status
    assert is_openai(payload, fields) == (target in OPENAI)


@pytest.mark.parametrize("version", [True, False])
async def test_the_list_of_models_has_the_shape_of_its_caller(live: Live, version: bool) -> None:
    field = b"Anthropic-Version: 2023-06-01\r\n" if version else b""
    octets = b"GET /v1/models HTTP/1.1\r\n" + HOST + field + b"expect: coffee\r\n\r\n"
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        _, fields, payload = await read_answer(reader)
    assert is_openai(payload, fields) != version


@pytest.mark.parametrize("line", [b"POST /v1/responses/%b HTTP/1.1\r\n", b"POST /v1/responses?%b"])
async def test_a_long_request_line_is_refused_in_its_shape(live: Live, line: bytes) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(line % (b"x" * 9000))
        status, fields, payload = await read_answer(reader)
    assert status == 414
    assert is_openai(payload, fields)


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ([("expect", "coffee")], 417),
        ([(f"x-{number}", "y") for number in range(101)], 431),
    ],
)
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_the_same_over_http2(
    live: Live, target: str, extra: list[tuple[str, str]], status: int
) -> None:
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "relay"), (":path", target)]
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request([*fields, *extra], b"{}"))
    assert reply.status == status
    named = {name.encode(): value.encode() for name, value in reply.fields.items()}
    assert is_openai(reply.payload, named) == (target != "/v1/messages")
