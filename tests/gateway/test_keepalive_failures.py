"""A stream that fails after pings ends with an error event and a cut."""

import asyncio
import json
import time

import anthropic
import pytest

from tests.fakes import answers
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import UPSTREAM_KEY, RelayWith
from tests.fakes.upstream import OK, UpstreamWith
from tests.gateway.sdk import message_by_sdk
from tests.gateway.streaming import (
    EVENTS,
    HEAD,
    LIVELY,
    OVERLOADED,
    PING,
    STREAM,
    End,
    LivelyWith,
    Reset,
    Step,
    asking,
    in_chunks,
    steps,
    ticks,
)

pytestmark = pytest.mark.usefixtures("quick_clock")


FAILURES: dict[str, tuple[tuple[Step, ...], int, str]] = {
    # the upstream's steps, the status of an early failure, the type of the error event
    "status-529": ((answers.sized(OVERLOADED, b"529 Overloaded"),), 529, "overloaded_error"),
    "status-400": (
        (
            answers.sized(
                b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}',
                b"400 Bad Request",
            ),
        ),
        400,
        "invalid_request_error",
    ),
    "status-401": ((answers.sized(OVERLOADED, b"401 Unauthorized"),), 503, "overloaded_error"),
    "no-json": (
        (answers.sized(b"<html>busy</html>", b"500 Oops", kind=b"text/html"),),
        500,
        "api_error",
    ),
    "no-body": ((answers.sized(b"", b"500 Oops"),), 500, "api_error"),
    "error-event": (
        (answers.chunked([EVENTS[0], b"event: error\ndata: " + OVERLOADED + b"\n\n"]),),
        529,
        "overloaded_error",
    ),
    "cut-before-content": ((HEAD + in_chunks(EVENTS[:3]), End), 502, "api_error"),
    "reset-before-content": ((HEAD + in_chunks(EVENTS[:1]), Reset), 502, "api_error"),
    "nothing": ((End,), 502, "api_error"),
    "no-http": ((b"\x16\x03\x01 this is no HTTP\r\n\r\n",), 502, "api_error"),
    "empty-stream": ((answers.chunked([EVENTS[0], PING]),), 502, "api_error"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_quick_failure_keeps_its_true_status(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str
) -> None:
    script, status, kind = FAILURES[name]
    upstream = await upstream_with(steps(*script))
    relay = await relay_with(upstream, pool={"grace": 8})
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM))
        got, _, payload = await read_answer(reader)
        [line] = relay.log()
    assert got == status
    if name not in ("no-json", "no-body"):  # these bodies are passed on unchanged
        assert json.loads(payload)["error"]["type"] == kind
    assert line["rule"] == "refunded"


@pytest.mark.parametrize("name", FAILURES)
async def test_a_late_failure_is_an_error_event_and_costs_nothing(
    lively_with: LivelyWith, name: str
) -> None:
    script, _, kind = FAILURES[name]
    go_on = asyncio.Event()
    relay, _ = await lively_with(steps(go_on, *script))
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.end()
        [line] = relay.log()
    [(event, document)] = answered.events
    assert (event, document["type"], document["error"]["type"]) == ("error", "error", kind)
    assert document["error"]["message"]
    assert not answered.complete
    assert UPSTREAM_KEY.encode() not in answered.raw
    assert (line["status"], line["rule"]) == (200, "refunded")
    assert line["outcome"].startswith("refused: ")


async def test_the_sdk_raises_on_a_late_failure(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.sized(OVERLOADED, b"529 Overloaded"))
    relay, upstream = await lively_with(script)
    reading = asyncio.ensure_future(message_by_sdk(relay))
    await upstream.asked.wait()
    await ticks(relay, 10)
    go_on.set()
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await reading


async def test_a_document_follows_pings_as_events(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    relay, _ = await lively_with(steps(go_on, OK))
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
    events = [event for event, _ in answered.events]
    assert (events[0], events[-1]) == ("message_start", "message_stop")
    assert answered.complete


async def test_a_broken_coding_is_an_error_after_pings(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    octets = answers.sized(
        b"\x1f\x8b" + bytes(50), b"200 OK", b"content-encoding: gzip", kind=b"text/event-stream"
    )
    relay, _ = await lively_with(steps(go_on, octets))
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
    [(event, document)] = answered.events
    assert (event, document["error"]["type"]) == ("error", "api_error")
    assert not answered.complete


async def test_cut_content_ends_with_an_error_event_and_is_billed(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, HEAD + in_chunks(EVENTS[:5]), go_on, End)
    relay, _ = await lively_with(script)
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
        [line] = relay.log()
    assert [event for event, _ in answered.events][-1] == "error"
    assert not answered.complete
    assert line["outcome"].startswith("cut: ")
    assert line["rule"] == "partial"


@pytest.mark.parametrize("http10", [False, True])
@pytest.mark.parametrize("sent", [0, 1, 4], ids=["no-head", "message-start", "content"])
async def test_pings_do_not_extend_an_upstreams_timeout(
    upstream_with: UpstreamWith, relay_with: RelayWith, sent: int, http10: bool
) -> None:
    never = asyncio.Event()
    script = steps(HEAD + in_chunks(EVENTS[:sent]), never) if sent else steps(never)
    times = {"first_byte": 0.4, "silence": 0.4}
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY, upstream_options={"timeouts": times})
    async with asking(relay, http10=http10) as answered:
        since = time.monotonic()
        await answered.pings(2)
        await answered.end()
        took = time.monotonic() - since
        [line] = relay.log()
    assert 0.4 <= took < 3
    event, document = answered.events[-1]
    assert event == "error"
    assert "in time" in document["error"]["message"]
    assert not answered.complete
    assert line["rule"] == ("partial" if sent == 4 else "refunded")
