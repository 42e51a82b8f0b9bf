"""The path of one request through the relay, in the order in which it happens.

1. identify  key → caller
2. intake    the whole body, and what it asks for
3. route     model → upstream
4. admit     what it may use is held; the journal writes that down meanwhile
5. dispatch  the caller's own octets upstream → the head of the answer
6. splice    the upstream's own octets to the caller; the last ones once 4 is on disk
7. settle    what was used: ledger, journal and log (in `entry`, whatever happened)
"""

from time import monotonic

from relay.errors import Dialect
from relay.gateway.call import Call
from relay.gateway.caller import Callers
from relay.gateway.dispatch import dispatch, relay_error
from relay.gateway.metering import Metering
from relay.gateway.routes import Routes
from relay.gateway.upstreams import Upstream
from relay.net.client import Trouble, UpstreamConnection, UpstreamError
from relay.net.splice import Splice
from relay.translate.peek import peek, with_model
from relay.translate.usage import JsonTap, NoTap, StreamTap, Usage, message_usage
from relay.wire.events import Response

AnyTap = JsonTap | StreamTap | NoTap


class Relay:
    """Passes messages requests on, byte for byte."""

    def __init__(self, callers: Callers, routes: Routes, metering: Metering) -> None:
        self._callers = callers
        self._routes = routes
        self._metering = metering

    async def messages(self, call: Call) -> None:
        """`POST /v1/messages`, and `/v1/messages/count_tokens`, which costs nothing.

        Raises:
            RelayError: the answer has not begun, and this is what the caller is to be told.
        """
        exchange, record, metering = call.exchange, call.record, self._metering
        request = exchange.request
        caller = self._callers.identify(request.headers)
        plan = metering.enter(call, caller)

        body = exchange.octets or await exchange.body()
        begun = monotonic()
        asked = peek(body)

        route = self._routes.find(asked.model)
        record.model = asked.model  # now known to be one that is served, no longer than its name
        upstream = route.upstream
        record.upstream = upstream.name
        if route.model is not None or plan.prepaid:  # whose price depends on the name
            body = with_model(body, route.model or asked.model)

        if request.path == b"/v1/messages":
            metering.admit(call, caller, plan, asked, body)
        else:
            metering.admit_count(caller, plan)

        sent = monotonic()
        connection, response = await dispatch(upstream, request, body)
        record.relay_us = int((sent - begun) * 1e6)
        record.upstream_us = int((monotonic() - sent) * 1e6)
        await self._answer(call, upstream, connection, response)

    async def _answer(
        self, call: Call, upstream: Upstream, connection: UpstreamConnection, response: Response
    ) -> None:
        """Pass an answer on, and note what it used."""
        exchange, record, metering = call.exchange, call.record, self._metering
        counts = response.status == 200
        if not counts:
            metering.refund(call)  # before the header lines tell what is left
            record.outcome = f"refused: the upstream answered {response.status}"
        streamed = _is_stream(response)
        # An answer that comes encoded, in spite of what it was asked, is passed on as it is.
        told = counts and b"content-encoding" not in response.headers
        fields = _fields(call, response, streamed, metering.lines(call))
        octets = None if streamed else connection.whole(response)
        if octets is None:
            tap = NoTap() if not told else StreamTap() if streamed else JsonTap()
            splice = Splice(exchange, connection, response, tap)
            try:
                await self._join(splice, fields, call, tap, streamed)
            finally:
                upstream.pool.put(connection, reusable=splice.reusable)
            return
        # It is all here, as most JSON answers are: nothing to splice.
        upstream.pool.put(connection, reusable=response.keep_alive and connection.reusable)
        if told:
            usage = message_usage(octets)
            if not usage.whole:
                raise relay_error(UpstreamError(Trouble.GARBAGE))
            record.used(usage)
            call.usage = usage
        elif counts:
            call.usage = Usage()
        if call.ticket is not None and not call.ticket.durable:
            await metering.on_disk(call.ticket)
        exchange.begin_with(response.status, fields, response.length, octets)
        exchange.end()
        record.outcome = record.outcome or "whole"

    async def _join(
        self, splice: Splice, fields: bytes, call: Call, tap: AnyTap, streamed: bool
    ) -> None:
        """Pass the body on, and end the answer as what it was: whole or cut."""
        exchange, record = call.exchange, call.record
        cut = False
        usage: Usage | None = None
        try:
            await splice.join(fields)
            usage = tap.finish()
            if not usage.whole:
                raise UpstreamError(Trouble.CLOSED, "its answer has no end")
            if call.ticket is not None and not call.ticket.durable:
                await self._metering.on_disk(call.ticket)
            exchange.end(splice.last())
            record.outcome = record.outcome or "whole"
        except UpstreamError as failure:
            cut = True
            if not exchange.begun:
                raise relay_error(failure) from None
            record.outcome = f"cut: the upstream {failure}"
            if rest := splice.last():
                exchange.write_raw(rest)
            error = relay_error(failure).event(Dialect.MESSAGES, exchange.id.decode())
            if streamed and splice.interject(error):
                exchange.close()
            else:
                exchange.cut()
        finally:
            usage = usage or tap.finish()
            record.used(usage)
            if exchange.status == 200 and _brought(usage, tap, cut):
                call.usage = usage


def _brought(usage: Usage, tap: AnyTap, cut: bool) -> bool:
    """Whether there was anything in an answer: it may be an error in spite of its status 200,
    and a document is of use as a whole only (though a caller who leaves it does not undo it)."""
    if usage.model is not None or usage.input is not None or usage.output is not None:
        return True
    return isinstance(tap, NoTap) or (isinstance(tap, JsonTap) and not cut)


def _is_stream(response: Response) -> bool:
    return response.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def _fields(call: Call, response: Response, streamed: bool, limits: bytes) -> bytes:
    """The answer's field lines: the upstream's that may pass, and the relay's own."""
    record = call.record
    record.upstream_id = response.headers.get(b"request-id", b"").decode("latin-1")
    relay, upstream = record.relay_us, record.upstream_us  # told in milliseconds
    fields = b"%b%brequest-id: %b\r\nserver-timing: relay;dur=%d.%03d, upstream;dur=%d.%03d\r\n" % (
        response.onward,
        limits,
        call.exchange.id,
        relay // 1000,
        relay % 1000,
        upstream // 1000,
        upstream % 1000,
    )
    if streamed:  # nginx and others buffer a stream unless told not to
        fields += b"x-accel-buffering: no\r\n"
        if b"cache-control" not in response.headers:
            fields += b"cache-control: no-cache, no-transform\r\n"
    return fields
