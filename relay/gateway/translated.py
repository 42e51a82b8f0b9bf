"""An answer passed on in another dialect than the one it came in.

As `answer`, but the octets are the relay's own: a document is told anew as a whole, a stream
event by event. What ends it goes out once it is known to be whole, and on disk.
"""

from typing import Final

from relay.errors import BAD_UPSTREAM, RelayError
from relay.gateway.attempt import Answer, relay_error
from relay.gateway.context import RequestContext
from relay.gateway.dialect import Translation
from relay.gateway.keepalive import UNBUFFERED, UNCACHED, KeepAlive
from relay.gateway.metering import Metering
from relay.gateway.passthrough import broken, ended, fields, is_stream, note, tell
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.net.upstream.transcode import Transcode
from relay.pool.routes import Target
from relay.translate.messages.usage import NoTap
from relay.wire.events import Response

_JSON: Final = b"content-type: application/json\r\nx-request-id: %b\r\n"
_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\nx-request-id: %b\r\n"
    + UNBUFFERED
    + UNCACHED
)
_ODD: Final = "The model's upstream sent an answer that cannot be translated. Try again."


async def convert(
    call: RequestContext,
    translation: Translation,
    answer: Answer,
    metering: Metering,
    alive: KeepAlive | None,
) -> None:
    """Pass an answer on that has begun, and note what it used.

    Raises:
        RelayError: it came to nothing before the caller had an octet of it.
    """
    target, response, connection = answer.lease.target, answer.response, answer.connection
    streamed = is_stream(response)
    if streamed is not translation.stream:
        if connection is not None:
            connection.close()
        raise RelayError(BAD_UPSTREAM, _ODD)
    if connection is None:
        await _document(call, translation, answer, metering)
    elif streamed:
        await _stream(call, translation, target, response, connection, metering, alive)
    else:  # a document that is too long to be kept
        connection.close()
        raise RelayError(BAD_UPSTREAM, _ODD)


async def _document(
    call: RequestContext, translation: Translation, answer: Answer, metering: Metering
) -> None:
    exchange, target = call.exchange, answer.lease.target
    note(call, target, answer.usage)
    try:
        octets = translation.whole(answer.payload, target.fit, answer.usage)
    except ValueError:
        raise RelayError(BAD_UPSTREAM, _ODD) from None
    if translation.keeps:
        await translation.keep()
    call.usage = answer.usage
    if call.ticket is not None and not call.ticket.durable:
        await metering.on_disk(call.ticket)
    onward = _JSON % exchange.id
    lines = fields(call, target, answer.response, onward, metering.lines(call))
    exchange.begin_with(200, lines, len(octets), octets)
    exchange.end()
    ended(call, target, error=False)


async def _stream(
    call: RequestContext,
    translation: Translation,
    target: Target,
    response: Response,
    connection: UpstreamConnection,
    metering: Metering,
    alive: KeepAlive | None,
) -> None:
    exchange = call.exchange
    machine = translation.machine(target.fit)
    usage = machine.usage
    conversion = Transcode(exchange, connection, response, NoTap(), machine.feed)
    if alive is not None:
        alive.follow(conversion, conversion)
    onward = _STREAM % exchange.id
    noted = False
    try:
        await conversion.convert(fields(call, target, response, onward, metering.lines(call)))
        if not usage.complete:
            raise UpstreamError(FailureKind.CLOSED, "its answer has no end")
        if call.ticket is not None and not call.ticket.durable:
            await metering.on_disk(call.ticket)
        note(call, target, usage)  # which puts the counts right that the end tells
        noted = True
        if usage.error:  # it has been told, and nothing may look as if it were whole
            call.end_failed(b"")
        else:
            if alive is not None:  # nothing may come between the end and its numbers
                alive.stop()
            ending = machine.finish()
            if translation.keeps:
                await translation.keep()
            exchange.end(exchange.framed(ending))
        ended(call, target, error=usage.error)
    except UpstreamError as failure:
        if not exchange.started:
            raise relay_error(failure) from None
        call.end_failed(broken(call, target, failure))
    except RelayError as error:  # of what the relay itself was to do with the answer
        if not exchange.started:
            raise
        tell(call, error)
    finally:
        target.upstream.pool.put(connection, reusable=conversion.reusable)
        if not noted:
            note(call, target, usage)
        if usage.model is not None or usage.input is not None or usage.output is not None:
            call.usage = usage
