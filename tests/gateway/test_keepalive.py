"""A silent stream is kept alive by pings between events, never within one."""

import asyncio
from typing import Any

import openai
import pytest

from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import RelayWith
from tests.fakes.upstream import JSON_ANSWER, OK, Answer, Seen, UpstreamWith, always
from tests.gateway.sdk import message_by_sdk
from tests.gateway.streaming import (
    CLOSE,
    EVENTS,
    HEAD,
    KEEP_ALIVE,
    PING,
    STREAM,
    WHOLE,
    Answered,
    End,
    LivelyWith,
    asking,
    in_chunks,
    steps,
    ticks,
)

pytestmark = pytest.mark.usefixtures("quick_clock")


def scripts_with(silence: asyncio.Event) -> dict[str, Answer]:
    """A complete stream, silent at one point: by the name of that point."""

    def at(count: int) -> Answer:
        before, after = in_chunks(EVENTS[:count]), in_chunks(EVENTS[count:])
        return steps(HEAD + before, silence, after + answers.LAST)

    return {
        "before-the-head": steps(silence, HEAD + in_chunks(EVENTS) + answers.LAST),
        "after-the-head": at(0),
        "after-message-start": at(1),
        "after-an-empty-text": at(3),
        "amid-content": at(4),
        "before-message-delta": at(-2),
        "before-message-stop": at(-1),
        "before-the-last-chunk": steps(HEAD + in_chunks(EVENTS), silence, answers.LAST),
    }


PLACES = list(scripts_with(asyncio.Event()))


# --- silence ---


@pytest.mark.parametrize("place", PLACES)
async def test_silence_is_filled_with_pings_between_events(
    lively_with: LivelyWith, place: str
) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    relay, _ = await lively_with(answer)
    async with asking(relay) as answered:
        await answered.pings(3)
        go_on.set()
        await answered.end()
        [line] = relay.log()
    assert answered.head.startswith(b"http/1.1 200 ok\r\n")
    assert b"\r\ncontent-type: text/event-stream" in answered.head
    assert b"\r\nx-accel-buffering: no" in answered.head
    assert b"\r\ncache-control: no-cache" in answered.head
    assert b"\r\nrequest-id: req_" in answered.head
    assert answered.complete
    answered.assert_events(EVENTS)
    assert (line["outcome"], line["rule"], line["status"]) == ("whole", "reported", 200)
    assert (line["input"], line["output"]) == (25, 9)


@pytest.mark.parametrize("place", PLACES)
async def test_the_sdk_reads_the_complete_message(lively_with: LivelyWith, place: str) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    relay, upstream = await lively_with(answer)
    reading = asyncio.ensure_future(message_by_sdk(relay))
    await upstream.asked.wait()
    await ticks(relay, 15)
    go_on.set()
    message = await reading
    assert [block.text for block in message.content if block.type == "text"] == ["Hello wörld 🌍"]
    assert message.stop_reason == "end_turn"


async def test_a_stream_that_is_never_silent_gets_no_ping(lively_with: LivelyWith) -> None:
    relay, _ = await lively_with(always(answers.chunked(EVENTS)))
    async with asking(relay) as answered:
        await answered.end()
    assert answered.payload == WHOLE


async def test_an_upstreams_own_pings_make_relay_pings_unnecessary(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(HEAD + in_chunks(EVENTS[:4]))
        for _ in range(20):
            await asyncio.sleep(0.05)
            writer.write(answers.chunk(answers.event("ping")))
        writer.write(in_chunks(EVENTS[4:]) + answers.LAST)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, pool={"grace": 5, "keep_alive": 0.5})
    async with asking(relay) as answered:
        await answered.end()
    assert answered.complete
    assert PING not in answered.payload


@pytest.mark.parametrize("where", ["within-a-chunk", "between-chunks", "in-its-first-octet"])
async def test_no_ping_splits_an_event(lively_with: LivelyWith, where: str) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    before, torn, rest = EVENTS[:4], EVENTS[4], EVENTS[5:]
    if where == "within-a-chunk":
        octets = answers.chunk(torn)
        first, second = octets[:30], octets[30:]
    else:
        at = 1 if where == "in-its-first-octet" else 30
        first, second = answers.chunk(torn[:at]), answers.chunk(torn[at:])
    script = steps(
        HEAD + in_chunks(before), first, go_on, second, again, in_chunks(rest), answers.LAST
    )
    relay, upstream = await lively_with(script)
    async with asking(relay) as answered:
        await upstream.asked.wait()
        await ticks(relay, 15)
        go_on.set()
        await answered.pings(1)  # once the event is complete
        again.set()
        await answered.end()
    assert answered.complete
    answered.assert_events(EVENTS)


