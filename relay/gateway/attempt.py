"""One request at one upstream, until it has begun to answer.

An answer is kept back until it has brought something: a stream its first event with content, a
JSON document its end. Until then whatever fails is judged (gateway.trouble) and raised as
`FailedError`: what it means for the upstream, and what the caller is told if no other can do it,
which is the upstream's own error word for word, but for what concerns the operator's account
(its credential, its bill): that becomes the relay's own.
"""

import asyncio
import re
import time
from typing import Final

import msgspec

from relay.errors import BAD_UPSTREAM, OVERLOADED, UPSTREAM_TIMEOUT, Kind, RelayError
from relay.gateway.context import RequestContext
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.net.upstream.lookahead import MOST, Lookahead
from relay.pool.leases import Lease
from relay.pool.vendor_errors import Scope, Verdict, of_failure
from relay.translate.messages.error_document import status_of
from relay.translate.messages.first_content import FirstContent, FirstEvent
from relay.translate.messages.usage import Usage, message_usage
from relay.wire.events import Response

_KINDS: Final[dict[FailureKind, Kind]] = {
    FailureKind.CONNECT: OVERLOADED,
    FailureKind.TLS: OVERLOADED,
    FailureKind.SILENT: UPSTREAM_TIMEOUT,
    FailureKind.CLOSED: BAD_UPSTREAM,
    FailureKind.GARBAGE: BAD_UPSTREAM,
}
_ADVICE: Final[dict[FailureKind, str]] = {
    FailureKind.CONNECT: "The model's upstream cannot be reached. Try again in a moment.",
    FailureKind.TLS: (
        "The model's upstream cannot be reached safely. Tell the operator of this relay."
    ),
    FailureKind.SILENT: "The model's upstream did not answer in time. Try again.",
    FailureKind.CLOSED: "The model's upstream broke off its answer. Try again.",
    FailureKind.GARBAGE: "The model's upstream sent an answer that cannot be read. Try again.",
}
_OPERATORS: Final = "No upstream can serve this now. Tell the operator of this relay."
_CREDENTIAL: Final = frozenset({401, 402, 403, 407})
_JSON: Final = b"application/json"
_STREAM: Final = b"text/event-stream"
_UNPRINTABLE: Final = re.compile(rb"[^\x20-\x7e]")
_NOT_COUNTED: Final = frozenset({404, 405, 501})  # to the question of how many tokens it is
_MOST_TRANSLATED: Final = 32 * 1024 * 1024  # octets of a document: it is translated as a whole
_COUNTS_AGAIN: Final = 3600.0  # seconds until it is asked again


class Answer(msgspec.Struct, eq=False):
    """An answer that began. `connection` has yet to bring it; None: `octets` are all of it, as
    they go on the wire, `payload` the same without framing, `usage` what it says was used."""

    lease: Lease
    response: Response
    connection: UpstreamConnection | None
    octets: bytes = b""
    payload: bytes = b""
    usage: Usage = msgspec.field(default_factory=Usage)


class RefusedError(Exception):
    """An upstream's own error, for the caller to see: `status`, field lines, document."""

    def __init__(self, status: int, fields: bytes, payload: bytes) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status = status
        self.fields = fields
        self.payload = payload


class FailedError(Exception):
    """One upstream's failure: what it means, and what the caller is told if it was the last.

    `final`: no other upstream is to be tried. `used`: this one may be at work on it still.
    """

    def __init__(
        self, verdict: Verdict, told: RelayError | RefusedError, *, used: bool = False
    ) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
        self.told = told
        self.used = used
        self.final = used or not verdict.elsewhere


def relay_error(failure: UpstreamError) -> RelayError:
    """The upstream's failure as the caller is told of it."""
    return RelayError(_KINDS[failure.trouble], _ADVICE[failure.trouble])


