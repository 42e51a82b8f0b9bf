"""Traces: spans of requests that have ended, at a collector of the test's own."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from relay.gateway.traces import caller_trace
from relay.telemetry import trace_export
from tests.api.admin_listener import LISTEN
from tests.api.scrape import scraped, total
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.collector import Collector, attributes, running_collector
from tests.fakes.live import EMAIL, RelayWith
from tests.fakes.until import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(trace_export, "_INTERVAL_SECONDS", 0.01)
    with running_collector() as running:
        yield running


async def ask(port: int, key: str | None, body: Any = None, fields: str = "") -> int:
    async with connected(port) as (reader, writer):
        writer.write(request(key, body, fields=fields))
        return (await read_answer(reader))[0]


async def test_a_request_has_a_span_and_its_upstream_one_below(
    relay_with: RelayWith, collector: Collector
) -> None:
    relay = await relay_with(traces={"endpoint": collector.url}, server=LISTEN)
    before = time.time_ns()
    assert await ask(relay.port, relay.key, {**BODY, "stream": True}) == 200
    await until(lambda: len(collector.spans) == 2)
    server, upstream = collector.spans
    (line,) = relay.log()
    assert server["name"] == "POST /v1/messages"
    assert (server["kind"], upstream["kind"]) == (2, 3)
    assert upstream["name"] == "chat claude-sonnet-4-7"
    assert upstream["parentSpanId"] == server["spanId"]
    assert upstream["traceId"] == server["traceId"]
    assert "parentSpanId" not in server
    assert "status" not in server
    facts = attributes(server)
    assert facts["http.response.status_code"] == 200
    assert facts["relay.request_id"] == line["id"]
    assert facts["relay.outcome"] == "whole"
    facts = attributes(upstream)
    assert facts["relay.upstream"] == "main"
    assert facts["gen_ai.usage.input_tokens"] == line["input"]
    assert facts["gen_ai.usage.output_tokens"] == line["output"]
    times = [
        int(moment)
        for moment in (
            server["startTimeUnixNano"],
            upstream["startTimeUnixNano"],
            *(event["timeUnixNano"] for event in upstream["events"]),
            upstream["endTimeUnixNano"],
        )
    ]
    assert [event["name"] for event in upstream["events"]] == ["head", "first content"]
    assert times == sorted(times)
    assert before - 10**9 < times[0]
    assert times[-1] < time.time_ns() + 10**9
    samples = await scraped(relay)
    assert total(samples, "relay_traces_sent_total") == 1
    assert total(samples, "relay_traces_dropped_total") == 0


async def test_no_key_address_or_text_is_in_a_span(
    relay_with: RelayWith, collector: Collector
) -> None:
    relay = await relay_with(traces={"endpoint": collector.url})
    canary = {**BODY, "messages": [{"role": "user", "content": "prompt-canary"}]}
    assert await ask(relay.port, relay.key, canary) == 200
    assert await ask(relay.port, "sk-llmapi-unknown-canary") == 401
    await until(lambda: len(collector.spans) == 3)
    written = str(collector.documents)
    for secret in ("canary", relay.key, EMAIL, "127.0.0.1"):
        assert secret not in written


async def test_a_failure_is_marked_and_a_refusal_has_one_span(
    relay_with: RelayWith, collector: Collector
) -> None:
    relay = await relay_with(traces={"endpoint": collector.url})
    assert await ask(relay.port, None) == 401
    assert await ask(relay.port, relay.key, fields="x-simulate: status=529\r\n") == 529
    await until(lambda: len(collector.spans) == 3)
    refused, failed, upstream = collector.spans
    assert "status" not in refused
    assert attributes(refused)["http.response.status_code"] == 401
    assert failed["status"]["code"] == upstream["status"]["code"] == 2


async def test_the_callers_trace_goes_on(relay_with: RelayWith, collector: Collector) -> None:
    relay = await relay_with(traces={"endpoint": collector.url})
    await ask(relay.port, relay.key, fields=f"traceparent: {TRACEPARENT}\r\n")
    await until(lambda: len(collector.spans) == 2)
    assert {span["traceId"] for span in collector.spans} == {TRACE}
    assert collector.spans[0]["parentSpanId"] == PARENT


@pytest.mark.parametrize(
    ("field", "is_known"),
    [
        (TRACEPARENT, True),
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        ("", False),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"cc-{TRACE}-{PARENT}-01.", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}-1", False),
        (f"{TRACEPARENT}, {TRACEPARENT}", False),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(field: str, is_known: bool) -> None:
    trace, parent = caller_trace(field.encode())
    assert (trace == TRACE, parent == PARENT) == (is_known, is_known)
    assert len(trace) == 32
    assert int(trace, 16)


async def test_the_ratio_chooses_by_the_traces_id(
    relay_with: RelayWith, collector: Collector
) -> None:
    relay = await relay_with(traces={"endpoint": collector.url, "ratio": 0.5})
    for start in "0f7c":
        trace = f"{TRACE[:18]}{start}{TRACE[19:]}"
        await ask(relay.port, relay.key, fields=f"traceparent: 00-{trace}-{PARENT}-01\r\n")
    await until(lambda: len(collector.spans) == 4)
    chosen = {span["traceId"][18] for span in collector.spans}
    assert chosen == {"0", "7"}


async def test_without_an_endpoint_there_are_no_traces(relay_with: RelayWith) -> None:
    relay = await relay_with(server=LISTEN)
    assert await ask(relay.port, relay.key) == 200
    assert total(await scraped(relay), "relay_traces_sent_total") == 0
