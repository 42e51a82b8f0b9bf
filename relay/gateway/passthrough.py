"""An answer passed on as the octets that it is: the way of the Messages dialect.

Decides which of an answer's octets change: the model's name, where the caller is to see the name
that they asked for.
"""

from functools import partial

from relay.errors import RelayError
from relay.gateway.attempt import Answer
from relay.gateway.context import RequestContext
from relay.gateway.error_words import harmful_event
from relay.gateway.keepalive import UNBUFFERED, UNCACHED, KeepAlive
from relay.gateway.respond import (
    StreamResponder,
    answer_fields,
    is_stream,
    note_end,
    note_usage,
    pass_stream,
    respond_events,
)
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.guarded import GuardedSplice
from relay.net.upstream.splice import Splice
from relay.translate.messages.event_document import MESSAGE_STOP
from relay.translate.messages.first_content import rename_model
from relay.translate.messages.peek import with_model
from relay.translate.messages.usage import JsonTap, StreamTap, Usage
from relay.wire.events import Response


async def pass_on(ctx: RequestContext, answer: Answer, keep_alive: KeepAlive | None) -> None:
    """Pass an answer on that has begun, and note what it used.

    Raises:
        RelayError: it came to nothing before the caller had an octet of it.
    """
    exchange, target, response = ctx.exchange, answer.lease.target, answer.response
    if answer.body is not None:
        await pass_stream(ctx, answer, PassedStream(ctx, answer, answer.body, keep_alive))
        return
    # It is all here, as most JSON answers are: nothing to splice.
    if keep_alive is not None:  # or it might begin another answer while this one waits for the disk
        keep_alive.stop()
    note_usage(ctx, target, answer.usage)
    ctx.admission.count(answer.usage)
    await ctx.admission.durable()
    fields = answer_fields(ctx, answer, response.onward)
    if answer.events:
        events = answer.events
        if target.shows_asked_name:
            events = rename_model(events, ctx.model.encode())
        respond_events(ctx, fields + _stream_fields(response), events)
    elif target.shows_asked_name:
        exchange.respond_with(response.status, fields, _renamed(answer.payload, ctx.model))
    else:
        exchange.respond_as_received(response, fields, answer.octets)
    note_end(ctx, target, error=False)


class PassedStream(StreamResponder):
    """A body joined to the caller's answer as it comes."""

    __slots__ = ("_edit", "_exchange", "_fields", "_inbound", "_splice", "_streamed", "_tap")

    def __init__(
        self, ctx: RequestContext, answer: Answer, body: ResponseBody, keep_alive: KeepAlive | None
    ) -> None:
        target, response = answer.lease.target, answer.response
        streamed = self._streamed = is_stream(response)
        self._exchange = ctx.exchange
        self._inbound = ctx.inbound
        self._edit = None
        self._splice: Splice
        self._tap: StreamTap | JsonTap
        if streamed:
            self._tap = StreamTap()
            if target.shows_asked_name:
                self._edit = partial(rename_model, name=ctx.model.encode())
            self._splice = GuardedSplice(
                ctx.exchange,
                body,
                self._tap,
                partial(harmful_event, target),
                reframed=self._edit is not None or body.unfolded,
            )
        else:
            self._tap = JsonTap()
            self._splice = Splice(ctx.exchange, body, self._tap)
        if keep_alive is not None:
            keep_alive.follow(self._splice, body.connection)
        fields = answer_fields(ctx, answer, response.onward)
        self._fields = fields + _stream_fields(response) if streamed else fields

    async def join(self) -> None:
        """See `StreamResponder`."""
        await self._splice.join(self._fields, self._edit)

    def usage(self) -> Usage:
        """See `StreamResponder`."""
        return self._tap.finish()

    def stated_error(self) -> bytes:
        """See `StreamResponder`."""
        return self._tap.error if isinstance(self._tap, StreamTap) else b""

    def supply_end(self) -> None:
        """See `StreamResponder`."""
        self._splice.interject(MESSAGE_STOP)

    async def end(self, usage: Usage) -> None:
        """See `StreamResponder`."""
        self._splice.end()

    def cut(self, error: RelayError) -> None:
        """See `StreamResponder`."""
        assert self._inbound is not None
        self._splice.cut(self._inbound.error_event(error) if self._streamed else b"")

    def fail(self, error: RelayError) -> None:
        """See `StreamResponder`."""
        self._exchange.cut()

    def counts(self, usage: Usage, cut: bool) -> bool:
        """Something of it was passed on, and it reported usage or a model, or is a document that
        came complete: a part of one is of no use (though a caller who leaves a complete one does
        not undo it)."""
        if not self._splice.started:
            return False
        if usage.model is not None or usage.stated or usage.passed > 0:
            return True
        return isinstance(self._tap, JsonTap) and not cut

    @property
    def reusable(self) -> bool:
        """See `StreamResponder`."""
        return self._splice.reusable


def _renamed(payload: bytes, model: str) -> bytes:
    """A complete answer with the name that was asked for; unchanged where it names no model."""
    try:
        return with_model(payload, model)
    except RelayError:
        return payload


def _stream_fields(response: Response) -> bytes:
    return UNBUFFERED if b"cache-control" in response.headers else UNBUFFERED + UNCACHED