async def attempt(call: RequestContext, lease: Lease, body: bytes) -> Answer:
    """Send a request, and bring back an answer that has begun.

    Raises:
        FailedError: there is none.
    """
    upstream, record = lease.target.upstream, call.record
    request, translation = call.exchange.request, call.translation
    if translation is None:
        head = upstream.head(request, len(body))
    else:
        fields = translation.fields(request)
        head = upstream.messages_head(fields, len(body), counting=call.counting)
    pool = upstream.pool
    sent = time.monotonic()
    if not record.tried:
        record.relay_us = int((sent - call.begun) * 1e6) - record.wait_us
    connection = None
    try:
        connection = pool.take() or await pool.connect()
        lease.sent = True
        try:
            response = await connection.send(head, body)
        except UpstreamError as failure:
            if not failure.stale:
                raise
            # The upstream had closed this idle connection: no octet of an answer came, so the
            # request was not served. Once more, and on a new one.
            connection = await pool.connect()
            response = await connection.send(head, body)
        record.upstream_us = int((time.monotonic() - sent) * 1e6)
        if response.status != 200:
            raise await _refused(call, lease, connection, response)
        kind = response.headers.get(b"content-type", b"").lower()
        if b"content-encoding" in response.headers and kind.startswith((_JSON, _STREAM)):
            if translation is not None:
                raise UpstreamError(FailureKind.GARBAGE, "an encoding that was not asked for")
            return Answer(lease, response, connection)  # in spite of what was asked: as it is
        if kind.startswith(_JSON) and response.length:
            octets = connection.whole(response)
            if octets is None:
                most = MOST if translation is None else _MOST_TRANSLATED
                return await _document(lease, connection, response, most)
            reusable = response.keep_alive and connection.reusable
            return _whole(lease, connection, response, octets, octets, reusable)
        if kind.startswith(_STREAM) and response.length:
            return await _stream(lease, connection, response)
        said = _UNPRINTABLE.sub(b"?", kind[:64]).decode() or "nothing"
        raise UpstreamError(FailureKind.GARBAGE, f"200 with {said}; is its base_url right?")
    except UpstreamError as failure:
        if connection is not None:
            connection.close()
        verdict = of_failure(failure.trouble, time.time())._replace(reason=str(failure))
        silent = failure.trouble is FailureKind.SILENT
        raise FailedError(verdict, relay_error(failure), used=silent) from None
    except asyncio.CancelledError:
        if connection is not None:
            connection.close()
        raise


async def _document(
    lease: Lease, connection: UpstreamConnection, response: Response, most: int
) -> Answer:
    """A JSON answer that comes in several pieces."""
    hold = Lookahead(connection, response)
    await hold.until(lambda _: False, most)
    if not hold.complete:  # it is too long to be kept
        hold.give_back()
        return Answer(lease, response, connection)
    return _whole(lease, connection, response, hold.octets, hold.payload, hold.reusable)


def _whole(
    lease: Lease,
    connection: UpstreamConnection,
    response: Response,
    octets: bytes,
    payload: bytes,
    reusable: bool,
) -> Answer:
    usage = message_usage(payload)
    if not usage.complete:
        raise UpstreamError(FailureKind.CLOSED, "its answer is no whole JSON")
    lease.target.upstream.pool.put(connection, reusable=reusable)
    if usage.model is None and usage.input is None and _is_error(payload):
        raise _late(lease, payload)
    return Answer(lease, response, None, octets, payload, usage)


def _is_error(payload: bytes) -> bool:
    """Whether a document that says nothing of its usage is an error's."""
    return b'"error"' in payload or b'"base_resp"' in payload


async def _stream(lease: Lease, connection: UpstreamConnection, response: Response) -> Answer:
    """A stream, once it has brought content."""
    opening = FirstContent()
    hold = Lookahead(connection, response)
    await hold.until(opening.feed)
    if opening.kind is FirstEvent.ERROR:
        connection.close()
        raise _late(lease, opening.error)
    if opening.kind is None and hold.complete:
        raise UpstreamError(FailureKind.CLOSED, "its stream brought nothing")
    hold.give_back()
    return Answer(lease, response, connection)


def _late(lease: Lease, payload: bytes) -> FailedError:
    """An error in what had begun as a good answer: it gets the status that it should have had."""
    target = lease.target
    verdict = target.upstream.refusals.judge_event(payload, target.name, time.time())
    return _failed(verdict, status_of(payload), b"content-type: %b\r\n" % _JSON, payload)


async def _refused(
    call: RequestContext, lease: Lease, connection: UpstreamConnection, response: Response
) -> FailedError:
    """An answer with another status, and what it means."""
    target = lease.target
    upstream, status = target.upstream, response.status
    hold = Lookahead(connection, response)
    if status >= 400:
        try:
            await hold.until(lambda _: False)
        except UpstreamError:  # fallen silent or not: it is not at work on the request
            raise UpstreamError(FailureKind.CLOSED, f"within its {status}") from None
        if not hold.complete:
            raise UpstreamError(FailureKind.GARBAGE, f"a {status} without end")
    upstream.pool.put(connection, reusable=hold.reusable)
    counting = call.counting
    now = time.time()
    payload = hold.payload
    verdict = upstream.refusals.judge(status, response.headers, payload, target.name, now, counting)
    failed = _failed(verdict, status, response.onward, payload)
    if counting and status in _NOT_COUNTED:
        upstream.health.cannot_count(now + _COUNTS_AGAIN)
        failed.final = False
    return failed


def _failed(verdict: Verdict, status: int, fields: bytes, payload: bytes) -> FailedError:
    told: RelayError | RefusedError = RefusedError(status, fields, payload)
    if verdict.scope is Scope.CREDENTIAL or status in _CREDENTIAL:
        told = RelayError(OVERLOADED, _OPERATORS)
    elif status < 400:
        told = RelayError(BAD_UPSTREAM, _ADVICE[FailureKind.GARBAGE])
    return FailedError(verdict, told)
