"""HTTP/2 on real sockets: requests, bodies, streams and their ends."""

import asyncio
import json

import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from relay.wire.h2.frames import CANCEL, INTERNAL_ERROR, MAX_CONCURRENT_STREAMS, PREFACE
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.http2 import Http2Caller, Reply, body, get, http2_caller, post
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Upstream, UpstreamWith, always

LARGE = {"messages": [{"role": "user", "content": "long " * 400_000}]}  # 2 MB


async def test_one_connection_takes_many_requests_at_once(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        streams = [
            caller.request(post(live.key, ("x-simulate", "delay=0.05;tokens=3")), body())
            for _ in range(30)
        ]
        for stream in streams:
            reply = await caller.answer(stream)
            assert (reply.status, reply.complete, reply.reset) == (200, True, None)
            assert int(reply.fields["content-length"]) == len(reply.payload)
        assert caller.settings[MAX_CONCURRENT_STREAMS] == 100
        (connection,) = live.app.server.connections
        assert connection.is_idle
    assert [line["status"] for line in live.log()] == [200] * 30


async def test_an_answer_has_the_same_fields_as_over_http11(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key))
        _, fields, _ = await read_answer(reader)
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request(post(live.key), body()))
    assert set(reply.fields) - {":status"} == {name.decode() for name in fields}


async def test_a_request_reaches_the_upstream_as_from_http11(
    relay_with: RelayWith, recorder: Upstream
) -> None:
    live = await relay_with(recorder)
    extra = [("user-agent", "agent/1"), ("x-secret", "no"), ("anthropic-beta", "b1")]
    async with connected(live.port) as (reader, writer):
        lines = "".join(f"{name}: {value}\r\n" for name, value in extra)
        writer.write(request(live.key, fields=lines))
        await read_answer(reader)
    async with http2_caller(live.port) as caller:
        await caller.answer(caller.request(post(live.key, *extra), json.dumps(BODY).encode()))
    first, second = recorder.requests
    assert first.body == second.body
    assert first.head.partition(b"\r\n")[0] == second.head.partition(b"\r\n")[0]
    assert first.fields == second.fields


async def test_each_event_is_a_frame_as_soon_as_it_comes(live: Live) -> None:
    fields = post(live.key, ("x-simulate", "tokens=10;pace=100"))
    async with http2_caller(live.port) as caller:
        stream = caller.request(fields, body(stream=True))
        reply = await caller.answer(stream)
    assert reply.complete
    assert reply.fields["content-type"].startswith("text/event-stream")
    assert "transfer-encoding" not in reply.fields
    assert reply.payload.endswith(b'data: {"type":"message_stop"}\n\n')
    assert len(reply.pieces) >= 10
    assert all(piece.endswith(b"\n\n") for piece in reply.pieces)


@pytest.mark.parametrize("dialect", ["/v1/chat/completions", "/v1/responses"])
async def test_translated_streams_come_over_http2(live: Live, dialect: str) -> None:
    document = {"model": BODY["model"], "stream": True}
    document |= {"input": "hi"} if "responses" in dialect else {"messages": BODY["messages"]}
    fields = post(live.key, ("authorization", f"Bearer {live.key}"), path=dialect)
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request(fields, json.dumps(document).encode()))
    assert (reply.status, reply.complete) == (200, True)
    assert b"data: " in reply.payload


async def test_a_large_body_comes_as_its_handler_reads_it(live: Live) -> None:
    octets = body(**LARGE)
    length = ("content-length", str(len(octets)))
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post(live.key, length))
        await _upload(caller, stream, octets)
        reply = await caller.answer(stream)
    assert reply.status == 200


async def _upload(caller: Http2Caller, stream: int, octets: bytes) -> None:
    """Send a body within the windows."""
    sent = 0
    while sent < len(octets):
        room = min(
            65535 + caller.windows.get(stream, 0) - sent,
            65535 + caller.windows.get(0, 0) - sent,
            16384,
        )
        if room <= 0:
            await asyncio.sleep(0.001)
            continue
        piece = octets[sent : sent + room]
        sent += len(piece)
        last = ["END_STREAM"] if sent == len(octets) else []
        caller.send(DataFrame(stream, piece, flags=last))


