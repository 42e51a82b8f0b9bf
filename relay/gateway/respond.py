"""Both ways to answer share this: field lines, the usage that is noted, how an answer ends.

Decides in which order an answer is settled and ended. An answer that was cut is never ended as if
it were complete. Whatever becomes of it, its usage is noted and its connection goes back to its
pool. Must not know dialects: each of the two ways writes its streams with a `StreamResponder`.
"""

from abc import ABC, abstractmethod
from time import monotonic
from typing import Final

from relay.errors import INTERNAL, RelayError
from relay.gateway.attempt import Answer, relay_error
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.dialect import UpstreamRefusal
from relay.gateway.error_words import StatedError, stated_error
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.pool import clock
from relay.pool.routes import Target
from relay.pool.vendor_errors import Scope, Verdict, of_failure
from relay.translate.messages.usage import Usage
from relay.wire.events import Response

_ENDED_WITH_ERROR: Final = Verdict(
    Scope.FAILURE, 0.0, False, "ended its answer with an error event", sure=False
)
_MAX_SERVED_MODEL: Final = 128  # characters of a model's name in the log
_OWN_FAULT: Final = "The relay failed. Its log has more under the request id."


class StreamResponder(ABC):
    """How one streamed answer reaches its caller."""

    __slots__ = ()

    @abstractmethod
    async def join(self) -> None:
        """Pass everything on but what ends the answer. Raises UpstreamError: it was cut."""

    @abstractmethod
    def usage(self) -> Usage:
        """The usage that the answer has reported so far."""

    def stated_error(self) -> bytes:
        """The data of an error object that was the last of the stream, without being an event."""
        return b""

    @abstractmethod
    def supply_end(self) -> None:
        """Add the event that ends an answer, which its upstream has left out."""

    @abstractmethod
    async def end(self, usage: Usage) -> None:
        """End the answer as complete. Raises RelayError: it could not be kept."""

    @abstractmethod
    def cut(self, error: RelayError) -> None:
        """Cut the answer: its upstream failed."""

    @abstractmethod
    def fail(self, error: RelayError) -> None:
        """Cut the answer: the relay itself failed."""

    @abstractmethod
    def counts(self, usage: Usage, cut: bool) -> bool:
        """Whether the answer counts: it brought something, in spite of its status perhaps."""

    @property
    @abstractmethod
    def reusable(self) -> bool:
        """Whether the upstream's connection can take another request."""


async def pass_stream(ctx: RequestContext, answer: Answer, responder: StreamResponder) -> None:
    """Run one streamed answer to its end.

    Raises:
        RelayError: it came to nothing before the caller had an octet of it.
    """
    target, admission, exchange = answer.lease.target, ctx.admission, ctx.exchange
    usage: Usage | None = None
    noted = cut = False
    if is_stream(answer.response):
        ctx.first_us = int((monotonic() - exchange.arrived) * 1e6)
    try:
        await responder.join()
        usage = responder.usage()
        if not usage.complete:
            if stated := responder.stated_error():
                raise stated_error(target, stated)
            body = answer.body
            if usage.stop_reason is None or (body is not None and body.ended_uncleanly):
                raise UpstreamError(FailureKind.CLOSED, "its answer has no end")
            usage.complete = True  # all is here but the event that says so
            responder.supply_end()
        await admission.durable()
        note_usage(ctx, target, usage)  # before the end, which may repeat the counts
        noted = True
        await responder.end(usage)
        note_end(ctx, target, error=usage.error)
    except UpstreamError as failure:
        cut = True
        if not exchange.started:
            raise relay_error(failure) from None
        ctx.end(Outcome.CUT, f"the upstream {failure}")
        verdict = of_failure(failure.kind)
        if isinstance(failure, StatedError):
            verdict = failure.verdict
        note_failure(ctx, target, verdict)
        responder.cut(relay_error(failure))
    except RelayError as error:
        if not exchange.started:
            raise
        ctx.end(Outcome.REFUSED, error.message)
        responder.fail(error)
    except Exception:  # a fault of the relay's own, which the handler logs
        cut = not exchange.ended
        if exchange.started and not exchange.ended:
            responder.fail(RelayError(INTERNAL, _OWN_FAULT))
        raise
    finally:
        answer.put_back(reusable=responder.reusable)
        if usage is None:
            usage = responder.usage()
        if not noted:
            note_usage(ctx, target, usage)
        if responder.counts(usage, cut):
            admission.count(usage)


