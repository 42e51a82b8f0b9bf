"""The path of one request through the relay, in the order in which it happens.

1. identify  key → caller
2. intake    the whole body, and what it asks for
3. route     model → upstream
4. dispatch  the caller's own octets upstream → the head of the answer
5. splice    the upstream's own octets to the caller
6. settle    what was used (`record`, which becomes the log line)
"""

from time import monotonic

from relay.errors import Dialect
from relay.gateway.caller import Callers
from relay.gateway.dispatch import dispatch, relay_error
from relay.gateway.record import Record
from relay.gateway.routes import Routes
from relay.net.client import Trouble, UpstreamError
from relay.net.exchange import Exchange
from relay.net.splice import Splice
from relay.translate.peek import peek, with_model
from relay.translate.usage import JsonTap, NoTap, StreamTap, message_usage
from relay.wire.events import Response

AnyTap = JsonTap | StreamTap | NoTap


class Relay:
    """Passes messages requests on, byte for byte."""

    def __init__(self, callers: Callers, routes: Routes) -> None:
        self._callers = callers
        self._routes = routes

    async def messages(self, exchange: Exchange, record: Record) -> None:
        """`POST /v1/messages` and `/v1/messages/count_tokens`.

        Raises:
            RelayError: the answer has not begun, and this is what the caller is to be told.
        """
        request = exchange.request
        caller = self._callers.identify(request.headers)
        record.user, record.key = caller.email, caller.key_id

        body = exchange.octets or await exchange.body()
        begun = monotonic()
        model = peek(body).model

        route = self._routes.find(model)
        record.model = model  # now known to be one that is served, and no longer than its name
        upstream = route.upstream
        record.upstream = upstream.name
        if route.model is not None:
            body = with_model(body, route.model)

        sent = monotonic()
        connection, response = await dispatch(upstream, request, body)
        record.relay_us = int((sent - begun) * 1e6)
        record.upstream_us = int((monotonic() - sent) * 1e6)

        streamed = _is_stream(response)
        # An answer that comes encoded, in spite of what it was asked, is passed on as it is.
        told = response.status == 200 and b"content-encoding" not in response.headers
        fields = _fields(exchange, record, response, streamed)
        octets = None if streamed else connection.whole(response)
        if octets is None:
            tap = NoTap() if not told else StreamTap() if streamed else JsonTap()
            splice = Splice(exchange, connection, response, tap)
            try:
                await _join(splice, fields, exchange, record, tap, streamed)
            finally:
                upstream.pool.put(connection, reusable=splice.reusable)
        else:  # it is all here, as most JSON answers are: nothing to splice
            upstream.pool.put(connection, reusable=response.keep_alive and connection.reusable)
            if told:
                usage = message_usage(octets)
                if not usage.whole:
                    raise relay_error(UpstreamError(Trouble.GARBAGE))
                record.used(usage)
            exchange.begin_with(response.status, fields, response.length, octets)
            exchange.end()
            record.outcome = "whole"


async def _join(
    splice: Splice, fields: bytes, exchange: Exchange, record: Record, tap: AnyTap, streamed: bool
) -> None:
    """Pass the body on, and end the answer as what it was: whole or cut."""
    try:
        await splice.join(fields)
        usage = tap.finish()
        record.used(usage)
        if not usage.whole:
            raise UpstreamError(Trouble.CLOSED, "its answer has no end")
        exchange.end(splice.last())
        record.outcome = "whole"
    except UpstreamError as failure:
        if not exchange.begun:
            raise relay_error(failure) from None
        record.used(tap.finish())
        record.outcome = f"cut: the upstream {failure}"
        if rest := splice.last():
            exchange.write_raw(rest)
        told = relay_error(failure).event(Dialect.MESSAGES, exchange.id.decode())
        if streamed and splice.interject(told):
            exchange.close()
        else:
            exchange.cut()


def _is_stream(response: Response) -> bool:
    return response.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")


def _fields(exchange: Exchange, record: Record, response: Response, streamed: bool) -> bytes:
    """The answer's field lines: the upstream's that may pass, and the relay's own."""
    record.upstream_id = response.headers.get(b"request-id", b"").decode("latin-1")
    relay, upstream = record.relay_us, record.upstream_us  # told in milliseconds
    fields = b"%brequest-id: %b\r\nserver-timing: relay;dur=%d.%03d, upstream;dur=%d.%03d\r\n" % (
        response.onward,
        exchange.id,
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
