"""Answers that are none, and good ones in another form, in all dialects, streamed and not."""

import gzip
import json
import tomllib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tests.corpora import CORPORA
from tests.fakes import answers
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith, upstream_row
from tests.fakes.upstream import Upstream, UpstreamWith, always

MODEL = "claude-sonnet-4-7"
PRICED = [{"id": MODEL, "price": {"input": 3.0, "output": 15.0}}]
PLAN = [
    {
        "id": "free",
        "limits": [
            {"requests": 40, "per": "5h"},
            {"requests": 60, "per": "1m"},
            {"tokens": 800_000, "per": "1m"},
        ],
        "max_keys": 10,
    }
]
DIALECTS = ("messages", "chat", "responses")
PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
DOCUMENT = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-7",'
    b'"content":[{"type":"text","text":"Hello!"}],"stop_reason":"end_turn",'
    b'"stop_sequence":null,"usage":{"input_tokens":1000,"output_tokens":100}}'
)
STREAM = b"".join(
    answers.stream(("Hel", "lo!"), start={"input_tokens": 1000}, end={"output_tokens": 100})
)
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
CASES = tomllib.loads((CORPORA / "answers.toml").read_text())


def asked(dialect: str, streamed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": MODEL, "stream": streamed}
    if dialect == "responses":
        return {**body, "input": "Hi"}
    return {**body, "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}


def wire(body: bytes, content_type: str, coding: str = "") -> bytes:
    """A response in chunks of 50 octets."""
    fields = [f"content-type: {content_type}"] if content_type else []
    if coding:
        fields.append(f"content-encoding: {coding}")
        body = CODINGS[coding](body)
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{field}\r\n" for field in fields)
    pieces = [answers.chunk(body[at : at + 50]) for at in range(0, len(body), 50)]
    return b"".join([head.encode(), b"transfer-encoding: chunked\r\n\r\n", *pieces, answers.LAST])


async def ask(
    relay: Live, dialect: str, streamed: bool, **more: Any
) -> tuple[int, dict[bytes, bytes], bytes]:
    async with connected(relay.port) as (reader, writer):
        octets = request(relay.key, {**asked(dialect, streamed), **more}, target=PATHS[dialect])
        writer.write(octets.replace(b"x-api-key: ", b"authorization: Bearer "))
        return await read_answer(reader)


def text_of(dialect: str, streamed: bool, fields: dict[bytes, bytes], payload: bytes) -> str:
    """The text of a complete answer in its own dialect and form."""
    content_type = fields[b"content-type"]
    assert b"content-encoding" not in fields
    if not streamed:
        assert content_type == b"application/json"
        document = json.loads(payload)
        if dialect == "messages":
            return str(document["content"][0]["text"])
        if dialect == "chat":
            return str(document["choices"][0]["message"]["content"])
        return str(document["output"][0]["content"][0]["text"])
    assert content_type.startswith(b"text/event-stream")
    events = payload.decode().strip().split("\n\n")
    data = [json.loads(event.partition("data: ")[2]) for event in events if "data: {" in event]
    if dialect == "messages":
        assert data[-1]["type"] == "message_stop"
        deltas = [one["delta"] for one in data if one["type"] == "content_block_delta"]
        return "".join(delta.get("text", "") for delta in deltas)
    if dialect == "chat":
        assert events[-1] == "data: [DONE]"
        deltas = [choice["delta"] for one in data for choice in one["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)
    assert data[-1]["type"] == "response.completed"
    return str(data[-1]["response"]["output"][0]["content"][0]["text"])


def message_of(dialect: str, fields: dict[bytes, bytes], payload: bytes) -> str:
    """The message of an error in its dialect."""
    assert fields[b"content-type"].startswith(b"application/json")
    document = json.loads(payload)
    if dialect == "messages":
        assert document["type"] == "error"
        assert document["error"]["type"]
    else:
        assert set(document["error"]) == {"message", "type", "param", "code"}
    assert fields[b"x-ratelimit-limit"] == b"40"
    assert b"anthropic-ratelimit-requests-remaining" in fields
    assert b"anthropic-ratelimit-tokens-remaining" in fields
    assert fields[b"request-id"].startswith(b"req_")
    return str(document["error"]["message"])


async def two(
    upstream_with: UpstreamWith, relay_with: RelayWith, first: bytes
) -> tuple[Live, Upstream]:
    """A relay whose first upstream sends `first`, and the good one after it."""

    async def good(reader: Any, writer: Any, seen: Any) -> None:
        streamed = json.loads(seen.body).get("stream") is True
        kind = "text/event-stream" if streamed else "application/json"
        writer.write(wire(STREAM if streamed else DOCUMENT, kind))

    bad = await upstream_with(always(first))
    well = await upstream_with(good)
    rows = [
        upstream_row("bad", bad, {"priority": 0}),
        upstream_row("good", well, {"priority": 1}),
    ]
    return await relay_with(rows, plan=PLAN), well


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES["none"], ids=lambda case: case["name"])
async def test_an_answer_that_is_none_is_a_failure(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    case: dict[str, Any],
    dialect: str,
    streamed: bool,
) -> None:
    body = case["body"].encode()
    first = wire(body, case.get("type", "application/json"))
    relay, well = await two(upstream_with, relay_with, first)
    status, fields, payload = await ask(relay, dialect, streamed)
    assert (status, text_of(dialect, streamed, fields, payload)) == (200, "Hello!")
    assert len(well.requests) == 1
    [line] = relay.log()
    assert line["tried"].startswith("bad: ")
    assert line["rule"] == "reported"


@pytest.mark.matrix(share=8)
@pytest.mark.parametrize("sized", [False, True], ids=["chunked", "sized"])
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES["none"], ids=lambda case: case["name"])
async def test_the_last_upstreams_failure_costs_nothing(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    case: dict[str, Any],
    dialect: str,
    streamed: bool,
    sized: bool,
) -> None:
    body, kind = case["body"].encode(), case.get("type", "application/json")
    first = answers.sized(body, kind=kind.encode()) if sized else wire(body, kind)
    relay = await relay_with(await upstream_with(always(first)), plan=PLAN)
    status, fields, payload = await ask(relay, dialect, streamed)
    message = message_of(dialect, fields, payload)
    assert status >= 500
    if case.get("streamed", streamed) is streamed:
        assert case["words"] in message
    assert fields[b"x-ratelimit-remaining"] == b"40"
    [line] = relay.log()
    assert line["rule"] == "refunded"


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES["good"], ids=lambda case: case["name"])
async def test_a_good_answer_comes_in_the_form_asked_for(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    case: dict[str, Any],
    dialect: str,
    streamed: bool,
) -> None:
    body = STREAM if case["form"] == "stream" else DOCUMENT
    first = wire(body, case["type"], case.get("coding", ""))
    relay, well = await two(upstream_with, relay_with, first)
    status, fields, payload = await ask(relay, dialect, streamed)
    assert (status, text_of(dialect, streamed, fields, payload)) == (200, "Hello!")
    if dialect == "messages" and streamed is (case["form"] == "stream"):
        assert payload == body
    assert not well.requests
    [line] = relay.log()
    assert (line["input"], line["output"], line["rule"]) == (1000, 100, "reported")
    assert "tried" not in line


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["x", "tool"])
async def test_half_a_character_passes(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, streamed: bool, name: str
) -> None:
    document = DOCUMENT.replace(b"Hello!", b"caf\\ud83d ")
    if name == "tool":
        tool = b'{"type":"tool_use","id":"t","name":"n","input":{"a":"\\ud83d","b":[1.50]}}'
        document = document.replace(b'],"stop', b",%b]," % tool + b'"stop', 1)
    relay, well = await two(upstream_with, relay_with, answers.sized(document))
    status, fields, payload = await ask(relay, dialect, streamed)
    assert status == 200
    assert not well.requests
    if not streamed:
        assert text_of(dialect, streamed, fields, payload) == "caf\ud83d "
        if dialect == "messages":
            assert payload == document
    assert rb"caf\ud83d" in payload
    [line] = relay.log()
    assert (line["input"], line["rule"]) == (1000, "reported")


