"""The path of one request through the relay, in the order in which it happens.

1. identify  key → caller
2. intake    the whole body, and what it asks for
3. route     model → upstream
4. admit     what it may use is held; the journal writes that down meanwhile
5. dispatch  the caller's own octets upstream → the head of the answer
6. splice    the upstream's own octets to the caller; the last ones once 4 is on disk
7. settle    what was used: ledger, journal and log
"""

from time import monotonic

from relay.errors import Dialect
from relay.gateway.call import AnyTap, Call
from relay.gateway.caller import Callers
from relay.gateway.dispatch import dispatch, relay_error
from relay.gateway.metering import Metering
from relay.gateway.routes import Routes
from relay.net.client import Trouble, UpstreamConnection, UpstreamError
from relay.net.pool import Pool
from relay.net.splice import Splice
from relay.translate.peek import peek, with_model
from relay.translate.usage import JsonTap, NoTap, StreamTap
from relay.wire.events import Response


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
        call.caller = caller = self._callers.identify(request.headers)
        record.user, record.key = caller.email, caller.key_id
        plan = metering.enter(call)

        body = await exchange.body()
        begun = monotonic()
        asked = peek(body)

        route = self._routes.find(asked.model)
        record.model = asked.model  # now known to be one that is served
        upstream = route.upstream
        record.upstream = upstream.name
        if route.model is not None:
            body = with_model(body, route.model)

        if request.path == b"/v1/messages":
            metering.admit(call, plan, asked, len(body))
        else:
            metering.admit_count(call, plan)
        try:
            sent = monotonic()
            connection, response = await dispatch(upstream, request, body)
            record.relay_us = int((sent - begun) * 1e6)
            record.upstream_us = int((monotonic() - sent) * 1e6)
            if response.status != 200:
                metering.end(call, response.status)  # given back before the headers tell
            await self._answer(call, upstream.pool, connection, response)
        finally:
            metering.end(call, exchange.status)

    async def _answer(
        self, call: Call, pool: Pool, connection: UpstreamConnection, response: Response
    ) -> None:
        exchange, record = call.exchange, call.record
        streamed = _is_stream(response)
        call.tap = tap = _tap(response, streamed)
        fields = _fields(call, response, streamed, self._metering)
        octets = connection.whole(response)
        if octets is None:
            splice = Splice(exchange, connection, response, tap)
            try:
                await self._join(splice, fields, call, streamed)
            finally:
                pool.put(connection, reusable=splice.reusable)
        else:  # it is all here, as most JSON answers are: nothing to splice
            pool.put(connection, reusable=response.keep_alive and connection.reusable)
            tap.feed(octets)
            call.usage = usage = tap.finish()
            if not usage.whole:
                raise relay_error(UpstreamError(Trouble.GARBAGE))
            await self._metering.on_disk(call)
            exchange.begin_with(response.status, fields, response.length, octets)
            exchange.end()
            record.used(usage)
            record.outcome = "whole"

    async def _join(self, splice: Splice, fields: bytes, call: Call, streamed: bool) -> None:
        """Pass the body on, and end the answer as what it was: whole or cut."""
        exchange, record, tap = call.exchange, call.record, call.tap
        assert tap is not None
        try:
            await splice.join(fields)
            call.usage = usage = tap.finish()
            record.used(usage)
            if not usage.whole:
                raise UpstreamError(Trouble.CLOSED, "its answer has no end")
            await self._metering.on_disk(call)
            splice.flush()
            exchange.end()
            record.outcome = "whole"
        except UpstreamError as failure:
            if not exchange.begun:
                raise relay_error(failure) from None
            call.usage = call.usage or tap.finish()
            record.used(call.usage)
            record.outcome = f"cut: the upstream {failure}"
            splice.flush()
            told = relay_error(failure).event(Dialect.MESSAGES, exchange.id.decode())
            if streamed and splice.interject(told):
                exchange.close()
            else:
                exchange.cut()


def _tap(response: Response, streamed: bool) -> AnyTap:
    # One that comes encoded, in spite of what it was asked, can only be passed on as it is.
    if response.status != 200 or b"content-encoding" in response.headers:
        return NoTap()
    return StreamTap() if streamed else JsonTap()


def _is_stream(response: Response) -> bool:
    return response.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def _fields(call: Call, response: Response, streamed: bool, metering: Metering) -> bytes:
    """The answer's field lines: the upstream's that may pass, and the relay's own."""
    record = call.record
    record.upstream_id = response.headers.get(b"request-id", b"").decode("latin-1")
    relay, upstream = record.relay_us, record.upstream_us  # told in milliseconds
    fields = b"%b%brequest-id: %b\r\nserver-timing: relay;dur=%d.%03d, upstream;dur=%d.%03d\r\n" % (
        response.onward,
        metering.lines(call),
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
