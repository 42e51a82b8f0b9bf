"""Bodies that only an upstream of raw octets can send: complete and cut ones stay apart."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from tests.fakes.caller import BODY, exchange, read_answer, request
from tests.fakes.listening import listening
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import JSON_ANSWER, Seen, UpstreamWith, always

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
LONG = b" " * 1_200_000  # above the buffer limit of an answer
START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % JSON_ANSWER
DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


async def ask(
    relay: Live, *, version: str = "1.1", fields: str = "", stream: bool = False
) -> bytes:
    """All octets of one answer to a request with `connection: close`."""
    body = {**BODY, "stream": stream}
    octets = request(relay.key, body, fields=f"connection: close\r\n{fields}")
    return await exchange(relay.port, octets.replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1))


def is_whole(octets: bytes) -> bool:
    return octets.endswith(b"\r\n" + LAST_CHUNK)


@pytest.mark.parametrize("before", [b"", LONG], ids=["short", "long"])
@pytest.mark.parametrize("missing", [0, 1, 50])
async def test_json_framed_by_close_is_complete_only_if_it_parses(
    upstream_with: UpstreamWith, relay_with: RelayWith, missing: int, before: bytes
) -> None:
    octets = HEAD + b"\r\n" + before + JSON_ANSWER[: len(JSON_ANSWER) - missing]
    upstream = await upstream_with(always(octets, close=True))
    relay = await relay_with(upstream)
    answer = await ask(relay)
    [line] = relay.log()
    if not missing:
        assert is_whole(answer)
        assert line["outcome"] == "whole"
    elif before:  # part of it was sent already
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not is_whole(answer)
        assert line["outcome"].startswith("cut: the upstream closed")
    else:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"broke off" in answer
        assert line["outcome"].startswith("refused: ")


@pytest.mark.parametrize("stop", [b'"\xff\xfe"', b'"\xed\xa0\x80"'])
async def test_octets_that_are_no_unicode_pass_unchanged(
    upstream_with: UpstreamWith, relay_with: RelayWith, stop: bytes
) -> None:
    odd = JSON_ANSWER.replace(b'"claude-sonnet-4-7"', stop).replace(b'"end_turn"', stop)
    delta = (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":%b},' % stop
    )
    delta += b'"usage":{"output_tokens":7}}\n\n'
    events = chunks(START.replace(b'"claude-sonnet-4-7"', stop), delta, STOP)
    document = HEAD + b"content-length: %d\r\n\r\n" % len(odd) + odd
    stream = SSE + CHUNKED + events + LAST_CHUNK
    octets = iter((document, stream))

    async def answer(reader: Any, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(next(octets))

    relay = await relay_with(await upstream_with(answer))
    for sent in (document, stream):
        assert (await ask(relay, stream=sent is stream)).endswith(sent.partition(b"\r\n\r\n")[2])
    assert [line["outcome"] for line in relay.log()] == ["whole", "whole"]


async def test_one_event_of_many_megabytes_passes(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    huge = b'event: x\ndata: {"x":"%b"}\n\n' % (b"x" * 6_000_000)
    body = chunks(START, huge, STOP) + LAST_CHUNK
    upstream = await upstream_with(always(SSE + CHUNKED + body))
    relay = await relay_with(upstream)
    assert (await ask(relay, stream=True)).endswith(b"\r\n\r\n" + body)
    assert relay.log()[0]["outcome"] == "whole"


@pytest.mark.parametrize("started", [True, False], ids=["content", "buffered"])
@pytest.mark.parametrize(
    "broken",
    [b"zz\r\n", b"-1\r\n", b"5\n", b"fffffffffffffffffff\r\n", b"5 5\r\n", b"3\r\nabcde"],
)
@pytest.mark.parametrize("head", [HEAD, SSE], ids=["json", "sse"])
async def test_broken_chunks_cut_an_answer_or_refuse_it(
    upstream_with: UpstreamWith, relay_with: RelayWith, head: bytes, broken: bytes, started: bool
) -> None:
    shown = DELTA if head == SSE else LONG

    async def answer(reader: Any, writer: asyncio.StreamWriter, seen: Seen) -> None:
        first = START if head == SSE else b'{"type":"message",'
        writer.write(head + CHUNKED + chunks(first, *([shown] if started else [])))
        await writer.drain()
        await asyncio.sleep(0.02)  # until the answer is sent, or buffered
        writer.write(broken + LAST_CHUNK)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    octets = await ask(relay, stream=head == SSE)
    [line] = relay.log()
    if started:
        assert octets.startswith(b"HTTP/1.1 200 OK")
        assert not is_whole(octets)
        assert line["outcome"].startswith("cut: the upstream did not answer in HTTP/1.1")
    else:
        assert octets.startswith(b"HTTP/1.1 502 ")
        assert line["tried"].startswith("main: did not answer in HTTP/1.1")
    assert relay.keeps_idle(0)


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: +5\r\n",
        b"content-length: -1\r\n",
        b"transfer-encoding: gzip\r\n",
        b"transfer-encoding: chunked, chunked\r\n",
    ],
)
async def test_a_head_with_ambiguous_framing_is_a_502(
    upstream_with: UpstreamWith, relay_with: RelayWith, framing: bytes
) -> None:
    octets = HEAD + framing + b"\r\n" + chunks(JSON_ANSWER) + LAST_CHUNK
    upstream = await upstream_with(always(octets))
    relay = await relay_with(upstream)
    assert (await ask(relay)).startswith(b"HTTP/1.1 502 ")
    assert relay.keeps_idle(0)


async def test_interim_responses_are_skipped(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    answer = HEAD + b"content-length: %d\r\n\r\n" % len(JSON_ANSWER) + JSON_ANSWER
    upstream = await upstream_with(always(interim * 4 + answer))
    relay = await relay_with(upstream)
    octets = await ask(relay)
    assert octets.startswith(b"HTTP/1.1 200 OK\r\n")
    assert octets.endswith(JSON_ANSWER)


async def test_an_early_refusal_reaches_the_caller(
    stack: contextlib.AsyncExitStack, relay_with: RelayWith
) -> None:
    error = b'{"type":"error","error":{"type":"request_too_large","message":"Too long for me"}}'

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\n")
        writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(error), error))
        writer.write_eof()
        while await reader.read(65536):
            pass

    port = await stack.enter_async_context(listening(early))
    relay = await relay_with(f"http://127.0.0.1:{port}")
    long = {**BODY, "messages": [{"role": "user", "content": "x" * 8_000_000}]}
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(request(relay.key, long))
    async with asyncio.timeout(10):
        status, _, body = await read_answer(reader)
    assert (status, body) == (413, error)
    writer.transport.abort()


# --- HTTP/1.0: the connection's end frames the answer -------------------------------


async def test_a_cut_resets_a_caller_of_http_1_0(live: Live) -> None:
    script = "x-simulate: bytes=3000000;fault=cut;at=1500000\r\n"
    with pytest.raises(ConnectionResetError):
        await ask(live, version="1.0", fields=script)
    assert live.log()[0]["outcome"].startswith("cut: ")


async def test_a_cut_before_content_is_a_502_for_http_1_0(live: Live) -> None:
    answer = await ask(live, version="1.0", fields="x-simulate: fault=cut;at=300\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "api_error"


async def test_a_cut_stream_has_an_error_event_for_http_1_0(live: Live) -> None:
    stream = json.dumps({**BODY, "stream": True}).encode()
    octets = request(live.key, stream, fields="x-simulate: fault=cut;at=6\r\n")
    answer = await exchange(live.port, octets.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    last = answer.rstrip().rpartition(b"\n\n")[2]
    assert last.startswith(b"event: error\ndata: {")


async def test_a_complete_stream_ends_cleanly_for_http_1_0(live: Live) -> None:
    stream = json.dumps({**BODY, "stream": True}).encode()
    octets = request(live.key, stream, fields="x-simulate: tokens=100\r\n")
    answer = await exchange(live.port, octets.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.endswith(STOP)
    assert b"transfer-encoding" not in answer
