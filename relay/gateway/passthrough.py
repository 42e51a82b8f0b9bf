"""An answer passed on to its caller: whole, spliced, or as the error that it is.

Whatever becomes of it, what it used is noted and its connection goes back to its pool. An answer
that was cut is never ended as if it were whole.
"""

import re
from functools import partial
from time import time
from typing import Final

import orjson

from relay.errors import BAD_UPSTREAM, Dialect, RelayError
from relay.gateway.attempt import Answer, RefusedError, relay_error
from relay.gateway.context import RequestContext
from relay.gateway.keepalive import UNBUFFERED, UNCACHED, KeepAlive
from relay.gateway.metering import Metering
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.net.upstream.splice import Splice
from relay.pool.routes import Route, Target
from relay.pool.vendor_errors import Scope, Verdict, of_failure
from relay.translate.messages.error_document import caller_error
from relay.translate.messages.first_content import rename_model
from relay.translate.messages.peek import with_model
from relay.translate.messages.usage import JsonTap, NoTap, StreamTap, Usage
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Response

AnyTap = JsonTap | StreamTap | NoTap

_JSON: Final = b"content-type: application/json\r\nx-request-id: %b\r\n"
_RETRY: Final = re.compile(rb"^(?:retry-after(?:-ms)?|x-should-retry):[^\n]*\n", re.MULTILINE)
_ENDED: Final = Verdict(Scope.FAILURE, 0.0, False, "ended its answer with an error event")


async def pass_on(
    call: RequestContext, route: Route, answer: Answer, metering: Metering, alive: KeepAlive | None
) -> None:
    """Pass an answer on that has begun, and note what it used.

    Raises:
        RelayError: it came to nothing before the caller had an octet of it.
    """
    exchange, record = call.exchange, call.record
    target, response = answer.lease.target, answer.response
    encoded = b"content-encoding" in response.headers
    if exchange.started and (encoded or not is_stream(response)):
        if answer.connection is not None:
            answer.connection.close()
        raise RelayError(BAD_UPSTREAM, "The model's upstream answered without a stream.")
    renamed = route.as_asked and target.model is not None
    if answer.connection is not None:
        await _join(call, target, response, answer.connection, metering, alive, renamed)
        return
    # It is all here, as most JSON answers are: nothing to splice.
    if alive is not None:  # or it might begin another answer while this one waits for the disk
        alive.stop()
    octets, length = answer.octets, response.length
    note(call, target, answer.usage)
    call.usage = answer.usage
    if renamed:
        octets = _renamed(answer.payload, record.model)
        length = len(octets)
    elif length == UNTIL_CLOSE:
        octets = exchange.framed(octets)
    elif length == CHUNKED and not exchange.passes_chunks:
        octets = answer.payload
    if call.ticket is not None and not call.ticket.durable:
        await metering.on_disk(call.ticket)
    lines = fields(call, target, response, response.onward, metering.lines(call))
    exchange.begin_with(response.status, lines, length, octets)
    exchange.end()
    ended(call, target, error=False)


async def _join(
    call: RequestContext,
    target: Target,
    response: Response,
    connection: UpstreamConnection,
    metering: Metering,
    alive: KeepAlive | None,
    renamed: bool,
) -> None:
    """Pass the body on, and end the answer as what it was: whole or cut."""
    exchange, record = call.exchange, call.record
    streamed = is_stream(response)
    # An answer that comes encoded, in spite of what it was asked, is passed on as it is.
    told = b"content-encoding" not in response.headers
    tap = NoTap() if not told else StreamTap() if streamed else JsonTap()
    edit = None
    if renamed and told and streamed:
        name = record.model.encode()
        edit = partial(rename_model, name=name)
    splice = Splice(exchange, connection, response, tap, reframed=edit is not None)
    if alive is not None:
        alive.follow(splice, connection)
    lines = fields(call, target, response, response.onward, metering.lines(call))
    if streamed:
        lines += _stream_fields(response)
    cut = False
    usage: Usage | None = None
    try:
        await splice.join(lines, edit)
        usage = tap.finish()
        if not usage.complete:
            raise UpstreamError(FailureKind.CLOSED, "its answer has no end")
        if call.ticket is not None and not call.ticket.durable:
            await metering.on_disk(call.ticket)
        exchange.end(splice.last())
        ended(call, target, error=usage.error)
    except UpstreamError as failure:
        cut = True
        if not exchange.started:
            raise relay_error(failure) from None
        error = broken(call, target, failure)
        if rest := splice.last():
            exchange.write_raw(rest)
        if streamed and splice.interject(error):
            exchange.close()
        else:
            exchange.cut()
    finally:
        target.upstream.pool.put(connection, reusable=splice.reusable)
        usage = usage or tap.finish()
        note(call, target, usage)
        if _brought(usage, tap, cut):
            call.usage = usage


