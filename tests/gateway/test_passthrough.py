"""Bodies pass unchanged: requests to the upstream, responses to the caller."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, exchange, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import OK, Seen, UpstreamWith, always

MIB = 1024 * 1024
STREAM = {**BODY, "stream": True}
COUNTED = {name: value for name, value in BODY.items() if name != "max_tokens"}


def sha(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def big_body(size: int) -> bytes:
    """A valid request of exactly `size` octets, in spacing that no encoder writes."""
    front = (
        '{ "model":"claude-sonnet-4-7" ,\n"max_tokens": 100,"messages":[{"role":"user","content":"'
    )
    back = '"}] }\n'
    fill = "ä🌍\\u00e4\\n x" * ((size - 120) // 20)
    octets = (front + fill).encode()
    return octets + b"." * (size - len(octets) - len(back)) + back.encode()


def last_body(live: Live) -> tuple[str, int]:
    assert live.simulator is not None
    entry = live.simulator.journal.report()["requests"][-1]
    return entry["body_sha256"], entry["body_bytes"]


async def test_an_answer_carries_the_relays_own_fields(live: Live) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{live.url}/v1/messages", json=BODY, headers=live.headers)
    assert answer.status_code == 200
    assert answer.json()["type"] == "message"
    assert answer.headers["request-id"].startswith("req_")
    assert "relay;dur=" in answer.headers["server-timing"]


@pytest.mark.parametrize("size", [300, 70_000, 8 * MIB])
async def test_a_request_body_goes_upstream_unchanged(live: Live, size: int) -> None:
    body = big_body(size)
    assert len(body) == size
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(
            f"{live.url}/v1/messages",
            content=body,
            headers={**live.headers, "content-type": "application/json"},
        )
    assert answer.status_code == 200, answer.text
    assert last_body(live) == (sha(body), size)


@pytest.mark.parametrize("piece", [1, 7, 1000, 65_536])
async def test_a_chunked_request_body_loses_only_its_framing(live: Live, piece: int) -> None:
    body = big_body(500 if piece < 100 else 300_000)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(
            f"{live.url}/v1/messages",
            content=pieces(),
            headers={**live.headers, "content-type": "application/json"},
        )
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 200, answer.text
    assert last_body(live) == (sha(body), len(body))
    assert live.simulator is not None
    sent = dict(live.simulator.journal.report()["requests"][-1]["headers"])
    assert "transfer-encoding" not in sent


async def test_expect_100_continue_is_answered(live: Live) -> None:
    octets = request(live.key, fields="expect: 100-continue\r\n")
    head, _, body = octets.partition(b"\r\n\r\n")
    async with connected(live.port) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        status, _, _ = await read_answer(reader)
    assert status == 200
    assert last_body(live) == (sha(body), len(body))


async def test_a_caller_without_a_key_is_refused_before_its_body(live: Live) -> None:
    octets = request(None, fields="expect: 100-continue\r\n")
    async with connected(live.port) as (reader, writer):
        writer.write(octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await read_head(reader))[0] == 401


@pytest.mark.parametrize(
    "target",
    [
        "/v1/messages?beta=true",
        "/v1/messages?",
        "/v1/messages?a=b&a=c&%20=%2F;x=?/:@!$'()*,",
        "/v1/messages/count_tokens?beta=true",
    ],
)
async def test_any_query_string_is_kept(live: Live, target: str) -> None:
    octets = request(live.key, COUNTED if "count" in target else None, target=target)
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 200
    assert live.simulator is not None
    assert live.simulator.journal.report()["requests"][-1]["target"] == target


async def test_an_upstreams_path_prefix_precedes_the_path(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(f"{upstream.url}/api/anthropic/")
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, target="/v1/messages?beta=true"))
        assert (await read_answer(reader))[0] == 200
        assert upstream.requests[0].head.startswith(
            b"POST /api/anthropic/v1/messages?beta=true HTTP/1.1\r\n"
        )


# --- answers ------------------------------------------------------------------------


async def answered_with(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes, *, split: int = 0
) -> tuple[bytes, bytes]:
    """The head and the framed body that a caller gets if the upstream sends `octets`."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        step = split or len(octets)
        for start in range(0, len(octets), step):
            writer.write(octets[start : start + step])
            await writer.drain()
            if split:
                await asyncio.sleep(0)
        writer.close()

    relay = await relay_with(await upstream_with(answer))
    body = STREAM if b"text/event-stream" in octets else BODY
    asked = request(relay.key, body, fields="connection: close\r\n")
    received = await exchange(relay.port, asked, wait=20)
    head, _, framed = received.partition(b"\r\n\r\n")
    return head, framed


EVENTS = answers.stream(("Grüße ", "aus 東京", "🌍🌎🌏"))
WIRE = b"".join(EVENTS)


