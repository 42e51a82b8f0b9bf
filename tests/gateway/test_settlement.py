"""A request is settled by the reported usage, to the token, or refunded."""

import asyncio
import contextlib
import json
import math
import random
import re
import time
from typing import Any

import pytest

from relay.store.usage import sums
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_head, request
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith, raw_upstream
from tests.gateway.metering import (
    CACHED,
    FREE,
    PACE,
    PRICED,
    STREAM,
    ask,
    credit,
    left,
    plan,
    settled,
)

# --- refunds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [
        *((f"status={status}", status) for status in (400, 404, 413, 429, 500, 529)),
        ("status=401", 503),
        ("fault=close", 502),
        ("fault=garbage", 502),
        ("fault=empty", 502),
        ("fault=half-head", 502),
    ],
)
async def test_a_failure_is_refunded_except_to_flood_limits(
    relay_with: RelayWith, script: str, status: int
) -> None:
    relay = await relay_with(plan=plan(*FREE))
    started = time.monotonic()
    for count in (1, 2):
        got, fields, _ = await ask(relay, script=script)
        assert got == status
        assert left(fields) == 40  # refunded before its own answer is written
        came_back = 6000 / 60 * (time.monotonic() - started)
        assert left(fields, PACE) <= 6000 - count + came_back
        assert left(fields, b"anthropic-ratelimit-tokens") == 80_000_000
        assert fields[b"anthropic-ratelimit-unified-7d-utilization"] == b"0"
    assert left((await ask(relay))[1]) == 39
    rows = await settled(relay, 3)
    assert [row["rule"] for row in rows] == ["refunded", "refunded", "reported"]
    assert [row["cost_micro"] for row in rows[:2]] == [0, 0]


async def test_a_flood_limit_counts_failures(relay_with: RelayWith) -> None:
    limits = [{"requests": 40, "per": "5h"}, {"requests": 5, "per": "1h"}]
    relay = await relay_with(plan=plan(*limits))
    for count in range(5):
        _, fields, _ = await ask(relay, script="status=400")
        assert (left(fields), left(fields, PACE)) == (40, 4 - count)
    status, fields, body = await ask(relay)
    assert status == 429
    assert b"5 requests per hour" in body
    assert left(fields) == 40


async def test_an_upstream_that_is_down_costs_nothing(relay_with: RelayWith) -> None:
    async with raw_upstream(lambda *_: asyncio.sleep(0)) as closed:
        pass
    relay = await relay_with(closed, plan=plan(*FREE))
    status, fields, _ = await ask(relay)
    assert (status, left(fields)) == (503, 40)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["input"], row["cost_micro"]) == ("refunded", None, 0)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("status=400", "refused: the upstream answered 400"),
        ("status=529", "refused: the upstream answered 529"),
        ("fault=close", "refused: The model's upstream broke off its answer. Try again."),
        ("status=401", "refused: No upstream can serve this now. Tell the operator of this relay."),
    ],
)
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["document", "stream"])
async def test_an_upstreams_failure_is_not_recorded_as_the_callers(
    relay_with: RelayWith, script: str, outcome: str, body: dict[str, Any]
) -> None:
    relay = await relay_with(plan=plan(*FREE))
    status, _, _ = await ask(relay, script=script, body=body)
    [row] = await settled(relay, 1)
    assert (row["status"], row["outcome"]) == (status, outcome)


async def test_a_caller_that_leaves_before_the_answer_pays_its_prompt(
    relay_with: RelayWith,
) -> None:
    relay = await relay_with(plan=plan(*FREE), model=PRICED)
    async with connected(relay.port) as (_, writer):
        writer.write(request(relay.key, fields="x-simulate: delay=5\r\n"))
        await until(lambda: relay.simulator and relay.simulator.journal.requests)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["outcome"]) == ("left", "caller left")
    prompt = len(json.dumps(BODY)) // 4
    assert (row["input"], row["output"], row["cost_micro"]) == (prompt, None, 3 * prompt)
    assert left((await ask(relay))[1]) == 38