def ended(call: RequestContext, target: Target, *, error: bool) -> None:
    """An answer has come to its own end, which may be an `error` event."""
    call.record.outcome = "whole"
    health = target.upstream.health
    if error:  # passed on as it is, but not as if nothing had been
        health.failed(_ENDED, target.name, time())
    else:
        health.failures = 0


def broken(call: RequestContext, target: Target, failure: UpstreamError) -> bytes:
    """An answer that has begun was cut; the event that tells the caller so."""
    call.record.outcome = f"cut: the upstream {failure}"
    target.upstream.health.failed(of_failure(failure.trouble, time()), target.name, time())
    return call.failed(relay_error(failure))


def refuse(call: RequestContext, refusal: RefusedError, metering: Metering) -> None:
    """Pass an upstream's own error on, word for word, or what another dialect has for it."""
    exchange, translation = call.exchange, call.translation
    call.record.outcome = f"refused: {refusal}"
    metering.refund(call)  # before the header lines tell what is left
    status, onward, payload = refusal.status, refusal.fields, refusal.payload
    if exchange.started:
        if translation is not None:
            call.end_failed(translation.failed(caller_error(status, payload)[1]))
        else:
            call.end_failed(_error_event(payload) or _unreadable(refusal, call))
        return
    if translation is not None:
        status, told = caller_error(status, payload)
        payload = told.body(translation.dialect)
        onward = b"".join(_RETRY.findall(onward)) + _JSON % exchange.id
    lines = b"%b%brequest-id: %b\r\n%b: %b\r\n" % (
        onward,
        metering.lines(call),
        exchange.id,
        *exchange.own_timing(),
    )
    exchange.begin_with(status, lines, len(payload), payload)
    exchange.end()


def tell(call: RequestContext, error: RelayError) -> None:
    """Tell of an error in a stream that has nothing but keep-alives in it."""
    call.record.outcome = f"refused: {error.message}"
    call.end_failed(call.failed(error))


def _error_event(payload: bytes) -> bytes | None:
    """An error document as an event; None if it is none."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("error"), dict):
        return None
    document.setdefault("type", "error")
    return b"event: error\ndata: " + orjson.dumps(document) + b"\n\n"


def _unreadable(refusal: RefusedError, call: RequestContext) -> bytes:
    error = RelayError(BAD_UPSTREAM, f"The model's upstream answered {refusal.status}.")
    return error.event(Dialect.MESSAGES, call.record.id)


def _renamed(payload: bytes, model: str) -> bytes:
    """A whole answer with the name that was asked for; as it is where it names no model."""
    try:
        return with_model(payload, model)
    except RelayError:
        return payload


def note(call: RequestContext, target: Target, usage: Usage) -> None:
    """Take over what an answer said of itself."""
    upstream = target.upstream
    if upstream.inclusive and usage.input is not None:
        usage.input = max(0, usage.input - (usage.cache_read or 0) - (usage.cache_write or 0))
    # Dated names are the same model: claude-haiku-4-5 and claude-haiku-4-5-20251001.
    if usage.model is not None and not usage.model.startswith(target.name):
        call.record.served = usage.model[:128]
        upstream.other_model += 1
    call.record.used(usage)


def _brought(usage: Usage, tap: AnyTap, cut: bool) -> bool:
    """Whether there was anything in an answer: it may be an error in spite of its status 200,
    and a document is of use as a whole only (though a caller who leaves it does not undo it)."""
    if usage.model is not None or usage.input is not None or usage.output is not None:
        return True
    return isinstance(tap, NoTap) or (isinstance(tap, JsonTap) and not cut)


def is_stream(response: Response) -> bool:
    return response.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def fields(
    call: RequestContext, target: Target, response: Response, onward: bytes, limits: bytes
) -> bytes:
    """The answer's field lines: those of the upstream's that go `onward`, and the relay's own."""
    record = call.record
    record.upstream_id = response.headers.get(b"request-id", b"").decode("latin-1")
    relay, upstream = record.relay_us, record.upstream_us  # told in milliseconds
    waited = b""
    if record.wait_us:
        waited = b"server-timing: queue;dur=%.3f\r\n" % (record.wait_us / 1000)
    return waited + (
        b"%b%b%brequest-id: %b\r\nserver-timing: relay;dur=%d.%03d, upstream;dur=%d.%03d\r\n"
    ) % (
        onward,
        limits,
        target.fields,
        call.exchange.id,
        relay // 1000,
        relay % 1000,
        upstream // 1000,
        upstream % 1000,
    )


def _stream_fields(response: Response) -> bytes:
    return UNBUFFERED if b"cache-control" in response.headers else UNBUFFERED + UNCACHED
