"""The errors of an upstream: passed on, translated or hidden."""

import json
import time
from typing import Any

import anthropic
import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import JSON_ANSWER, OK, UpstreamWith, always
from tests.gateway.refused import Reply, ask, is_refusal


async def behind(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes, *, close: bool = True
) -> Reply:
    """The reply of a relay whose upstream answers with `octets`."""
    relay = await relay_with(await upstream_with(always(octets, close=close)))
    return await ask(relay, request(relay.key))


async def test_a_down_upstream_is_an_immediate_503(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9")
    started = time.monotonic()
    reply = await ask(relay, request(relay.key))
    assert is_refusal(reply, 503, "overloaded_error", "cannot be reached", "Try again")
    assert reply.usable
    assert time.monotonic() - started < 1
    assert relay.log()[0]["outcome"].startswith("refused: ")


async def test_an_unresolvable_upstream_is_a_503(relay_with: RelayWith) -> None:
    relay = await relay_with("http://upstream.invalid")
    reply = await ask(relay, request(relay.key))
    assert is_refusal(reply, 503, "overloaded_error", "cannot be reached")


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x16\x03\x01 garbage \r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        answers.sized(b"<html>", kind=b"text/html"),
        answers.sized(b"hello", kind=b"text/plain"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        answers.sized(b"", b"302 Found", b"location: http://elsewhere.example/"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + OK,
    ],
)
async def test_an_invalid_answer_of_an_upstream_is_a_502(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes
) -> None:
    reply = await behind(upstream_with, relay_with, octets)
    assert is_refusal(reply, 502, "api_error", "upstream", "Try again")
    assert reply.usable
    assert "elsewhere" not in str(reply)


@pytest.mark.parametrize("status", [401, 402, 403, 407])
async def test_errors_of_the_operators_account_are_hidden(
    upstream_with: UpstreamWith, relay_with: RelayWith, status: int
) -> None:
    body = b'{"type":"error","error":{"type":"x","message":"Your credit balance, org-canary"}}'
    reply = await behind(
        upstream_with, relay_with, answers.sized(body, b"%d Whatever" % status), close=False
    )
    assert is_refusal(reply, 503, "overloaded_error", "operator")
    assert "canary" not in str(reply)
    assert reply.usable


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422, 429, 500, 502, 503, 504, 529])
async def test_an_upstreams_error_is_passed_word_for_word(
    upstream_with: UpstreamWith, relay_with: RelayWith, status: int
) -> None:
    body = (
        b'{ "type":"error","error":{"type":"overloaded_error","message":"w\\u00f6rd f\xc3\xbcr '
        b'word"}, "request_id":"req_upstream" }'
    )
    # Zero, because the relay holds the second request until retry-after has passed.
    octets = answers.sized(
        body, b"%d Odd Phrase" % status, b"retry-after: 0", b"x-should-retry: true"
    )
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    async with connected(relay.port) as (reader, writer):
        for _ in range(2):
            writer.write(request(relay.key))
            reply, fields, received = await read_answer(reader)
            assert (reply, received) == (status, body)
            assert fields[b"retry-after"] == b"0"
            assert fields[b"x-should-retry"] == b"true"
        assert upstream.connections == 1  # an error is no reason to drop a good connection
        assert [line["status"] for line in relay.log()] == [status, status]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"502 Bad Gateway", "api_error"),
        (b"413 Too Large", "request_too_large"),
        (b"400 Bad Request", "invalid_request_error"),
        (b"529 Overloaded", "overloaded_error"),
    ],
)
@pytest.mark.parametrize("page", [b"<html><h1>No</h1></html>", b"no", b"", b"[]", b"{}"])
async def test_an_error_that_is_no_json_becomes_one_of_its_status(
    upstream_with: UpstreamWith, relay_with: RelayWith, status: bytes, kind: str, page: bytes
) -> None:
    octets = answers.sized(page, status, kind=b"text/html")
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        seen, fields, body = await read_answer(reader)
    error = json.loads(body)
    assert seen == int(status[:3])
    assert fields[b"content-type"] == b"application/json"
    assert error["type"] == "error"
    assert error["error"]["type"] == kind
    assert str(seen) in error["error"]["message"]
    assert error["request_id"].encode() == fields[b"request-id"]


async def test_an_empty_error_body_does_not_shift_the_next_answer(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """Octets after an empty answer are not the answer to the next request."""
    poison = answers.sized(b"", b"529 Overloaded") + answers.sized(b'{"poison":true}')
    turns = iter([poison, OK])

    async def answer(reader: Any, writer: Any, seen: Any) -> None:
        writer.write(next(turns))
        await writer.drain()

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 529
        writer.write(request(relay.key))
        assert (await read_answer(reader))[::2] == (200, JSON_ANSWER)
        assert upstream.connections == 2


async def test_the_sdk_raises_its_own_error_for_each_status(live: Live) -> None:
    table: dict[int, type[anthropic.APIStatusError]] = {
        400: anthropic.BadRequestError,
        404: anthropic.NotFoundError,
        413: anthropic.APIStatusError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
        529: anthropic.InternalServerError,
    }
    async with anthropic.AsyncAnthropic(
        base_url=live.url, api_key=live.key, max_retries=0
    ) as client:
        for status, kind in table.items():
            with pytest.raises(kind) as raised:
                await client.messages.create(
                    **BODY, extra_headers={"x-simulate": f"fault=status;status={status}"}
                )
            assert raised.value.status_code == status
            assert raised.value.request_id is not None