async def test_a_held_prefix_is_sent_once_and_in_order(lively_with: LivelyWith) -> None:
    """Events before the first content are held back, the upstream's own pings included."""
    gates = [asyncio.Event() for _ in range(3)]
    events = [EVENTS[0], EVENTS[2], EVENTS[1], EVENTS[2], *EVENTS[3:]]
    script = steps(
        HEAD + answers.chunk(events[0]),
        gates[0],
        in_chunks(events[1:3]),
        gates[1],
        in_chunks(events[3:5]),
        gates[2],
        in_chunks(events[5:]) + answers.LAST,
    )
    relay, _ = await lively_with(script)
    async with asking(relay) as answered:
        for count, gate in enumerate(gates, 1):
            await answered.pings(2 * count)
            if count < 3:
                assert b"message_start" not in answered.raw
            gate.set()
        await answered.end()
    assert answered.complete
    answered.assert_events(events)


@pytest.mark.parametrize("framing", ["sized", "until-close"])
async def test_a_stream_of_any_framing_follows_pings_in_chunks(
    lively_with: LivelyWith, framing: str
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    kind = b"text/event-stream"
    head = answers.head(kind=kind)
    if framing == "sized":
        head = answers.head(b"200 OK", b"content-length: %d" % len(WHOLE), kind=kind)
    script = steps(go_on, head + b"".join(EVENTS[:4]), again, b"".join(EVENTS[4:]), End)
    relay, _ = await lively_with(script)
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.pings(4)
        again.set()
        await answered.end()
    assert answered.complete
    answered.assert_events(EVENTS)


async def test_the_connection_takes_another_request_afterwards(lively_with: LivelyWith) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.chunked(EVENTS))
    relay, upstream = await lively_with(script)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM))
        status, _ = await read_head(reader)
        await reader.readuntil(PING)
        await reader.readexactly(2)
        go_on.set()
        payload = b""
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            payload += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        assert (status, payload.replace(PING, b"")) == (200, WHOLE)
        writer.write(request(relay.key, STREAM))
        status, _, payload = await read_answer(reader)
        assert (status, payload.replace(PING, b"")) == (200, WHOLE)
        assert upstream.connections == 1


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_only_streams_start_before_the_upstream_answers(
    lively_with: LivelyWith, target: str
) -> None:
    go_on = asyncio.Event()
    body = dict(BODY) if target == "/v1/messages" else {**STREAM}
    relay, upstream = await lively_with(steps(go_on, OK))
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body, target=target))
        await upstream.asked.wait()
        await ticks(relay, 15)
        go_on.set()
        status, fields, payload = await read_answer(reader)
    assert (status, payload) == (200, JSON_ANSWER)
    assert fields[b"content-type"] == b"application/json"


# --- another dialect ---


async def test_comments_keep_a_chat_stream_alive_unseen_by_the_sdk(lively_with: LivelyWith) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    script = steps(go_on, HEAD + in_chunks(EVENTS[:4]), again, in_chunks(EVENTS[4:]) + answers.LAST)
    relay, _ = await lively_with(script)
    async with (
        connected(relay.port) as (reader, writer),
        openai.AsyncOpenAI(
            api_key=relay.key, base_url=f"{relay.url}/v1", max_retries=0, timeout=10
        ) as client,
    ):
        answered = Answered(reader, KEEP_ALIVE)

        async def read() -> list[Any]:
            stream = await client.chat.completions.create(
                model=BODY["model"], messages=BODY["messages"], stream=True
            )
            return [chunk async for chunk in stream]

        reading = asyncio.ensure_future(read())
        writer.write(request(relay.key, STREAM, target="/v1/chat/completions", fields=CLOSE))
        await answered.pings(2)
        assert b"data:" not in answered.raw
        go_on.set()
        before = answered.raw.count(KEEP_ALIVE)
        await answered.pings(before + 2)
        assert b"Hel" in answered.raw
        again.set()
        await answered.end()
        chunks = await reading
    assert answered.complete
    assert b"event:" not in answered.payload
    assert PING not in answered.payload
    events = answered.payload.replace(KEEP_ALIVE, b"").split(b"\n\n")
    assert all(event.startswith(b"data: ") for event in events[:-1])
    assert events[-2:] == [b"data: [DONE]", b""]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == "Hello wörld 🌍"
    assert len(chunks) == len(events) - 2  # without [DONE] and the empty rest


# --- HTTP/1.0 ---


@pytest.mark.parametrize("place", PLACES)
async def test_a_caller_of_http_1_0_gets_pings_without_chunks(
    lively_with: LivelyWith, place: str
) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    relay, _ = await lively_with(answer)
    async with asking(relay, http10=True) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.end()
    assert b"transfer-encoding" not in answered.head
    assert b"\r\nconnection: close" in answered.head
    assert not answered.cut
    answered.assert_events(EVENTS)