def framings() -> dict[str, bytes]:
    """The same stream in legal framings, most of which no server would choose."""
    cut = WIRE.index("東".encode()) + 1  # within a character
    return {
        "an event each": b"".join(map(answers.chunk, EVENTS)),
        "one chunk": answers.chunk(WIRE),
        "an octet each": b"".join(answers.chunk(WIRE[i : i + 1]) for i in range(len(WIRE))),
        "a character torn": answers.chunk(WIRE[:cut]) + answers.chunk(WIRE[cut:]),
        "extensions": b"".join(
            answers.chunk(one, b';a=b;c="d, e"' if n % 2 else b" ; x")
            for n, one in enumerate(EVENTS)
        ),
        "upper case and zeros": b"".join(b"%08X\r\n%b\r\n" % (len(one), one) for one in EVENTS),
        "13 octets each": b"".join(
            answers.chunk(WIRE[i : i + 13]) for i in range(0, len(WIRE), 13)
        ),
    }


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("split", [0, 1, 7])
@pytest.mark.parametrize("framing", framings())
async def test_chunks_reach_the_caller_octet_for_octet(
    upstream_with: UpstreamWith, relay_with: RelayWith, framing: str, split: int
) -> None:
    body = framings()[framing]
    octets = answers.chunked_head() + body + answers.LAST
    head, received = await answered_with(upstream_with, relay_with, octets, split=split)
    assert b"\r\ntransfer-encoding: chunked" in head
    assert received == body + answers.LAST


async def test_the_trailers_of_an_upstream_are_not_passed_on(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    body = answers.chunk(WIRE)
    octets = answers.chunked_head() + body + b"0;last\r\nx-organization: secret\r\n\r\n"
    _, received = await answered_with(upstream_with, relay_with, octets)
    assert received == body + answers.LAST


@pytest.mark.parametrize("size", [2, 65_536, 8 * MIB])
async def test_a_json_answer_reaches_the_caller_unchanged(
    upstream_with: UpstreamWith, relay_with: RelayWith, size: int
) -> None:
    filler = ("é🌍" * (size // 6)).encode()[: max(0, size - 20)].decode(errors="ignore")
    content = [{"type": "text", "text": filler}] if size > 2 else []
    message = {"type": "message", "content": content}
    body = json.dumps(message, ensure_ascii=False).encode()
    head, received = await answered_with(upstream_with, relay_with, answers.sized(body))
    assert b"content-length: %d" % len(body) in head
    assert sha(received) == sha(body)


async def test_an_8_mb_stream_reaches_the_caller_unchanged(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    events = answers.stream("ü€🌍" * 300 for _ in range(3000))
    body = b"".join(map(answers.chunk, events)) + answers.LAST
    assert len(body) > 8 * MIB
    _, received = await answered_with(upstream_with, relay_with, answers.chunked_head() + body)
    assert sha(received) == sha(body)


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["split=7", "split=1;tokens=3", "bytes=8000000", "thinking=1"])
async def test_answers_through_the_relay_equal_direct_ones(
    live: Live, script: str, stream: bool
) -> None:
    """Compares lengths: ids differ from one request to the next."""
    assert live.simulator is not None
    body = json.dumps(STREAM if stream else BODY).encode()
    headers = {**live.headers, "content-type": "application/json", "x-simulate": script}
    upstream = live.upstream_url
    texts = []
    async with httpx.AsyncClient(timeout=20) as client:
        for url in (live.url, upstream):
            answer = await client.post(f"{url}/v1/messages", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            if stream:
                assert answer.content.endswith(b'data: {"type":"message_stop"}\n\n')
            else:
                answer.json()
            texts.append(len(answer.content))
    if "thinking" not in script:  # a signature's length may differ
        assert texts[0] == texts[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_framed_by_close_is_sent_in_chunks(
    upstream_with: UpstreamWith, relay_with: RelayWith, stream: bool
) -> None:
    kind = b"text/event-stream" if stream else b"application/json"
    payload = WIRE if stream else b'{"type":"message"}'
    head, received = await answered_with(
        upstream_with,
        relay_with,
        answers.head(b"200 OK", b"connection: close", kind=kind) + payload,
    )
    assert b"\r\ntransfer-encoding: chunked" in head
    plain = b""
    while True:
        size, _, received = received.partition(b"\r\n")
        if not int(size, 16):
            break
        plain += received[: int(size, 16)]
        received = received[int(size, 16) + 2 :]
    assert plain == payload
    assert received == b"\r\n"


async def test_a_chunked_document_loses_its_chunks_for_http_1_0(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    document = b'{"type":"message","model":"claude-sonnet-4-7","content":[]}'
    chunks = answers.chunk(document[:20]) + answers.chunk(document[20:]) + answers.LAST
    octets = answers.head(b"200 OK", b"transfer-encoding: chunked") + chunks
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    asked = request(relay.key).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    head, _, body = (await exchange(relay.port, asked)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == document


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_with_a_length_in_one_read_is_complete(
    upstream_with: UpstreamWith, relay_with: RelayWith, version: str
) -> None:
    events = b"".join(answers.stream())
    octets = answers.sized(events, kind=b"text/event-stream")
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    asked = request(relay.key, STREAM, fields="connection: close\r\n")
    asked = asked.replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1)
    _, _, body = (await exchange(relay.port, asked)).partition(b"\r\n\r\n")
    assert body == events
    assert [line["outcome"] for line in relay.log()] == ["whole"]