# --- the end of a stream --------------------------------------------------------------


def delta(text: str) -> bytes:
    return answers.event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "last",
    [
        delta('"message_stop"'),
        answers.event(
            "content_block_start",
            index=1,
            content_block={"type": "tool_use", "id": "t", "name": "message_stop", "input": {}},
        ),
        answers.event("vendor_event", note="message_stop"),
    ],
    ids=["text", "tool", "other"],
)
@pytest.mark.parametrize("together", [False, True], ids=["own-chunk", "one-chunk"])
async def test_only_its_last_event_ends_a_stream(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, last: bytes, together: bool
) -> None:
    events = [*answers.stream(("Hello",))[:4], last]
    pieces = [b"".join(events)] if together else events
    relay = await relay_with(await upstream_with(always(answers.chunked(pieces))))
    payload = await everything(relay, dialect)
    assert b"broke off" in payload
    assert relay.log()[0]["outcome"].startswith("cut: ")


@pytest.mark.parametrize("usage", [False, True], ids=["no-usage", "usage"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_told_reason_and_a_clean_end_are_complete(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, usage: bool
) -> None:
    *events, end, _ = answers.stream(("Hello!",))
    if not usage:
        end = answers.event("message_delta", delta={"stop_reason": "end_turn"})
    relay = await relay_with(await upstream_with(always(answers.chunked([*events, end]))))
    status, fields, payload = await ask(relay, dialect, True)
    assert (status, text_of(dialect, True, fields, payload)) == (200, "Hello!")
    assert relay.log()[0]["outcome"] == "whole"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "data",
    [
        '{"object":"error","message":"KV cache is full","code":500}',
        '{"detail":"KV cache is full"}',
        '{"error":{"message":"KV cache is full"}}',
        '{"error":"KV cache is full"}',
    ],
)
async def test_an_error_object_after_content_is_an_error_event(
    upstream_with: UpstreamWith, relay_with: RelayWith, dialect: str, data: str
) -> None:
    pieces = [*answers.stream(("Hello",))[:4], f"data: {data}\n\n".encode()]
    relay = await relay_with(await upstream_with(always(answers.chunked(pieces))))
    payload = await everything(relay, dialect)
    mark = {"messages": b"event: error", "chat": b'data: {"error"', "responses": b"response.failed"}
    assert b"KV cache is full" in payload[payload.rindex(mark[dialect]) :]
    assert b"message_stop" not in payload


async def everything(relay: Live, dialect: str) -> bytes:
    """All octets of a stream that is cut."""
    async with connected(relay.port) as (reader, writer):
        body = asked(dialect, True)
        writer.write(
            request(relay.key, body, target=PATHS[dialect], fields="connection: close\r\n")
        )
        return await reader.read(-1)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/chat/completions"),
        ("PUT", "/v1/responses"),
        ("POST", "/v1/nothing"),
        ("GET", "/v1/models/none"),
        ("GET", "/v1/models"),
        ("GET", "/v1/responses/none"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/messages/batches"),
    ],
)
async def test_every_answer_to_a_known_key_shows_its_limits(
    upstream_with: UpstreamWith, relay_with: RelayWith, method: str, path: str
) -> None:
    relay = await relay_with(await upstream_with(always(b"")), plan=PLAN)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, b"{}", method=method, target=path))
        _, fields, _ = await read_answer(reader)
    for group in (b"x-ratelimit", b"anthropic-ratelimit-requests", b"anthropic-ratelimit-tokens"):
        assert {b"%b-%b" % (group, each) for each in (b"limit", b"remaining", b"reset")} <= set(
            fields
        )
    assert fields[b"request-id"].startswith(b"req_")
    assert fields[b"content-type"] == b"application/json"
