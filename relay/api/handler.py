"""The server's handler: wraps every endpoint, turns every failure into an answer.

Decides how an error is answered, in the shape of the caller's API. Writes the journal's row and the
access log's line once a request has ended.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from relay.api.paths import V1, below, error_shape, without_keys
from relay.api.router import Endpoint, Endpoints
from relay.errors import INTERNAL, ErrorShape, Header, RelayError
from relay.gateway.access_record import access_record, refusal_record
from relay.gateway.admission import UNMETERED
from relay.gateway.authentication import KeyIndex
from relay.gateway.catalog import Catalog
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.large_requests import end_reading, release_ended
from relay.gateway.load import Load
from relay.gateway.metering import Metering
from relay.gateway.request_metrics import RequestMetrics
from relay.gateway.traces import RequestTraces
from relay.gateway.watch import Watch
from relay.net.exchange import Exchange, field_lines
from relay.quota.exceeded import QuotaExceeded
from relay.telemetry.access_log import AccessLog
from relay.wire.events import Request

_INTERNAL_ERROR: Final = "The relay failed. Its log has more under the request id."

_log = logging.getLogger("relay.api")


def _costs(error: RelayError) -> bool:
    """Whether a refusal counts against limits: not one by a limit, nor by the relay's own fault."""
    return error.kind.status < 500 and not isinstance(error, QuotaExceeded)


def _error_fields(request_id: bytes, shape: ErrorShape, error: RelayError) -> list[Header]:
    """The header fields of an error's answer."""
    fields = [(b"content-type", b"application/json"), (b"request-id", request_id), *error.headers]
    if shape is not ErrorShape.MESSAGES:  # OpenAI's SDKs read this field
        fields.append((b"x-request-id", request_id))
    return fields


class Handler:
    """See the module. `catalog` serves the requests that come from now on."""

    def __init__(
        self,
        endpoints: Endpoints,
        keys: KeyIndex,
        metering: Metering,
        catalog: Catalog,
        log: AccessLog | None,
        metrics: RequestMetrics,
        load: Load,
    ) -> None:
        self.catalog = catalog
        self.log = log
        self.traces: RequestTraces | None = None
        self.watch = Watch()
        # Called with each request that a limit refuses.
        self.on_exceeded: Callable[[RequestContext, QuotaExceeded], None] | None = None
        # Called with each request that was refused before its admission, once it is answered.
        self.on_refused: Callable[[RequestContext, RelayError, str], None] | None = None
        self._endpoints = endpoints
        self._keys = keys
        self._metering = metering
        self._metrics = metrics
        self._load = load

    async def handle(self, exchange: Exchange, endpoint: Endpoint | None = None) -> None:
        """Answer one request on every outcome, and log it. `endpoint`: by default the path's."""
        ctx = RequestContext(exchange, self.catalog)
        self._load.in_flight += 1
        self.watch.running.add(ctx)
        try:
            if endpoint is None:
                endpoint = self._endpoints.find(ctx)
            await endpoint(ctx)
        except RelayError as error:
            if ctx.checked and ctx.admission is UNMETERED and _costs(error):
                self._metering.count_refusal(ctx)
            ctx.end(Outcome.REFUSED, without_keys(error.message))
            if self.on_exceeded is not None and isinstance(error, QuotaExceeded):
                self.on_exceeded(ctx, error)
            self._metrics.refused(error)
            self._fail(ctx, error)
            if self.on_refused is not None and ctx.admission is UNMETERED:
                self.on_refused(ctx, error, ctx.reason)
        except asyncio.CancelledError:
            if ctx.checked and ctx.inbound is None:  # its body may have been read
                self._metering.count_refusal(ctx)
            ctx.end(Outcome.CALLER_LEFT)
            raise
        except Exception:
            ctx.end(Outcome.FAILED)
            _log.exception("request %s failed", ctx.id)
            self._fail(ctx, RelayError(INTERNAL, _INTERNAL_ERROR))
        finally:
            self._load.in_flight -= 1
            self.watch.running.discard(ctx)
            if ctx.reading_key:
                end_reading(ctx)
            if ctx.heavy:
                release_ended(ctx)
            us = int((time.monotonic() - exchange.arrived) * 1e6)
            outcome = ctx.outcome_text
            ctx.admission.end_row(exchange.status, outcome, ctx.upstream, ctx.upstream_us, us)
            self._metrics.record(ctx, us)
            if ctx.outcome is not Outcome.COMPLETE or ctx.tried:
                self.watch.failed(ctx, outcome, us)
            if self.log is not None or self.traces is not None:
                self._write(ctx, outcome, us)

    def refused(
        self, request: Request, request_id: bytes, peer: str, error: RelayError
    ) -> tuple[int, bytes, bytes]:
        """Log octets that are no request, and give the answer: status, field lines, body."""
        shape = error_shape(request)
        status = error.status(shape)
        self._metrics.reject(status)
        if self.log is not None:
            self.log.line(refusal_record(request_id.decode(), peer, status, error.message))
        fields = self.catalog.cors.fields(request.headers) + field_lines(
            _error_fields(request_id, shape, error)
        )
        return status, fields, error.body(shape, request_id.decode())

    def _write(self, ctx: RequestContext, outcome: str, us: int) -> None:
        """Write a request that has ended into the log and the traces."""
        record = access_record(ctx, outcome, us)
        if self.log is not None:
            self.log.line(record)
        if self.traces is not None:
            self.traces.take(ctx, record)

    def _fail(self, ctx: RequestContext, error: RelayError) -> None:
        """Answer with an error, or cut an answer that has started."""
        exchange = ctx.exchange
        if exchange.started:
            if not exchange.ended:
                exchange.cut()
            return
        if ctx.key_state is None and below(exchange.request.path, V1):
            self._find_plan(ctx)  # refused before its endpoint identified the caller
        shape = error_shape(exchange.request)
        headers = [*_error_fields(exchange.id, shape, error), exchange.own_timing()]
        body = error.body(shape, ctx.id)
        exchange.respond(error.status(shape), headers, body, ctx.limit_fields(error))

    def _find_plan(self, ctx: RequestContext) -> None:
        """Find the caller's quota, which the error's limit fields show."""
        caller = self._keys.find(ctx.exchange.request.headers)
        if caller is not None:
            with contextlib.suppress(RelayError):  # the plan may be gone from relay.toml
                self._metering.enter(ctx, caller)
