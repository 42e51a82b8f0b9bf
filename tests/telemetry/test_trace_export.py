"""Spans on their way to a collector: batches, repetitions, and what a stalled one costs."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relay.telemetry import trace_export
from relay.telemetry.trace_export import Span, TraceExporter
from tests.fakes.collector import Collector, running_collector
from tests.fakes.until import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends at once, repeats soon."""
    monkeypatch.setattr(trace_export, "_INTERVAL_SECONDS", 0.01)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


def one_span(item: Any) -> list[Span]:
    return [{"name": str(item)}]


def exporter_to(url: str, **fields: str) -> TraceExporter:
    return TraceExporter(url, "test", lambda: fields, one_span)


async def test_spans_go_in_batches_with_the_service_and_own_fields(collector: Collector) -> None:
    exporter = exporter_to(collector.url, authorization="Bearer t")
    for number in range(1000):
        exporter.add(number)
    await until(lambda: len(collector.spans) == 1000)
    exporter.close()
    assert [span["name"] for span in collector.spans] == [str(number) for number in range(1000)]
    assert len(collector.documents) < 100
    (resource,) = collector.documents[0]["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "test"}} in (
        resource["resource"]["attributes"]
    )
    assert collector.headers[0]["authorization"] == "Bearer t"
    assert collector.headers[0]["content-type"] == "application/json"
    assert (exporter.sent, exporter.dropped) == (1000, 0)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_collector_gets_the_batch_again(collector: Collector, status: int) -> None:
    collector.statuses = [status, status]
    exporter = exporter_to(collector.url)
    exporter.add("a")
    await until(lambda: collector.spans)
    exporter.close()
    assert len(collector.headers) == 3
    assert (exporter.sent, exporter.dropped) == (1, 0)


async def test_the_time_that_it_asks_for_is_waited(collector: Collector) -> None:
    collector.statuses, collector.retry_after = [503], "1"
    exporter = exporter_to(collector.url)
    exporter.add("a")
    await until(lambda: collector.headers)
    began = time.monotonic()
    await until(lambda: collector.spans)
    exporter.close()
    assert time.monotonic() - began > 0.8


@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_a_refused_batch_is_dropped_and_the_next_is_sent(
    collector: Collector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    collector.statuses = [status]
    exporter = exporter_to(collector.url)
    exporter.add("a")
    await until(lambda: exporter.dropped == 1)
    exporter.add("b")
    await until(lambda: collector.spans)
    exporter.close()
    assert [span["name"] for span in collector.spans] == ["b"]
    assert f"cannot be sent to {collector.url}: refused with status {status}" in caplog.text
    assert caplog.text.count("are sent again; 1 requests have none") == 1


async def test_spans_wait_for_a_collector_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with running_collector() as gone:
        url = gone.url
    exporter = exporter_to(url)
    exporter.add("a")
    await until(lambda: "cannot be sent" in caplog.text)
    assert "Connection refused" in caplog.text
    assert exporter.dropped == 0
    exporter.close()
    assert exporter.dropped == 1
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1


async def test_a_stalled_collector_costs_spans_and_no_time(collector: Collector) -> None:
    collector.released.clear()
    exporter = exporter_to(collector.url)
    exporter.add("first")
    began = time.monotonic()
    for number in range(10_000):
        exporter.add(number)
    assert time.monotonic() - began < 0.5
    assert 10_001 - 4096 - 512 <= exporter.dropped <= 10_001 - 4096
    began = time.monotonic()
    exporter.close()
    assert time.monotonic() - began < 1.5


async def test_what_is_left_is_sent_at_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_export, "_INTERVAL_SECONDS", 60.0)
    exporter = exporter_to(collector.url)
    exporter.add("a")
    exporter.close()
    assert [span["name"] for span in collector.spans] == ["a"]


async def test_a_partial_refusal_is_logged(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.answer = {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}
    exporter = exporter_to(collector.url)
    exporter.add("a")
    await until(lambda: exporter.sent == 1)
    exporter.close()
    assert "has refused some spans: too old" in caplog.text