async def test_an_abandoned_stream_is_billed_by_its_reported_usage(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*FREE), model=PRICED)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM, fields="x-simulate: tokens=50;pace=20\r\n"))
        assert (await read_head(reader))[0] == 200
        seen = await reader.readuntil(b"content_block_delta")
    [row] = await settled(relay, 1)
    assert (row["rule"], row["outcome"], row["status"]) == ("partial", "caller left", 200)
    start = json.loads(seen[seen.index(b'{"type":"message_start"') :].split(b"\n")[0])
    usage = start["message"]["usage"]
    assert row["input"] == usage["input_tokens"]
    assert usage["output_tokens"] <= row["output"] <= 20  # of 50
    assert row["cost_micro"] == 3 * row["input"] + 15 * row["output"] > 0
    assert left((await ask(relay))[1]) == 38


async def test_a_cut_stream_is_billed_by_its_reported_usage(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*FREE))
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, STREAM, fields="x-simulate: fault=cut;at=6\r\n"))
        assert b"event: error" in await reader.read(-1)
    [row] = await settled(relay, 1)
    assert row["rule"] == "partial"
    assert row["outcome"].startswith("cut: the upstream")
    assert left((await ask(relay))[1]) == 38


@pytest.mark.parametrize(
    ("script", "body"),
    [
        ("fault=cut;at=0", STREAM),  # only a head
        ("fault=cut;at=1", STREAM),  # message_start with the input's usage
        ("fault=cut;at=3", STREAM),  # content_block_start without a delta
        ("fault=clean-end;at=3", STREAM),
        ("fault=error;at=0", STREAM),  # overloaded_error under status 200
        ("fault=cut;at=50", BODY),
        ("fault=cut;at=20000;bytes=100000", BODY),
        ("fault=cut;at=1500000;bytes=3000000", BODY),  # above the buffer limit, so sent in part
        ("fault=truncated-chunk;at=20", BODY),
    ],
)
async def test_an_answer_without_content_is_refunded(
    relay_with: RelayWith, script: str, body: dict[str, Any]
) -> None:
    prepaid = plan(*FREE, billing="per-token")
    relay = await relay_with(plan=prepaid, model=PRICED)
    await credit(relay, 1_000_000)
    async with connected(relay.port) as (reader, writer):
        fields = f"x-simulate: {script}\r\nconnection: close\r\n"
        writer.write(request(relay.key, body, fields=fields))
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["cost_micro"]) == ("refunded", 0)
    assert left((await ask(relay))[1]) == 39


async def test_leaving_before_a_documents_last_octet_is_billed(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=plan(*FREE), model=PRICED)
    async with connected(relay.port) as (reader, writer):
        script = "x-simulate: bytes=20000000\r\n"
        writer.write(request(relay.key, fields=script))
        assert (await read_head(reader))[0] == 200
        await reader.readexactly(1_000_000)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["outcome"]) == ("reserved", "caller left")
    assert left((await ask(relay))[1]) == 38


