"""Spans of requests that have ended: one of the relay, and below it one of the upstream.

Made from the access log's record, on the exporter's thread, so that a request pays for a few
attributes. No key, e-mail address, prompt or answer is in a span.

Decides which requests are traced and what their spans say (OpenTelemetry's conventions for HTTP and
generative AI, and `relay.…`). A caller's `traceparent` (W3C Trace Context) is continued; it is not
sent upstream. Must not know how spans are sent.
"""

import re
from random import getrandbits
from typing import Any, Final, NamedTuple

from relay.config import TracesSettings
from relay.gateway.access_fields import AccessRecord
from relay.gateway.context import RequestContext
from relay.telemetry.trace_export import Span, TraceExporter, nanoseconds, number, text

# Version 00 ends after its flags; later ones may go on after a hyphen (W3C Trace Context §3.2).
_TRACEPARENT: Final = re.compile(
    rb"(?:00(?=.{53}$)|(?!00|ff)[0-9a-f]{2}(?=.{53}(?:-|$)))"
    rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}"
)
_SERVER, _CLIENT = 2, 3  # kinds of spans
_ERROR: Final = 2  # status


class TracedRequest(NamedTuple):
    """What spans are made from. `sent_us` is the time from the request's head until it went
    upstream, in microseconds."""

    record: AccessRecord
    trace: str
    parent: str
    started_at: float
    sent_us: int


class RequestTraces:
    """Chooses the requests that are traced, and hands them over."""

    def __init__(self, exporter: TraceExporter, ratio: float) -> None:
        self.exporter = exporter
        self._below = int(ratio * 2**56)

    def take(self, ctx: RequestContext, record: AccessRecord) -> None:
        """Trace a request that has ended, if its trace is in the share.

        The trace's id decides, so that services with the same ratio choose the same traces.
        """
        trace, parent = caller_trace(ctx.exchange.request.headers.get(b"traceparent", b""))
        if int(trace[-14:], 16) >= self._below:
            return
        sent_us = ctx.relay_us + ctx.wait_us
        if ctx.ready_at:
            sent_us += int((ctx.ready_at - ctx.exchange.arrived) * 1e6)
        self.exporter.add(TracedRequest(record, trace, parent, ctx.started_at, sent_us))

    def close(self) -> None:
        """Send the rest; waits a second at most."""
        self.exporter.close()


def open_traces(settings: TracesSettings) -> RequestTraces | None:
    """The traces of these settings; None: there are none."""
    if not settings.endpoint:
        return None
    exporter = TraceExporter(settings.endpoint, settings.service, settings.fields, spans)
    return RequestTraces(exporter, settings.ratio)


def caller_trace(field: bytes) -> tuple[str, str]:
    """The ids of a trace and of the span that a request belongs to, by its `traceparent`; without
    a valid one those of a new trace, and no span."""
    match = _TRACEPARENT.match(field)
    if match is None:
        return f"{getrandbits(128) | 1:032x}", ""
    return match[1].decode(), match[2].decode()


def spans(request: TracedRequest) -> list[Span]:
    """The spans of one request, in the JSON form of OTLP."""
    record, span = request.record, _span_id()
    server: Span = {
        "traceId": request.trace,
        "spanId": span,
        "name": f"{record.method} {record.path}",
        "kind": _SERVER,
        "startTimeUnixNano": nanoseconds(request.started_at),
        "endTimeUnixNano": nanoseconds(request.started_at, record.us),
        "attributes": _server_attributes(record),
    }
    if request.parent:
        server["parentSpanId"] = request.parent
    if _is_failure(record):
        server["status"] = {"code": _ERROR, "message": record.outcome}
    if not record.upstream:
        return [server]
    return [server, _upstream_span(request, span)]


def _upstream_span(request: TracedRequest, parent: str) -> Span:
    record, start = request.record, min(request.sent_us, request.record.us)
    events = []
    if record.upstream_us:
        events.append(("head", start + record.upstream_us))
    if record.first_us:
        events.append(("first content", record.first_us))
    result: Span = {
        "traceId": request.trace,
        "spanId": _span_id(),
        "parentSpanId": parent,
        "name": f"chat {record.model}",
        "kind": _CLIENT,
        "startTimeUnixNano": nanoseconds(request.started_at, start),
        "endTimeUnixNano": nanoseconds(request.started_at, record.us),
        "attributes": _upstream_attributes(record),
        "events": [
            {"name": name, "timeUnixNano": nanoseconds(request.started_at, us)}
            for name, us in events
        ],
    }
    if _is_failure(record):
        result["status"] = {"code": _ERROR, "message": record.outcome}
    return result


def _server_attributes(record: AccessRecord) -> list[dict[str, Any]]:
    named = {
        "http.request.method": record.method,
        "url.path": record.path,
        "relay.request_id": record.id,
        "relay.outcome": record.outcome,
        "relay.rule": record.rule,
        "relay.key": record.key,
        "relay.agent": record.agent,
    }
    attributes = [text(key, value) for key, value in named.items() if value]
    if record.status:
        attributes.append(number("http.response.status_code", record.status))
    if record.wait_us:
        attributes.append(number("relay.wait_us", record.wait_us))
    return attributes


def _upstream_attributes(record: AccessRecord) -> list[dict[str, Any]]:
    named = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.served,
        "gen_ai.response.id": record.upstream_id,
        "relay.upstream": record.upstream,
        "relay.choice": record.choice,
        "relay.passed": record.passed,
        "relay.tried": record.tried,
    }
    counts = {
        "gen_ai.usage.input_tokens": record.input,
        "gen_ai.usage.output_tokens": record.output,
        "gen_ai.usage.cache_read.input_tokens": record.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": record.cache_write,
    }
    attributes = [text(key, value) for key, value in named.items() if value]
    attributes += [number(key, count) for key, count in counts.items() if count is not None]
    if record.stop:
        reasons = {"arrayValue": {"values": [{"stringValue": record.stop}]}}
        attributes.append({"key": "gen_ai.response.finish_reasons", "value": reasons})
    return attributes


def _is_failure(record: AccessRecord) -> bool:
    return record.status >= 500 or record.outcome.startswith(("cut", "failed"))


def _span_id() -> str:
    return f"{getrandbits(64) | 1:016x}"
