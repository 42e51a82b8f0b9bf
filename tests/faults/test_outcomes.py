"""The table of faults, cell by cell: the outcome comes in time and affects no other request.

Each cell is requested twice: over a bare socket, for the end of the answer on the wire, and by
the `anthropic` SDK, for its users' view.
"""

import asyncio
import json
import re
import time
from typing import Any

import anthropic
import httpx2
import pytest

from relay.simulator.script import FAULTS
from tests.clients.conftest import TRUST
from tests.fakes.caller import read_answer, request
from tests.faults.conftest import IN_TIME, QUOTA, Setup
from tests.faults.outcomes import OUTCOMES, Outcome

FAULTY = "claude-sonnet-4-7"  # to tell the log lines apart
GOOD = "claude-haiku-4-5"
LAST_CHUNK = b"0\r\n\r\n"
CELLS = [
    pytest.param(script, stream, outcome, id=f"{script}-{'sse' if stream else 'json'}")
    for script, pair in OUTCOMES.items()
    for stream, outcome in zip((False, True), pair, strict=True)
]


def body(model: str, text: str, *, stream: bool = False) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": 200,
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    }


def test_the_table_has_every_fault() -> None:
    scripts = {re.sub(r"^status=.*", "fault=status", script) for script in OUTCOMES}
    assert {script.split(";")[0].removeprefix("fault=") for script in scripts} == FAULTS


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize(("script", "stream", "outcome"), CELLS)
async def test_a_fault_has_its_outcome_and_harms_no_other_request(
    setup: Setup, script: str, stream: bool, outcome: Outcome
) -> None:
    both = (raw(setup, script, stream, outcome), by_sdk(setup, script, stream, outcome))
    if "bytes=" in script:  # the SDK's parser of a long answer would hold the other's loop
        for one in both:
            await one
    else:
        await asyncio.gather(*both)
    await own_answers(setup, 3)
    await setup.settled()
    log = setup.relay.log()
    lines = [line for line in log if line["model"] == FAULTY]
    assert [line["status"] for line in lines] == [outcome.status] * 2
    for line in lines:
        assert line["outcome"].startswith(outcome.logged), line["outcome"]
        assert line["rule"] == outcome.rule
        assert ("tried" in line) == (outcome.ends == "refused")
    charged = sum(line["rule"] != "refunded" for line in log)
    assert await left(setup) == QUOTA - charged - 1


async def left(setup: Setup) -> int:
    """The rest of the quota, from the fields of one more answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.relay.port)
    try:
        writer.write(request(setup.relay.key, body(GOOD, "quota")))
        _, fields, _ = await read_answer(reader)
        return int(fields[b"x-ratelimit-remaining"])
    finally:
        writer.transport.abort()


async def raw(setup: Setup, script: str, stream: bool, outcome: Outcome) -> None:
    """Check the octets, and the next answer on a connection that should be reusable."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.relay.port)
    started = time.monotonic()
    field = f"x-simulate: {script}\r\n"
    writer.write(request(setup.relay.key, body(FAULTY, "first", stream=stream), fields=field))
    try:
        async with asyncio.timeout(IN_TIME):
            if outcome.ends in ("error event", "cut"):
                octets = await reader.read(-1)  # ends with the connection
                check_cut(octets, outcome)
            else:
                status, fields, payload = await read_answer(reader)
                assert status == outcome.status
                check_whole(fields, payload, stream, outcome)
        took = time.monotonic() - started
        assert took > 0.2 or not outcome.slow, f"took only {took:.2f} s"
        if outcome.ends not in ("error event", "cut") and outcome.logged != "cut: ":
            started = time.monotonic()
            writer.write(request(setup.relay.key, body(GOOD, "again")))
            async with asyncio.timeout(IN_TIME):
                status, _, payload = await read_answer(reader)
            assert status == 200
            # No request goes to the upstream before its retry-after.
            assert time.monotonic() - started > outcome.holds - 0.1
            assert "“again”" in payload.decode()
    finally:
        writer.transport.abort()