async def test_a_stream_without_usage_is_billed_as_reserved(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    async def silent(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        events = answers.stream(start={"input_tokens": 0}, end={})
        writer.write(answers.chunked(events))

    upstream = await upstream_with(silent)
    relay = await relay_with(upstream, plan=plan(*FREE), model=PRICED)
    status, fields, _ = await ask(relay, body=STREAM)
    assert (status, left(fields)) == (200, 39)
    [row] = await settled(relay, 1)
    assert (row["rule"], row["input"], row["output"]) == ("reserved", None, None)
    assert row["outcome"] == "whole"


async def test_input_reported_only_at_the_end_is_counted(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        usage = {"input_tokens": 321, "output_tokens": 12, "cache_read_input_tokens": 7}
        events = answers.stream(start={"input_tokens": 0, "output_tokens": 0}, end=usage)
        writer.write(answers.chunked(events))

    upstream = await upstream_with(late)
    relay = await relay_with(upstream, plan=plan(*FREE))
    await ask(relay, body=STREAM)
    [row] = await settled(relay, 1)
    assert (row["input"], row["output"], row["cache_read"]) == (321, 12, 7)
    assert row["rule"] == "reported"


# --- to the token -------------------------------------------------------------------

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]
THINKING = {**BODY, "max_tokens": 4000, "thinking": {"type": "adaptive"}}
CORPUS: list[tuple[str, dict[str, Any]]] = [
    ("", BODY),
    ("tokens=300", BODY),
    ("tokens=40;split=7", BODY),
    ("tokens=1", BODY),
    ("thinking=1", BODY),
    ("", THINKING),
    ("thinking=1;tokens=30;split=7", THINKING),
    ("tool=get_weather", {**BODY, "tools": TOOLS}),
    ("tool=get_weather;tools=3;split=7", {**BODY, "tools": TOOLS}),
    ("", CACHED),
    ("tokens=12", CACHED),
    ("split=7", CACHED),
    ("bytes=200000", BODY),
    ("tokens=20;pace=400", BODY),
    ("fault=drip", BODY),
]
# Cut after content: an answer that is cut earlier is refunded.
CUT = ["fault=cut;at=4", "fault=cut;at=9", "fault=reset;at=7", "fault=truncated-chunk;at=6"]


def reported(payload: bytes) -> dict[str, int]:
    """The usage that a stream reported (Anthropic API reference, Streaming messages). Where it
    was cut, its text counts as a token for four octets at least."""
    usage: dict[str, int] = {}
    for line in payload.split(b"\n"):
        if line.startswith(b"data: ") and b'"usage"' in line:
            event = json.loads(line[6:])
            said = event.get("usage") or event["message"]["usage"]
            usage |= {name: value for name, value in said.items() if isinstance(value, int)}
    text = sum(map(len, re.findall(rb'"text_delta","text":"([^"]*)"', payload)))
    if b"message_delta" not in payload:
        usage["output_tokens"] = max(usage["output_tokens"], text // 4)
    return usage


async def test_settlement_equals_reported_usage_to_the_token(relay_with: RelayWith) -> None:
    columns = ("input", "output", "cache_read", "cache_write")
    cached = ("cache_read_input_tokens", "cache_creation_input_tokens")
    names = ("input_tokens", "output_tokens", *cached)
    wanted = [(script, {**body, "stream": on}) for script, body in CORPUS for on in (False, True)]
    wanted += [("", body) for _, body in wanted[:12]]
    random.Random(3).shuffle(wanted)
    relay = await relay_with(plan=plan(*FREE[1:]), model=PRICED)
    simulator = relay.simulator
    assert simulator is not None
    turns = asyncio.Semaphore(8)

    async def one(script: str, body: dict[str, Any]) -> None:
        async with turns:
            status, _, answer = await ask(relay, script=script, body=body)
        assert status == 200, answer

    await asyncio.gather(*(one(script, body) for script, body in wanted))
    answered = len(wanted)
    rows = await settled(relay, answered)
    assert {(row["rule"], row["outcome"]) for row in rows} == {("reported", "whole")}
    totals = simulator.journal.report()["totals"]
    counted = {name: sum(row[column] or 0 for row in rows)
               for column, name in zip(columns, names, strict=True)}  # fmt: skip
    assert counted == {name: totals[name] for name in names}
    assert min(counted.values()) > 0
    for row in rows:
        cost = 3 * row["input"] + 15 * row["output"]
        cost += 0.3 * (row["cache_read"] or 0) + 3.75 * (row["cache_write"] or 0)
        assert row["cost_micro"] == math.ceil(round(cost, 6))

    async def cut(script: str) -> tuple[str, dict[str, int]]:
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, STREAM, fields=f"x-simulate: {script}\r\n"))
            _, fields = await read_head(reader)
            seen = b""
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    seen += data
        return fields[b"request-id"].decode(), reported(seen)

    given = await asyncio.gather(*map(cut, CUT))
    rows = (await settled(relay, answered + len(CUT)))[answered:]
    assert {row["rule"] for row in rows} == {"partial"}
    by_id = {row["id"]: row for row in rows}
    for id, usage in given:
        row = by_id[id]
        assert row["input"] == usage["input_tokens"]
        assert abs(row["output"] - usage["output_tokens"]) <= 3
    # The simulator counted the input of the cut answers, but not their output.
    totals = simulator.journal.report()["totals"]
    [total] = await sums(relay.app.database, "key")
    assert (total.input, total.cache_read, total.cache_write) == (
        totals["input_tokens"],
        totals["cache_read_input_tokens"],
        totals["cache_creation_input_tokens"],
    )
    assert total.output == totals["output_tokens"] + sum(row["output"] for row in rows)
    assert (total.requests, total.refunded, total.estimated) == (answered + len(CUT), 0, 0)