async def test_interleaved_requests_keep_their_bodies(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        texts = ["first", "second", "third"]
        frames: list[HeadersFrame | DataFrame] = []
        for number in range(3):
            frames.append(caller.head(2 * number + 1, post(live.key), end=False))
        for number, text in enumerate(texts):
            octets = body(messages=[{"role": "user", "content": text}])
            frames.append(DataFrame(2 * number + 1, octets[:40]))
            frames.append(DataFrame(2 * number + 1, octets[40:], flags=["END_STREAM"]))
        for frame in frames:
            caller.replies.setdefault(frame.stream_id, Reply())
        caller.send(*frames)
        for stream in (1, 3, 5):
            assert (await caller.answer(stream)).status == 200


async def test_a_body_of_unknown_length_ends_with_its_stream(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post(live.key))
        await caller.pong()
        caller.send(DataFrame(stream, body()[:30]))
        await caller.pong()
        caller.send(DataFrame(stream, body()[30:], flags=["END_STREAM"]))
        assert (await caller.answer(stream)).status == 200


async def test_trailers_end_a_request(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post(live.key))
        caller.send(DataFrame(stream, body()), caller.head(stream, [("x-sum", "1")], end=True))
        assert (await caller.answer(stream)).status == 200


async def test_an_expectation_is_met_before_the_body(live: Live) -> None:
    octets = body()
    fields = post(live.key, ("expect", "100-continue"), ("content-length", str(len(octets))))
    async with http2_caller(live.port) as caller:
        stream = caller.begin(fields)
        await until(lambda: caller.replies[stream].interim == ["100"])
        caller.send(DataFrame(stream, octets, flags=["END_STREAM"]))
        assert (await caller.answer(stream)).status == 200


async def test_head_gets_the_fields_without_a_body(live: Live) -> None:
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request([(":method", "HEAD"), *get()[1:]]))
    assert (reply.status, reply.payload, reply.complete) == (200, b"", True)
    assert reply.fields["content-length"] == "3"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([("x-long", "x" * 4000)] * 9, 431, id="a long head"),
        pytest.param([(f"x-{number}", "1") for number in range(101)], 431, id="many fields"),
        pytest.param([("expect", "200-ok")], 417, id="an unknown expectation"),
    ],
)
async def test_a_head_over_a_limit_is_answered(
    live: Live, fields: list[tuple[str, str]], status: int
) -> None:
    async with http2_caller(live.port) as caller:
        stream = caller.begin(get("/healthz", *fields)[:4], end=True)
        assert (await caller.answer(stream)).status == 200
        refused = caller.begin(get("/healthz", *fields), end=True)
        reply = await caller.answer(refused)
        assert (reply.status, reply.complete) == (status, True)
        assert b'"error"' in reply.payload
        assert (await caller.answer(caller.request(get()))).status == 200
    assert [line["status"] for line in live.log()] == [200, status, 200]


async def test_a_body_over_the_limit_is_refused_early(relay_with: RelayWith) -> None:
    live = await relay_with(server={"limits": {"body": 1000}})
    async with http2_caller(live.port) as caller:
        stream = caller.begin(post(live.key, ("content-length", "100000")))
        reply = await caller.answer(stream)
        assert (reply.status, reply.complete, reply.reset) == (413, True, None)
        reply.complete = False  # the reset comes when the answer has been read
        assert (await caller.answer(stream)).reset == 0
        assert (await caller.answer(caller.request(get()))).status == 200


async def test_a_caller_who_resets_ends_the_upstreams_work(live: Live) -> None:
    fields = post(live.key, ("x-simulate", "tokens=1000;pace=20"))
    async with http2_caller(live.port) as caller:
        stream = caller.request(fields, body(stream=True, max_tokens=2000))
        other = caller.request(fields[:-1], body(stream=True))
        await caller.octets(stream, 100)
        caller.send(RstStreamFrame(stream, error_code=CANCEL))
        assert (await caller.answer(other)).complete
        await until(lambda: any(line["outcome"] == "caller left" for line in live.log()))
        (connection,) = live.app.server.connections
        assert connection.is_idle


async def test_an_answer_that_breaks_off_is_reset(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    octets = answers.chunked_head() + b"".join(map(answers.chunk, answers.stream()[:5]))
    live = await relay_with(await upstream_with(always(octets, close=True)))
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request(post(live.key), body(stream=True)))
        assert (reply.status, reply.complete, reply.reset) == (200, False, INTERNAL_ERROR)
        assert b"event: error" in reply.payload
        assert (await caller.answer(caller.request(get()))).status == 200


async def test_an_upgrade_to_http2_is_ignored(live: Live) -> None:
    octets = request(live.key, fields="upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n")
    async with connected(live.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 200


async def test_a_preface_may_come_in_parts_but_only_first(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        for octet in PREFACE:
            writer.write(bytes((octet,)))
            await asyncio.sleep(0)
        writer.write(b"\0\0\0\4\0\0\0\0\0")
        assert (await reader.readexactly(9))[3] == 4  # SETTINGS
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key) + PREFACE)
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 505


async def test_a_wrong_preface_ends_with_goaway(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(PREFACE + b"\0\0\10\6\0\0\0\0\0" + bytes(8))
        octets = await reader.read(-1)
    assert b"\0\0\x08\x07\0\0\0\0\0" in octets