def is_stream(response: Response) -> bool:
    """Whether a response is an event stream by its content-type."""
    return response.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def respond_events(ctx: RequestContext, fields: bytes, events: bytes) -> None:
    """Answer with a complete stream; a keep-alive may have started it."""
    exchange = ctx.exchange
    if exchange.started:
        exchange.end(events)
    else:
        exchange.begin_stream(200, fields, events)
        exchange.end()


def answer_fields(ctx: RequestContext, answer: Answer, onward: bytes) -> bytes:
    """The answer's field lines: the upstream's lines that go `onward`, and the relay's own."""
    target, response = answer.lease.target, answer.response
    ctx.upstream_id = response.headers.get(b"request-id", b"").decode("latin-1")
    relay, upstream = ctx.relay_us, ctx.upstream_us  # shown in milliseconds
    waited = b""
    if ctx.wait_us:
        waited = b"server-timing: queue;dur=%.3f\r\n" % (ctx.wait_us / 1000)
    return waited + (
        b"%b%b%brequest-id: %b\r\nserver-timing: relay;dur=%d.%03d, upstream;dur=%d.%03d\r\n"
    ) % (
        onward,
        ctx.limit_fields(),
        target.fields,
        ctx.exchange.id,
        relay // 1000,
        relay % 1000,
        upstream // 1000,
        upstream % 1000,
    )


def note_usage(ctx: RequestContext, target: Target, usage: Usage) -> None:
    """Record the usage and the model that an answer reported."""
    upstream = target.upstream
    if upstream.input_includes_cache and usage.input is not None:
        usage.input = max(0, usage.input - (usage.cache_read or 0) - (usage.cache_write or 0))
    # Dated names are the same model: claude-haiku-4-5 and claude-haiku-4-5-20251001.
    if usage.model is not None and not usage.model.startswith(target.name):
        ctx.served_model = usage.model[:_MAX_SERVED_MODEL]
        upstream.other_model += 1
    ctx.reported = usage


def note_failure(ctx: RequestContext, target: Target, verdict: Verdict) -> None:
    """An answer that had begun has failed; one that was free proves nothing."""
    inbound = ctx.inbound
    if inbound is None or not inbound.counting:
        target.upstream.health.failed(verdict, target.name, clock.now(), ctx.account)


def note_end(ctx: RequestContext, target: Target, *, error: bool) -> None:
    """An answer has come to its own end, which may be an `error` event."""
    ctx.outcome = Outcome.COMPLETE
    health = target.upstream.health
    if error:  # passed on as it is, but it is a failure of the upstream
        note_failure(ctx, target, _ENDED_WITH_ERROR)
    elif health.failures or health.bodies_blamed:
        health.completed()


def respond_refusal(ctx: RequestContext, refusal: UpstreamRefusal) -> None:
    """Answer with an upstream's own error, as the caller's dialect shows it."""
    exchange, inbound = ctx.exchange, ctx.inbound
    assert inbound is not None
    ctx.end(Outcome.REFUSED, str(refusal))
    ctx.admission.refund()  # before the fields show the quota that is left
    if exchange.started:
        end_failed(ctx, inbound.refusal_event(refusal))
        return
    status, onward, payload = inbound.refusal_response(refusal)
    fields = b"%b%brequest-id: %b\r\n%b: %b\r\n" % (
        onward,
        ctx.limit_fields(),
        exchange.id,
        *exchange.own_timing(),
    )
    exchange.respond_with(status, fields, payload)


def end_failed(ctx: RequestContext, event: bytes) -> None:
    """End a stream that has started with an error event. The connection is cut after it, unless
    the dialect has a regular end for such streams."""
    exchange, inbound = ctx.exchange, ctx.inbound
    exchange.write(event)
    if inbound is not None and inbound.ends_failed_streams:
        exchange.end()
    else:
        exchange.close()
