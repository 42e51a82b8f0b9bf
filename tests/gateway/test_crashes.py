"""A fault of the relay's own code costs one request: 500 in its dialect, and nobody else."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from relay.gateway.chat import ChatRequest
from relay.gateway.responses import ResponsesRequest
from relay.translate.chat.answer import ChatStream
from relay.translate.messages.usage import JsonTap, StreamTap
from relay.translate.responses.stream import ResponsesStream
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith

from .metering import ask, left, plan, settled

LIMIT = {"requests": 100, "per": "5h"}
CHAT = ("/v1/chat/completions", {"model": BODY["model"], "messages": BODY["messages"]})
RESPONSES = ("/v1/responses", {"model": BODY["model"], "input": "hi"})
DIALECTS = pytest.mark.parametrize(("target", "body"), [CHAT, RESPONSES], ids=["chat", "responses"])


def faulty(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a fault of the relay's own")


def faulty_at(number: int, method: Callable[..., bytes]) -> Callable[..., bytes]:
    """A method that fails when it is called for the `number`-th time."""
    calls = 0

    def call(*arguments: object) -> bytes:
        nonlocal calls
        calls += 1
        if calls == number:
            faulty()
        return method(*arguments)

    return call


@contextlib.asynccontextmanager
async def another_stream(relay: Live) -> AsyncIterator[None]:
    """Somebody else's stream in the Messages API, which must end as if nothing had happened."""
    async with connected(relay.port, wait=20) as (reader, writer):
        octets = request(relay.key, {**BODY, "stream": True}, fields="x-simulate: pace=20\r\n")
        writer.write(octets)
        assert (await read_head(reader))[0] == 200
        yield
        stream = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert b"message_stop" in stream
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 200


async def crashed(
    relay: Live, caplog: pytest.LogCaptureFixture, id: str, rule: str = "refunded"
) -> None:
    """Assert what remains of request `id`: a row, a line, one traceback, and no blame or lease."""
    assert [record.getMessage() for record in caplog.records] == [f"request {id} failed"]
    assert "a fault of the relay's own" in caplog.text
    [line] = [line for line in relay.log() if line["id"] == id]
    assert (line["outcome"], line["rule"]) == ("failed", rule)
    [row] = [row for row in await settled(relay, 3) if row["id"] == id]
    assert (row["outcome"], row["rule"]) == ("failed", rule)
    status, fields, _ = await ask(relay)
    used = 3 if rule == "refunded" else 4  # the other stream, its next request, this one
    assert (status, left(fields)) == (200, 100 - used)
    upstream = relay.app.upstreams[0]
    assert (upstream.in_flight, upstream.health.failures) == (0, 0)


@DIALECTS
@pytest.mark.parametrize("method", ["messages_body", "document", "translator", "feed"])
async def test_a_translator_that_raises_is_a_500_of_its_dialect(
    relay_with: RelayWith,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
    body: dict[str, Any],
    method: str,
) -> None:
    relay = await relay_with(plan=plan(LIMIT))
    if method == "feed":
        for stream in (ChatStream, ResponsesStream):
            monkeypatch.setattr(stream, "feed", faulty)
    else:
        for kind in (ChatRequest, ResponsesRequest):
            monkeypatch.setattr(kind, method, faulty)
    async with another_stream(relay), connected(relay.port) as (reader, writer):
        sent = {**body, "stream": method in ("translator", "feed")}
        writer.write(request(relay.key, sent, target=target))
        status, fields, payload = await read_answer(reader)
    assert status == 500
    error = json.loads(payload)["error"]
    assert error["type"] in ("server_error", "api_error")
    assert set(error) == {"type", "code", "message", "param"}  # OpenAI's form
    await crashed(relay, caplog, fields[b"x-request-id"].decode())


@DIALECTS
async def test_a_translator_that_raises_midway_cuts_its_stream(
    relay_with: RelayWith,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
    body: dict[str, Any],
) -> None:
    """What has come stays and counts; the error is an event of the dialect."""
    relay = await relay_with(plan=plan(LIMIT))
    for stream in (ChatStream, ResponsesStream):
        monkeypatch.setattr(stream, "feed", faulty_at(4, stream.feed))
    async with another_stream(relay), connected(relay.port) as (reader, writer):
        octets = request(
            relay.key, {**body, "stream": True}, target=target, fields="x-simulate: pace=50\r\n"
        )
        writer.write(octets)
        status, fields = await read_head(reader)
        assert status == 200
        ending = b"\n\n\r\n0\r\n\r\n" if target == RESPONSES[0] else b"\n\n\r\n"
        async with asyncio.timeout(10):
            received = await reader.readuntil(b"The relay failed.")
            received += await reader.readuntil(ending)
            if target == CHAT[0]:
                assert await reader.read(-1) == b""  # no end of the body: it is cut
    assert received.count(b"delta") > 0
    assert b"[DONE]" not in received
    assert b"response.completed" not in received
    await crashed(relay, caplog, fields[b"x-request-id"].decode(), "partial")


@pytest.mark.parametrize("tap", [StreamTap, JsonTap])
async def test_a_tap_that_raises_cuts_its_answer_alone(
    relay_with: RelayWith,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tap: type[StreamTap | JsonTap],
) -> None:
    """Of an answer in the Messages API, whose octets are passed on as they come."""
    relay = await relay_with(plan=plan(LIMIT))
    method = "passes" if tap is StreamTap else "feed"
    feed = getattr(tap, method)
    seen = 0

    def fail_at_words(self: Any, data: bytes) -> object:
        nonlocal seen
        if b"xyzzy" in data or tap is JsonTap:
            seen += 1
            faulty()
        found: object = feed(self, data)
        return found

    monkeypatch.setattr(tap, method, fail_at_words)
    streamed = tap is StreamTap
    messages = [{"role": "user", "content": "one two three four five six xyzzy"}]
    body = {**BODY, "stream": streamed, "messages": messages}
    script = "pace=20" if streamed else "bytes=3000000"
    async with another_stream(relay), connected(relay.port, wait=20) as (reader, writer):
        writer.write(request(relay.key, body, fields=f"x-simulate: {script}\r\n"))
        status, fields = await read_head(reader)
        assert status == 200
        received = await reader.read(-1)  # no end of the body: it is cut
    assert seen == 1
    assert b"message_stop" not in received
    rule = "partial" if streamed else "refunded"
    await crashed(relay, caplog, fields[b"request-id"].decode(), rule)
