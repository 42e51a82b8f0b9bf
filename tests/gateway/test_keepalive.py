"""A stream that has nothing to show is kept alive, and nothing of it is hidden or torn by that."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from relay.gateway.keepalive import PING
from relay.translate.chat.answer import KEEP_ALIVE
from relay.wire.chunked import ChunkReader
from relay.wire.sse import EventReader
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.live import UPSTREAM_KEY, Live, RelayWith, running_relay
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER, OK, Answer, Seen, UpstreamWith, always, raw_upstream

STREAM = {**BODY, "stream": True}
EVENTS = answers.stream()
WHOLE = b"".join(EVENTS)
LIVELY = {"grace": 0.05, "keep_alive": 0.05}
CLOSE = "connection: close\r\n"
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
HEAD = answers.chunked_head()


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are looked at more often than four times a second, for short tests."""
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)


class End:
    """The upstream closes its connection."""


class Reset:
    """The upstream resets its connection."""


Step = bytes | asyncio.Event | type[End] | type[Reset]


def steps(*script: Step) -> Answer:
    """Write octets, wait for events, end."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is End:
                writer.close()
            else:
                writer.transport.abort()

    return answer


def in_chunks(events: list[bytes]) -> bytes:
    return b"".join(map(answers.chunk, events))


async def ticks(relay: Live, count: int) -> None:
    """Until the relay has looked at its deadlines so often."""
    enough = asyncio.Event()
    left = count

    def tick() -> None:
        nonlocal left
        left -= 1
        if not left:
            enough.set()

    relay.app.timers.each_tick(tick)
    await enough.wait()


class Answered:
    """An answer as it comes in."""

    def __init__(self, reader: asyncio.StreamReader, ping: bytes = PING) -> None:
        self._reader = reader
        self._ping = ping
        self.raw = b""
        self.cut = False  # by a reset

    async def pings(self, count: int) -> None:
        """Until the relay has sent so many pings of its own."""
        while self.raw.count(self._ping) < count:
            octets = await self._reader.read(65_536)
            assert octets, self.raw
            self.raw += octets

    async def end(self) -> "Answered":
        """Until the connection ends."""
        try:
            self.raw += await self._reader.read(-1)
        except ConnectionResetError:
            self.cut = True
        return self

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0].lower()

    @property
    def whole(self) -> bool:
        return self.raw.endswith(answers.LAST)

    @property
    def payload(self) -> bytes:
        body = self.raw.partition(b"\r\n\r\n")[2]
        return ChunkReader().feed(body) if b"chunked" in self.head else body

    @property
    def events(self) -> list[tuple[str, Any]]:
        """All but pings."""
        read = EventReader().feed(self.payload)
        return [
            (event.name.decode(), json.loads(event.data)) for event in read if event.name != b"ping"
        ]

    def brought(self, events: list[bytes]) -> None:
        """It is just these octets, with pings between events and nowhere else."""
        payload = self.payload
        assert payload.replace(PING, b"") == b"".join(events)
        edges = {len(b"".join(events[:count])) for count in range(len(events) + 1)}
        passed = 0
        for piece in payload.split(PING)[:-1]:
            passed += len(piece)
            assert passed in edges


@contextlib.asynccontextmanager
async def asking(
    relay: Live, body: dict[str, Any] | None = None, *, http10: bool = False, wait: float = 10.0
) -> AsyncIterator[Answered]:
    """Ask for a stream on a connection of its own."""
    octets = request(relay.key, body or STREAM, fields=CLOSE)
    if http10:
        octets = octets.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    async with connected(relay.port, wait=wait) as (reader, writer):
        writer.write(octets)
        yield Answered(reader)


def scripts_with(silence: asyncio.Event) -> dict[str, Answer]:
    """A whole stream, silent at one place."""

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
    upstream_with: UpstreamWith, relay_with: RelayWith, place: str
) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, pool=LIVELY)
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
    assert answered.whole
    answered.brought(EVENTS)
    assert (line["outcome"], line["rule"], line["status"]) == ("whole", "reported", 200)
    assert (line["input"], line["output"]) == (25, 9)


@pytest.mark.parametrize("place", PLACES)
async def test_the_sdk_reads_the_whole_message(
    upstream_with: UpstreamWith, relay_with: RelayWith, place: str
) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, pool=LIVELY)
    async with anthropic.AsyncAnthropic(
        api_key=relay.key, base_url=relay.url, max_retries=0, timeout=10
    ) as client:

        async def read() -> anthropic.types.Message:
            async with client.messages.stream(
                model=BODY["model"], max_tokens=100, messages=BODY["messages"]
            ) as stream:
                return await stream.get_final_message()

        reading = asyncio.ensure_future(read())
        await upstream.asked.wait()
        await ticks(relay, 15)
        go_on.set()
        message = await reading
    assert [block.text for block in message.content if block.type == "text"] == ["Hello wörld 🌍"]
    assert message.stop_reason == "end_turn"


async def test_a_stream_that_is_never_silent_gets_no_ping(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    whole = answers.chunked(EVENTS)
    upstream = await upstream_with(always(whole))
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.end()
    assert answered.payload == WHOLE


async def test_an_upstreams_own_pings_count_as_life_once_the_stream_has_begun(
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
    assert answered.whole
    assert PING not in answered.payload


@pytest.mark.parametrize("where", ["within-a-chunk", "between-chunks", "in-its-first-octet"])
async def test_no_ping_tears_an_event_apart(
    upstream_with: UpstreamWith, relay_with: RelayWith, where: str
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    begun, torn, rest = EVENTS[:4], EVENTS[4], EVENTS[5:]
    if where == "within-a-chunk":
        octets = answers.chunk(torn)
        first, second = octets[:30], octets[30:]
    else:
        at = 1 if where == "in-its-first-octet" else 30
        first, second = answers.chunk(torn[:at]), answers.chunk(torn[at:])
    script = steps(
        HEAD + in_chunks(begun), first, go_on, second, again, in_chunks(rest), answers.LAST
    )
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await upstream.asked.wait()
        await ticks(relay, 15)
        go_on.set()
        await answered.pings(1)  # as soon as the event has its end
        again.set()
        await answered.end()
    assert answered.whole
    answered.brought(EVENTS)


async def test_a_held_beginning_is_shown_once_and_in_order(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """What an upstream says before its content is kept back, its own pings too."""
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
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        for count, gate in enumerate(gates, 1):
            await answered.pings(2 * count)
            if count < 3:
                assert b"message_start" not in answered.raw
            gate.set()
        await answered.end()
    assert answered.whole
    answered.brought(events)


@pytest.mark.parametrize("framing", ["sized", "until-close"])
async def test_a_stream_of_any_framing_goes_on_in_what_was_begun(
    upstream_with: UpstreamWith, relay_with: RelayWith, framing: str
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    kind = b"text/event-stream"
    head = answers.head(kind=kind)
    if framing == "sized":
        head = answers.head(b"200 OK", b"content-length: %d" % len(WHOLE), kind=kind)
    script = steps(go_on, head + b"".join(EVENTS[:4]), again, b"".join(EVENTS[4:]), End)
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.pings(4)
        again.set()
        await answered.end()
    assert answered.whole
    answered.brought(EVENTS)


async def test_the_connection_takes_another_request_afterwards(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.chunked(EVENTS))
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
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
async def test_only_streams_are_begun_early(
    upstream_with: UpstreamWith, relay_with: RelayWith, target: str
) -> None:
    go_on = asyncio.Event()
    body = dict(BODY) if target == "/v1/messages" else {**STREAM}
    upstream = await upstream_with(steps(go_on, OK))
    relay = await relay_with(upstream, pool=LIVELY)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body, target=target))
        await upstream.asked.wait()
        await ticks(relay, 15)
        go_on.set()
        status, fields, payload = await read_answer(reader)
    assert (status, payload) == (200, JSON_ANSWER)
    assert fields[b"content-type"] == b"application/json"


# --- failures ---

FAILURES: dict[str, tuple[tuple[Step, ...], int, str]] = {
    # what the upstream does, the status that it should get, the type of the error event
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
        told, _, payload = await read_answer(reader)
        [line] = relay.log()
    assert told == status
    if name not in ("no-json", "no-body"):  # word for word
        assert json.loads(payload)["error"]["type"] == kind
    assert line["rule"] == "refunded"


@pytest.mark.parametrize("name", FAILURES)
async def test_a_late_failure_is_an_error_event_and_a_cut_and_costs_nothing(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str
) -> None:
    script, _, kind = FAILURES[name]
    go_on = asyncio.Event()
    upstream = await upstream_with(steps(go_on, *script))
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.end()
        [line] = relay.log()
    [(event, told)] = answered.events
    assert (event, told["type"], told["error"]["type"]) == ("error", "error", kind)
    assert told["error"]["message"]
    assert not answered.whole
    assert UPSTREAM_KEY.encode() not in answered.raw
    assert (line["status"], line["rule"]) == (200, "refunded")
    assert line["outcome"].startswith("refused: ")


async def test_the_sdk_raises_on_a_late_failure(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.sized(OVERLOADED, b"529 Overloaded"))
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    async with anthropic.AsyncAnthropic(
        api_key=relay.key, base_url=relay.url, max_retries=0, timeout=10
    ) as client:

        async def read() -> None:
            async with client.messages.stream(
                model=BODY["model"], max_tokens=100, messages=BODY["messages"]
            ) as stream:
                await stream.get_final_message()

        reading = asyncio.ensure_future(read())
        await upstream.asked.wait()
        await ticks(relay, 10)
        go_on.set()
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            await reading


async def test_an_answer_that_is_no_stream_cannot_follow_pings(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    upstream = await upstream_with(steps(go_on, OK))
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
    [(event, told)] = answered.events
    assert (event, told["error"]["type"]) == ("error", "api_error")
    assert not answered.whole


async def test_an_encoded_stream_cannot_follow_pings(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    octets = answers.sized(
        b"\x1f\x8b" + bytes(50), b"200 OK", b"content-encoding: gzip", kind=b"text/event-stream"
    )
    upstream = await upstream_with(steps(go_on, octets))
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
    [(event, told)] = answered.events
    assert (event, told["error"]["type"]) == ("error", "api_error")
    assert not answered.whole


async def test_content_that_breaks_off_is_an_error_event_and_counts(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, HEAD + in_chunks(EVENTS[:5]), go_on, End)
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(1)
        go_on.set()
        await answered.end()
        [line] = relay.log()
    assert [event for event, _ in answered.events][-1] == "error"
    assert not answered.whole
    assert line["outcome"].startswith("cut: ")
    assert line["rule"] == "partial"


@pytest.mark.parametrize("http10", [False, True])
@pytest.mark.parametrize("begun", [0, 1, 4], ids=["no-head", "message-start", "content"])
async def test_a_dead_upstream_ends_at_its_own_limit_although_pings_flow(
    upstream_with: UpstreamWith, relay_with: RelayWith, begun: int, http10: bool
) -> None:
    never = asyncio.Event()
    script = steps(HEAD + in_chunks(EVENTS[:begun]), never) if begun else steps(never)
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
    event, told = answered.events[-1]
    assert event == "error"
    assert "in time" in told["error"]["message"]
    assert not answered.whole
    assert line["rule"] == ("partial" if begun == 4 else "refunded")


# --- another dialect ---


async def test_a_chat_stream_is_kept_alive_by_comments_that_the_sdk_does_not_see(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    script = steps(go_on, HEAD + in_chunks(EVENTS[:4]), again, in_chunks(EVENTS[4:]) + answers.LAST)
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
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
    assert answered.whole
    assert b"event:" not in answered.payload
    assert PING not in answered.payload
    events = answered.payload.replace(KEEP_ALIVE, b"").split(b"\n\n")
    assert all(event.startswith(b"data: ") for event in events[:-1])
    assert events[-2:] == [b"data: [DONE]", b""]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == "Hello wörld 🌍"
    assert len(chunks) == len(events) - 2  # but for [DONE], and nothing after it


# --- who waits ---


async def test_who_waits_for_a_place_gets_pings_and_then_the_answer(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    script = steps(go_on, answers.chunked(EVENTS))
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY, upstream_options={"max_concurrency": 1})
    async with asking(relay) as first:
        await upstream.asked.wait()
        async with asking(relay) as second:
            await asyncio.gather(first.pings(2), second.pings(2))
            assert len(upstream.requests) == 1
            go_on.set()
            await asyncio.gather(first.end(), second.end())
        lines = relay.log()
    for answered in (first, second):
        assert answered.whole
        answered.brought(EVENTS)
    assert [line["outcome"] for line in lines] == ["whole", "whole"]


async def test_who_waits_in_vain_is_told_so_in_the_stream(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    never = asyncio.Event()
    upstream = await upstream_with(steps(never))
    relay = await relay_with(
        upstream, pool={**LIVELY, "wait": 0.3}, upstream_options={"max_concurrency": 1}
    )
    async with asking(relay) as first:
        await upstream.asked.wait()
        async with asking(relay) as second:
            await second.pings(1)
            await second.end()
        [line] = relay.log()
        await first.pings(1)
    [(event, told)] = second.events
    assert (event, told["error"]["type"]) == ("error", "overloaded_error")
    assert not second.whole
    assert line["rule"] == "refunded"


async def test_who_leaves_among_pings_leaves_no_trace(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    never = asyncio.Event()
    upstream = await upstream_with(steps(never))
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.pings(2)
    await until(lambda: not relay.app.upstreams[0].in_flight)
    await until(relay.log)
    [line] = relay.log()
    assert (line["outcome"], line["rule"]) == ("caller left", "refunded")


async def test_who_has_shut_its_sending_side_still_gets_its_answer(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    upstream = await upstream_with(steps(go_on, answers.chunked(EVENTS)))
    relay = await relay_with(upstream, pool=LIVELY)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM, fields=CLOSE))
        answered = Answered(reader)
        await answered.pings(1)
        writer.write_eof()
        await answered.pings(3)
        go_on.set()
        await answered.end()
    assert answered.whole
    assert answered.payload.replace(PING, b"").replace(b":\n\n", b"") == WHOLE


async def test_a_slow_reader_gets_no_pile_of_pings(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    fill = answers.event(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 60_000}
    )
    events = [*EVENTS[:3], *[fill] * 40, *EVENTS[3:]]
    script = steps(HEAD + in_chunks(events) + answers.LAST)
    loop = asyncio.get_running_loop()
    upstream = await upstream_with(script)
    relay = await relay_with(upstream, pool=LIVELY)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    port = await relay.app.server.listen(sock=listener)

    def buffered() -> int:
        open_ = relay.app.server.connections
        return sum(one.transport.get_write_buffer_size() for one in open_)

    with socket.socket() as caller:
        caller.setblocking(False)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(caller, ("127.0.0.1", port))
        await loop.sock_sendall(caller, request(relay.key, STREAM, fields=CLOSE))
        await until(buffered)
        await ticks(relay, 5)
        held = buffered()
        await ticks(relay, 25)  # time for five pings
        assert buffered() == held
        received = bytearray()
        while octets := await loop.sock_recv(caller, 1024 * 1024):
            received += octets
    assert received.endswith(answers.LAST)
    payload = ChunkReader().feed(bytes(received).partition(b"\r\n\r\n")[2])
    assert payload.replace(PING, b"") == b"".join(events)


# --- HTTP/1.0 ---


@pytest.mark.parametrize("place", PLACES)
async def test_a_caller_of_http_1_0_gets_pings_without_chunks(
    upstream_with: UpstreamWith, relay_with: RelayWith, place: str
) -> None:
    go_on = asyncio.Event()
    answer = scripts_with(go_on)[place]
    upstream = await upstream_with(answer)
    relay = await relay_with(upstream, pool=LIVELY)
    async with asking(relay, http10=True) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.end()
    assert b"transfer-encoding" not in answered.head
    assert b"\r\nconnection: close" in answered.head
    assert not answered.cut
    answered.brought(EVENTS)


# --- another upstream ---


@contextlib.asynccontextmanager
async def two(folder: Path, first: Answer, second: Answer) -> AsyncIterator[Live]:
    """A relay with two upstreams, of which the first one is always asked first."""
    async with raw_upstream(first) as one, raw_upstream(second) as other:
        upstreams = [
            {"name": "one", "base_url": one.url, "api_key": UPSTREAM_KEY},
            {"name": "two", "base_url": other.url, "api_key": UPSTREAM_KEY, "priority": 1},
        ]
        async with running_relay(folder, "", upstream=upstreams, pool=LIVELY) as relay:
            yield relay


GIVES_UP: dict[str, tuple[Step, ...]] = {
    "cut": (End,),
    "reset": (Reset,),
    "error-event": (answers.chunk(b"event: error\ndata: " + OVERLOADED + b"\n\n"),),
    "end-without-content": (answers.LAST,),
}


@pytest.mark.parametrize("how", GIVES_UP)
@pytest.mark.parametrize("shown", [0, 1, 3], ids=["head", "message-start", "empty-text"])
async def test_another_upstream_answers_in_the_stream_that_was_begun(
    tmp_path: Path, shown: int, how: str
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    other = answers.stream(("from ", "the other"))
    first = steps(HEAD + in_chunks(EVENTS[:shown]), go_on, *GIVES_UP[how])
    second = steps(HEAD + answers.chunk(other[0]), again, in_chunks(other[1:]) + answers.LAST)
    async with two(tmp_path, first, second) as relay, asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.pings(4)
        again.set()
        await answered.end()
        [line] = relay.log()
    assert answered.whole
    assert answered.payload.count(b"event: message_start\n") == 1
    answered.brought(other)
    assert (line["upstream"], line["outcome"], line["rule"]) == ("two", "whole", "reported")
    assert line["tried"].startswith("one: ")


async def test_a_refusal_after_the_grace_leads_to_another_upstream(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    first = steps(go_on, answers.sized(OVERLOADED, b"529 Overloaded"))
    async with (
        two(tmp_path, first, always(answers.chunked(EVENTS))) as relay,
        asking(relay) as answered,
    ):
        await answered.pings(2)
        go_on.set()
        await answered.end()
    assert answered.whole
    answered.brought(EVENTS)


async def test_who_was_silent_to_the_end_is_not_made_up_for_by_another(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """It may still be at work on it: nobody is to do the same work twice."""
    never = asyncio.Event()
    asked = asyncio.Event()

    async def second(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        asked.set()
        writer.write(answers.chunked(EVENTS))

    one = await upstream_with(steps(never))
    other = await upstream_with(second)
    upstreams = [
        {
            "name": "one",
            "base_url": one.url,
            "api_key": UPSTREAM_KEY,
            "timeouts": {"first_byte": 0.3},
        },
        {"name": "two", "base_url": other.url, "api_key": UPSTREAM_KEY, "priority": 1},
    ]
    relay = await relay_with(upstream=upstreams, pool=LIVELY)
    async with asking(relay) as answered:
        await answered.end()
    [(_, told)] = answered.events
    assert "in time" in told["error"]["message"]
    assert not asked.is_set()