def check_whole(fields: dict[bytes, bytes], payload: bytes, stream: bool, outcome: Outcome) -> None:
    assert b"request-id" in fields
    if outcome.ends == "refused" and outcome.kind:
        assert fields[b"content-type"].startswith(b"application/json")
        document = json.loads(payload)
        assert document["error"]["type"] == outcome.kind
        assert outcome.message in document["error"]["message"]
        assert document["request_id"].startswith("req_")
    else:
        assert outcome.message.encode() in payload
    if outcome.ends == "complete" and stream and b"content-encoding" not in fields:
        last = b"event: error" if outcome.kind else b"event: message_stop"
        assert payload.rstrip().rpartition(b"\n\n")[2].startswith(last)


def check_cut(octets: bytes, outcome: Outcome) -> None:
    head, _, rest = octets.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % outcome.status)
    if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
        assert len(rest) < int(length[1])
        return
    assert b"\r\ntransfer-encoding: chunked" in head
    assert not rest.endswith(LAST_CHUNK)
    assert b"\r\n" + LAST_CHUNK not in rest
    if outcome.ends == "error event":
        event = re.search(rb"\r\nevent: error\ndata: (\{.+\})\n\n\r\n\Z", b"\r\n" + rest)
        assert event is not None
        document = json.loads(event[1])
        assert (document["type"], document["error"]["type"]) == ("error", outcome.kind)
        assert outcome.message in document["error"]["message"]
        assert document["request_id"].encode() in head
    else:
        assert b"event: error" not in rest


async def by_sdk(setup: Setup, script: str, stream: bool, outcome: Outcome) -> None:
    """The SDK gets a message or the right error, never half an answer."""
    relay = setup.relay
    asked: Any = {
        "model": FAULTY,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "by sdk"}],
        "extra_headers": {"x-simulate": script},
    }
    async with anthropic.AsyncAnthropic(
        api_key=relay.key,
        base_url=relay.url,
        max_retries=0,
        timeout=IN_TIME,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as sdk:
        try:
            if stream:
                async with sdk.messages.stream(**asked) as events:
                    message = await events.get_final_message()
            else:
                message = await sdk.messages.create(**asked)
        except Exception as error:
            check_error(error, outcome)
        else:
            assert (outcome.ends, outcome.kind, outcome.readable) == ("complete", "", True)
            assert message.stop_reason == "end_turn"
            assert message.content[0].type == "text"
            assert "“by sdk”" in message.content[0].text


def check_error(error: Exception, outcome: Outcome) -> None:
    if isinstance(error, anthropic.APIStatusError):
        assert outcome.ends in ("refused", "told") or outcome.kind
        assert error.status_code == outcome.status
        assert outcome.kind in ("", error.type)
        assert outcome.message in str(error)
    elif isinstance(error, ValueError):
        assert not outcome.readable
    else:
        assert isinstance(error, anthropic.APIConnectionError | httpx2.RemoteProtocolError)
        assert not isinstance(error, anthropic.APITimeoutError)
        assert outcome.ends == "cut"


async def own_answers(setup: Setup, count: int) -> None:
    """Send concurrent good requests: each gets the answer to its own text."""

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.relay.port)
        try:
            asked = body(GOOD, f"number {number}", stream=number % 2 > 0)
            writer.write(request(setup.relay.key, asked))
            async with asyncio.timeout(IN_TIME):
                status, _, payload = await read_answer(reader)
            assert status == 200
            if number % 2:
                text = "".join(
                    json.loads(data)["delta"]["text"]
                    for data in re.findall(r'data: (\{.*"text_delta".*\})', payload.decode())
                )
            else:
                text = json.loads(payload)["content"][0]["text"]
            assert f"“number {number}”" in text
        finally:
            writer.transport.abort()

    await asyncio.gather(*(ask(number) for number in range(count)))
