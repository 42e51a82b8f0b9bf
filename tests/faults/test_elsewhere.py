"""The table of faults with a second, healthy upstream.

A failure before content ends as a complete answer of the second upstream, except for requests
that any upstream refuses and for a silence in which the first may still be working.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest

from relay.simulator.app import Simulator
from relay.simulator.script import parse
from tests.clients.conftest import TRUST
from tests.fakes.caller import read_answer, request
from tests.fakes.live import Live, RelayWith, running_simulator, upstream_row
from tests.fakes.until import until
from tests.faults.conftest import DEADLINE, IN_TIME, PLAN
from tests.faults.outcomes import COMPLETE, OUTCOMES, Outcome

MODEL = "claude-sonnet-4-7"
START = b'"type":"message_start"'
CELLS = [
    pytest.param(script, stream, outcome, id=f"{script}-{'sse' if stream else 'json'}")
    for script, pair in OUTCOMES.items()
    for stream, outcome in zip((False, True), pair, strict=True)
]


@dataclass
class Pair:
    """A relay with two upstreams: the first by priority will fail, the second is healthy."""

    relay: Live
    faulty: Simulator
    healthy: Simulator

    def spoil(self, script: str) -> None:
        """Script the first upstream's next answer; forget its failures and both journals."""
        self.relay.app.upstreams[0].health.clear()
        self.faulty.scripts.append(parse(script))
        self.faulty.journal.clear()
        self.healthy.journal.clear()

    async def log_line(self, number: int) -> dict[str, Any]:
        await until(lambda: len(self.relay.log()) > number)
        line: dict[str, Any] = self.relay.log()[number]
        return line


@pytest.fixture
async def pair(stack: contextlib.AsyncExitStack, relay_with: RelayWith) -> Pair:
    """Both upstreams are simulators, with timeouts of `DEADLINE`."""
    return await open_pair(stack, relay_with, DEADLINE, plan=PLAN)


async def open_pair(
    stack: contextlib.AsyncExitStack, relay_with: RelayWith, deadline: float, **sections: Any
) -> Pair:
    """A pair whose upstream timeouts are all `deadline` seconds."""
    faulty, first = await stack.enter_async_context(running_simulator())
    healthy, second = await stack.enter_async_context(running_simulator())
    relay = await relay_with(upstreams(first, second, deadline), **sections)
    return Pair(relay, faulty, healthy)


def upstreams(first: str, second: str, timeout: float) -> list[dict[str, Any]]:
    times = {"connect": 5.0, "first_byte": timeout, "silence": timeout}
    return [
        upstream_row(name, url, {"priority": priority, "timeouts": times})
        for priority, (name, url) in enumerate([("faulty", first), ("healthy", second)], 1)
    ]


def body(text: str, stream: bool) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 200,
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    }


def said(payload: bytes, stream: bool) -> str:
    """The text of a complete answer."""
    if not stream:
        return str(json.loads(payload)["content"][0]["text"])
    events = [
        json.loads(line[6:]) for line in payload.decode().splitlines() if "text_delta" in line
    ]
    return "".join(event["delta"]["text"] for event in events)


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize(("script", "stream", "outcome"), CELLS)
async def test_another_upstream_answers_before_content(
    pair: Pair, script: str, stream: bool, outcome: Outcome
) -> None:
    expected = COMPLETE if outcome.elsewhere else outcome
    pair.spoil(script)
    started = time.monotonic()
    octets = await everything(pair.relay, request(pair.relay.key, body("first", stream)))
    took = time.monotonic() - started
    assert took < IN_TIME
    assert octets.startswith(b"HTTP/1.1 %d " % expected.status)
    assert octets.count(START) <= 1
    check(pair, await pair.log_line(0), outcome)
    if outcome.elsewhere:
        assert took < DEADLINE  # no silence, so no timeout
        answer = asyncio.StreamReader()
        answer.feed_data(octets)
        answer.feed_eof()
        _, fields, payload = await read_answer(answer)
        assert "“first”" in said(payload, stream)
        assert fields[b"x-relay-model"] == MODEL.encode()
        if stream:
            assert payload.count(START) == 1
            assert payload.rstrip().rpartition(b"\n\n")[2].startswith(b"event: message_stop")

    pair.spoil(script)
    message = await by_sdk(pair.relay, stream)
    check(pair, await pair.log_line(1), outcome)
    if outcome.elsewhere:
        assert message is not None
        assert "“by sdk”" in message.content[0].text
    elif outcome.ends != "complete" or outcome.kind:
        assert message is None


async def everything(relay: Live, octets: bytes) -> bytes:
    """Everything received for one request with `connection: close`."""
    octets = octets.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    received = b""
    try:
        writer.write(octets)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(IN_TIME):
                while piece := await reader.read(65536):
                    received += piece
    finally:
        writer.transport.abort()
    return received


def check(pair: Pair, line: dict[str, Any], outcome: Outcome) -> None:
    """The right upstream made exactly one answer, which is billed."""
    healthy = pair.healthy.journal
    came = pair.faulty.journal.report()["requests"]
    messages = [entry for entry in came if entry["target"] == "/v1/messages"]
    assert len(messages) == 1  # never twice at the same upstream; a silent one may be probed
    if outcome.elsewhere:
        assert (healthy.requests, healthy.completed) == (1, 1)
        assert line["upstream"] == "healthy"
        assert line["tried"].startswith("faulty: ")
        assert (line["outcome"], line["rule"]) == ("whole", "reported")
        assert (line["input"], line["output"]) == (healthy.input_tokens, healthy.output_tokens)
    else:
        assert healthy.requests == 0
        assert line["upstream"] == "faulty"
        assert line["outcome"].startswith(outcome.logged)
        assert line["rule"] == outcome.rule
    assert line["status"] == (200 if outcome.elsewhere else outcome.status)


async def by_sdk(relay: Live, stream: bool) -> Any:
    """The message from the SDK; None: it raised an error."""
    asked: Any = {key: value for key, value in body("by sdk", stream).items() if key != "stream"}
    async with anthropic.AsyncAnthropic(
        api_key=relay.key,
        base_url=relay.url,
        max_retries=0,
        timeout=IN_TIME,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as sdk:
        try:
            if not stream:
                return await sdk.messages.create(**asked)
            async with sdk.messages.stream(**asked) as events:
                return await events.get_final_message()
        except anthropic.APITimeoutError:
            raise  # the relay left it hanging
        except Exception:
            return None


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_an_unreachable_upstream_is_skipped_at_once(
    stack: contextlib.AsyncExitStack, relay_with: RelayWith, stream: bool
) -> None:
    healthy, second = await stack.enter_async_context(running_simulator())
    relay = await relay_with(upstreams("http://127.0.0.1:9", second, DEADLINE))
    for number in range(5):
        started = time.monotonic()
        octets = await everything(relay, request(relay.key, body(f"{number}", stream)))
        assert time.monotonic() - started < DEADLINE
        assert octets.startswith(b"HTTP/1.1 200 ")
    assert healthy.journal.completed == 5
    # After three failures in a row it gets no further request.
    assert [line.get("tried", "").partition(":")[0] for line in relay.log()] == [
        *["faulty"] * 3,
        *[""] * 2,
    ]
