"""The simulator on the wire: heads, faults, pace, control."""

import asyncio
import gzip
import hashlib
from pathlib import Path

import httpx
import orjson
import pytest

from relay.simulator.script import FAULTS

from . import samples
from .conftest import TRUST, Running
from .samples import plain


async def raw(upstream: Running, script: str, *, stream: bool = True) -> bytes:
    """All octets from a connection until it ends."""
    body = orjson.dumps(plain(stream=stream))
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(
        b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\n"
        b"anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n"
        b"connection: close\r\nx-simulate: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (script.encode(), len(body), body)
    )
    pieces = []
    try:
        async with asyncio.timeout(5):
            while piece := await reader.read(65536):
                pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"<reset>")
    writer.close()
    return b"".join(pieces)


def events_in(answer: bytes) -> int:
    return answer.count(b"event: ")


LAST = b"0\r\n\r\n"


async def test_a_good_stream_has_a_chunk_for_each_event(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=5")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ncontent-type: text/event-stream; charset=utf-8\r\n" in head
    chunks = 0
    while True:
        size, _, body = body.partition(b"\r\n")
        if size == b"0":
            break
        chunk, body = body[: int(size, 16)], body[int(size, 16) + 2 :]
        assert chunk.startswith(b"event: ")
        assert chunk.endswith(b"\n\n")
        chunks += 1
    assert chunks == 11


async def test_cut_closes_after_the_scripted_event(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=cut;at=7")
    assert events_in(answer) == 7
    assert not answer.endswith(LAST)
    assert not answer.endswith(b"<reset>")
    assert upstream.totals["whole"] == upstream.totals["output_tokens"] == 0


async def test_reset_resets(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=reset;at=7")
    assert events_in(answer) == 7
    assert answer.endswith(b"<reset>")
    assert await raw(upstream, "fault=reset;at=0") == b"<reset>"


async def test_clean_end_hides_that_the_stream_is_cut(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=clean-end;at=7")
    assert events_in(answer) == 7
    assert answer.endswith(LAST)


async def test_truncated_chunk_stops_inside_a_chunk(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=truncated-chunk;at=7")
    assert answer[-52:].startswith(b"\r\n") or b"\r\n64\r\n" in answer[-60:]
    assert not answer.endswith(LAST)


async def test_no_final_chunk_sends_all_events_without_the_end(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=no-final-chunk")
    assert b"event: message_stop\n" in answer
    assert not answer.endswith(LAST)


async def test_error_ends_the_stream_with_an_error_event(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=error;at=7")
    assert events_in(answer) == 8
    assert b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"' in answer
    assert answer.endswith(LAST)


async def test_garbage_events_are_within_a_good_stream(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=20;fault=garbage-sse;at=7")
    assert b"\xff\xfe\x00{{{" in answer
    assert b"event: message_stop\n" in answer
    assert answer.endswith(LAST)


async def test_garbage_is_no_http(upstream: Running) -> None:
    assert not (await raw(upstream, "fault=garbage")).startswith(b"HTTP")


async def test_half_a_head_and_no_head(upstream: Running) -> None:
    answer = await raw(upstream, "fault=half-head")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in answer
    assert await raw(upstream, "fault=close") == b""


async def test_a_huge_head_is_over_100_kib(upstream: Running) -> None:
    head, _, _ = (await raw(upstream, "fault=huge-head")).partition(b"\r\n\r\n")
    assert len(head) > 100 * 1024


async def test_a_storm_of_interim_responses_comes_first(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=2;fault=storm")
    assert answer.count(b"HTTP/1.1 103 ") == 300
    assert answer.endswith(LAST)


async def test_extra_octets_follow_the_end(upstream: Running) -> None:
    assert (await raw(upstream, "tokens=2;fault=extra")).endswith(b"\r\n\r\nextra")
    assert (await raw(upstream, "tokens=2;fault=extra", stream=False)).endswith(b"extra")


async def test_gzip_comes_unrequested(upstream: Running) -> None:
    head, _, body = (await raw(upstream, "tokens=2;fault=gzip")).partition(b"\r\n\r\n")
    assert b"\r\ncontent-encoding: gzip" in head
    assert b"event: message_stop" in gzip.decompress(body)


async def test_short_length_sends_less_than_it_declares(upstream: Running) -> None:
    answer = await raw(upstream, "tokens=2;fault=short-length", stream=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    promised = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert promised == len(body) + 100


async def test_faults_of_an_answer_that_is_no_stream(upstream: Running) -> None:
    assert (await raw(upstream, "fault=error", stream=False)).startswith(b"HTTP/1.1 529 ")
    assert (await raw(upstream, "fault=cut;at=9", stream=False)).endswith(b'9\r\n{"model":\r\n')
    assert (await raw(upstream, "fault=empty", stream=False)).endswith(b"\r\n\r\n")
    assert (await raw(upstream, "fault=nothing", stream=False)).endswith(b"\r\n\r\n{}")
    assert b'"success":false}' in await raw(upstream, "fault=envelope", stream=False)
    assert b"<h1>" in await raw(upstream, "fault=page", stream=False)
    assert b'{"object":"error"' in await raw(upstream, "fault=error-object", stream=False)
    assert b"event: message_stop" in await raw(upstream, "fault=other-form", stream=False)
    assert b"event: message_stop" not in await raw(upstream, "fault=no-stop", stream=True)
    assert b"content-type: text/plain" in await raw(upstream, "fault=label", stream=False)
    for coding in ("zstd", "deflate"):
        field = f"content-encoding: {coding}\r\n".encode()
        assert field in await raw(upstream, f"fault={coding}", stream=False)
    assert (await raw(upstream, "fault=html", stream=False)).startswith(b"HTTP/1.1 500 ")
    assert b"\r\nlocation: https://" in await raw(upstream, "fault=redirect", stream=False)


@pytest.mark.parametrize("fault", ["stall", "stall-head"])
async def test_a_stall_lasts_until_the_peer_leaves(upstream: Running, fault: str) -> None:
    body = orjson.dumps(plain(stream=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\n"
        b"anthropic-version: 2023-06-01\r\nx-simulate: fault=%b;at=2\r\n"
        b"content-length: %d\r\n\r\n%b" % (fault.encode(), len(body), body)
    )
    if fault == "stall":
        await reader.readuntil(b"content_block_start\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.readuntil(b"message_stop")
    assert upstream.totals["aborted"] == 0
    writer.transport.abort()
    await upstream.until_aborted()
    assert upstream.requests[-1]["aborted"] is True


def test_every_fault_has_its_test() -> None:
    folder = Path(__file__).parent
    text = "".join((folder / name).read_text() for name in ("test_wire.py", "test_sdk.py"))
    assert [fault for fault in FAULTS if fault not in text] == []


async def test_a_split_answer_has_the_same_head_and_length(upstream: Running) -> None:
    def parts(answer: bytes) -> tuple[set[bytes], bytes]:
        head, _, body = answer.partition(b"\r\n\r\n")
        dropped = (b"date", b"request-id", b"connection")
        return {line for line in head.split(b"\r\n") if not line.startswith(dropped)}, body

    for stream in (True, False):
        one = parts(await raw(upstream, "tokens=9", stream=stream))
        other = parts(await raw(upstream, "tokens=9;split=3", stream=stream))
        assert one[0] == other[0]
        assert len(one[1]) == len(other[1])


async def test_an_answer_of_eight_megabytes(upstream: Running, client: httpx.AsyncClient) -> None:
    script = {"x-simulate": "bytes=8000000"}
    document = await client.post("/v1/messages", json=plain(), headers=script)
    text = document.json()["content"][0]["text"]
    assert len(text.encode()) == 8_000_000
    streamed = await client.post("/v1/messages", json=plain(stream=True), headers=script)
    pieces = [
        orjson.loads(line[6:])["delta"]["text"]
        for line in streamed.text.split("\n")
        if '"text_delta"' in line
    ]
    assert "".join(pieces) == text


async def test_paced_streams_keep_their_pace_and_share_a_ticker(
    upstream: Running, client: httpx.AsyncClient
) -> None:
    loop = asyncio.get_running_loop()
    tickers = set()

    async def one() -> float:
        headers = {"x-simulate": "tokens=14;pace=100"}  # 20 events
        start = loop.time()
        text = ""
        async with client.stream(
            "POST", "/v1/messages", json=plain(stream=True), headers=headers
        ) as answer:
            async for piece in answer.aiter_text():
                if "message_stop" not in piece:
                    tickers.add(repr(upstream.simulator.pacer))
                text += piece
        assert text.count("event: ") == 20
        return loop.time() - start

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one()) for _ in range(20)]
    assert min(task.result() for task in running) >= 0.18
    assert "<Pacer [100.0]>" in tickers
    assert repr(upstream.simulator.pacer) == "<Pacer []>"


async def test_a_very_fast_pace_is_kept(upstream: Running, client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    script = {"x-simulate": "tokens=994;pace=5000"}  # 1000 events
    answer = await client.post("/v1/messages", json=plain(stream=True), headers=script)
    assert answer.text.count("event: ") == 1000
    assert loop.time() - start >= 0.15


async def test_a_peer_that_leaves_a_paced_stream_is_noticed(
    upstream: Running, client: httpx.AsyncClient
) -> None:
    async with client.stream(
        "POST",
        "/v1/messages",
        json=plain(stream=True),
        headers={"x-simulate": "tokens=2000;pace=100"},
    ) as answer:
        async for _ in answer.aiter_bytes():
            break
    await upstream.until_aborted()
    async with asyncio.timeout(1):
        while repr(upstream.simulator.pacer) != "<Pacer []>":  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_delay_comes_before_the_head(upstream: Running, client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await client.post("/v1/messages", json=plain(), headers={"x-simulate": "delay=0.1"})
    assert loop.time() - start >= 0.1


async def test_an_answer_has_fields_that_a_relay_must_not_pass_on(
    client: httpx.AsyncClient,
) -> None:
    good = await client.post("/v1/messages", json=plain())
    bad = await client.post("/v1/messages", json=plain(foo=1))
    for answer in (good, bad):
        names = set(answer.headers)
        assert {"request-id", "set-cookie", "anthropic-organization-id", "server"} <= names
        for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
            for figure in ("limit", "remaining", "reset"):
                assert f"anthropic-ratelimit-{kind}-{figure}" in names
    assert bad.headers["x-should-retry"] == "false"
    assert bad.json() == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "foo: Extra inputs are not permitted",
        },
        "request_id": bad.headers["request-id"],
    }


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": "sim-bad-key"}, "invalid x-api-key"),
        ({"authorization": "Bearer sim-bad-key"}, "Invalid bearer token"),
        ({"authorization": "Basic eDp5"}, "Invalid bearer token"),
    ],
)
async def test_a_missing_or_wrong_credential_is_a_401(
    upstream: Running, headers: dict[str, str], message: str
) -> None:
    async with httpx.AsyncClient(verify=TRUST, base_url=upstream.url) as client:
        answer = await client.post("/v1/messages", json=plain(), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"] == {"type": "authentication_error", "message": message}


async def test_either_field_for_a_credential_is_accepted(upstream: Running) -> None:
    for name, value in (("x-api-key", "any"), ("authorization", "bearer any")):
        headers = {name: value, "anthropic-version": "2026-10-21"}
        async with httpx.AsyncClient(
            verify=TRUST, base_url=upstream.url, headers=headers
        ) as client:
            assert (await client.post("/v1/messages", json=plain())).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("GET", "/", 200),
        ("HEAD", "/api/hello", 200),
        ("GET", "/v1/models?limit=1000", 200),
        ("GET", "/v1/models/claude-opus-5-5", 200),
        ("GET", "/v1/models/gpt-9", 404),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/messages/batches", 404),
        ("GET", "/nowhere", 404),
    ],
)
async def test_the_other_paths(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await client.request(method, path)).status_code == status


async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/messages", content=b"{")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("The request body is not valid JSON: ")


async def test_a_version_is_required(upstream: Running) -> None:
    async with httpx.AsyncClient(verify=TRUST, base_url=upstream.url) as client:
        answer = await client.post("/v1/messages", json=plain(), headers={"x-api-key": "k"})
    assert answer.json()["error"]["message"] == "anthropic-version: header is required"


async def test_a_repeated_request_is_answered_alike_and_checked_again(
    upstream: Running, client: httpx.AsyncClient
) -> None:
    first, second = [await client.post("/v1/messages", json=plain()) for _ in range(2)]
    assert first.json()["id"] != second.json()["id"]
    assert first.json()["content"] == second.json()["content"]
    assert first.json()["usage"] == second.json()["usage"]
    assert second.headers["request-id"].removeprefix("req") == second.json()["id"][3:]
    headers = {"x-api-key": "sim-bad-key"}
    assert (await client.post("/v1/messages", json=plain(), headers=headers)).status_code == 401
    headers = {"anthropic-version": "1999-01-01"}
    assert (await client.post("/v1/messages", json=plain(), headers=headers)).status_code == 400
    assert upstream.totals["whole"] == 2
    assert upstream.totals["refused"] == 2


async def test_claude_codes_turn_is_read_from_the_cache_when_repeated(
    client: httpx.AsyncClient,
) -> None:
    headers = {"anthropic-beta": samples.CLAUDE_CODE_BETAS.decode()}
    request = samples.claude_code(stream=False)
    first, second = [
        (await client.post("/v1/messages?beta=true", json=request, headers=headers)).json()["usage"]
        for _ in range(2)
    ]
    assert first["cache_creation_input_tokens"] == second["cache_read_input_tokens"] > 100
    assert first["cache_creation"]["ephemeral_5m_input_tokens"] > 100
    assert second["cache_creation_input_tokens"] == first["cache_read_input_tokens"] == 0


async def test_scripts_control_the_next_requests_in_order(client: httpx.AsyncClient) -> None:
    scripts = ["status=529", "", "tokens=3"]
    assert (await client.put("/simulate/script", json=scripts)).json() == {"scripts": 3}
    answers = [await client.post("/v1/messages", json=plain()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [529, 200, 200, 200]
    tokens = [answer.json()["usage"]["output_tokens"] for answer in answers[1:]]
    assert tokens[1] == 3
    assert tokens[0] == tokens[2] > 3


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'["fault=zap"]', b"["])
async def test_a_malformed_list_of_scripts_is_refused(
    client: httpx.AsyncClient, body: bytes
) -> None:
    assert (await client.put("/simulate/script", content=body)).status_code == 400


async def test_the_journal_reports_a_request(client: httpx.AsyncClient) -> None:
    body = orjson.dumps(plain())
    await client.post("/v1/messages?beta=true", content=body, headers={"x-more": "a, b"})
    report = (await client.get("/simulate/requests")).json()
    (request,) = report["requests"]
    assert request["method"] == "POST"
    assert request["target"] == "/v1/messages?beta=true"
    assert ["x-more", "a, b"] in request["headers"]
    assert ["x-api-key", "sim-key"] in request["headers"]
    assert request["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert request["body_bytes"] == len(body)
    assert request["status"] == 200
    assert request["aborted"] is False
    totals = report["totals"]
    assert totals["requests"] == totals["whole"] == 1
    assert totals["input_tokens"] > 0
    assert totals["output_tokens"] > 0
    assert (await client.delete("/simulate/requests")).status_code == 204
    assert (await client.get("/simulate/requests")).json()["requests"] == []


async def test_the_journal_is_bounded(upstream: Running, client: httpx.AsyncClient) -> None:
    for _ in range(300):
        await client.get("/")
    assert len(upstream.requests) == 256
    assert upstream.totals["requests"] == 300
