"""One request at one upstream, until its answer has begun.

An answer is held back until it has begun: a stream at its first event with content, a JSON document
at its end. Until then `pool.vendor_errors` classifies every failure, which is raised as
`FailedError`. It has the verdict on the upstream, and the error that the caller gets if no other
upstream can serve the request. The caller gets the upstream's own error word for word, unless it
concerns the operator's account (credential or bill): then the relay replaces it with its own error.
"""

import re
import time
from typing import Final

from relay.errors import BAD_UPSTREAM, FORBIDDEN, OVERLOADED, UPSTREAM_TIMEOUT, Kind, RelayError
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest, UpstreamRefusal, UpstreamRequest
from relay.gateway.error_words import OPERATORS_MATTER, StatedError, fit_refusal
from relay.net.upstream.body import LOOK_AHEAD_OCTETS, ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.pool.clock import converted
from relay.pool.leases import Lease
from relay.pool.vendor_errors import Scope, Verdict, of_failure
from relay.translate.messages.answer_form import Form, form_of, is_answer, states_error
from relay.translate.messages.answer_reader import AnswerReader
from relay.translate.messages.error_document import status_of
from relay.translate.messages.event_document import MESSAGE_STOP, StreamDocument, document_events
from relay.translate.messages.first_content import FirstContent, FirstEvent
from relay.translate.messages.usage import Usage, message_usage
from relay.wire.events import Response
from relay.wire.relabel import as_event_stream, as_json

_KINDS: Final[dict[FailureKind, Kind]] = {
    FailureKind.CONNECT: OVERLOADED,
    FailureKind.TLS: OVERLOADED,
    FailureKind.SILENT: UPSTREAM_TIMEOUT,
    FailureKind.CLOSED: BAD_UPSTREAM,
    FailureKind.GARBAGE: BAD_UPSTREAM,
}
_MESSAGES: Final[dict[FailureKind, str]] = {
    FailureKind.CONNECT: "The model's upstream cannot be reached. Try again in a moment.",
    FailureKind.TLS: (
        "The model's upstream cannot be reached safely. Tell the operator of this relay."
    ),
    FailureKind.SILENT: "The model's upstream did not answer in time. Try again.",
    FailureKind.CLOSED: "The model's upstream broke off its answer. Try again.",
    FailureKind.GARBAGE: "The model's upstream sent an answer that cannot be read. Try again.",
}
_FIREWALL: Final = (
    "A firewall before the model's upstream refuses this request, perhaps for words in it. "
    "Change the request."
)
_SAID_OCTETS: Final = 600  # of an upstream's error, for the operator
_CREDENTIAL_STATUSES: Final = frozenset({401, 402, 403, 407})
_JSON: Final = b"application/json"
_EVENT_STREAM: Final = b"text/event-stream"
_UNPRINTABLE: Final = re.compile(rb"[^\x20-\x7e]")
_STALE_SECONDS: Final = 1.0  # since sending; a connection lost later need not have been dead before
_MAX_DOCUMENT_OCTETS: Final = 32 * 1024 * 1024  # of a document that is read as a whole

_UNREPORTED: Final = Usage()  # of an answer that has yet to come


class Answer:
    """An answer that has begun, and the lease on its upstream.

    `body` reads the rest of the answer; None if the answer is complete. Then `octets` is its body
    with the upstream's framing, `payload` the body without framing, and `usage` the usage that the
    answer states.
    """

    __slots__ = ("_connection", "body", "events", "lease", "octets", "payload", "response", "usage")

    def __init__(
        self,
        lease: Lease,
        response: Response,
        body: ResponseBody | None,
        octets: bytes = b"",
        payload: bytes = b"",
        usage: Usage = _UNREPORTED,
    ) -> None:
        self.lease = lease
        self.response = response
        self.body = body
        self.octets = octets
        self.payload = payload
        self.usage = usage
        self.events = b""
        self._connection = None if body is None else body.connection

    @property
    def beginning(self) -> bytes:
        """The part of its payload that is here."""
        return self.payload if self.body is None else self.body.payload

    def put_back(self, *, reusable: bool) -> None:
        """Give the connection back to its pool, once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.lease.target.upstream.pool.put(connection, reusable=reusable)


class FailedError(Exception):
    """One upstream's failure: the verdict, and the caller's error if no other upstream is tried.

    `final`: no other upstream may be tried. `used`: this one may still be working on the request.
    """

    def __init__(
        self, verdict: Verdict, error: RelayError | UpstreamRefusal, *, used: bool = False
    ) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
        self.error = error
        self.used = used
        self.final = used or not verdict.elsewhere
        self.words = b""  # the beginning of what the upstream said


def relay_error(failure: UpstreamError) -> RelayError:
    """An upstream's failure as the caller's error."""
    if isinstance(failure, StatedError):
        return failure.error
    return RelayError(_KINDS[failure.kind], _MESSAGES[failure.kind])


async def attempt(ctx: RequestContext, lease: Lease, sent: UpstreamRequest) -> Answer:
    """Send a request to one upstream, and return its answer once it has begun.

    Raises:
        FailedError: no usable answer began.
    """
    pool = lease.target.upstream.pool
    sent_at = time.monotonic()
    if not ctx.tried:
        ctx.relay_us = int((sent_at - ctx.ready_at) * 1e6) - ctx.wait_us
    connection = None
    try:
        if not ctx.tried:  # a second try gets a new connection, as an idle one may be dead
            connection = pool.take()
        if connection is None:
            connection = await pool.connect()
        lease.sent = True
        response = None
        try:
            response = await connection.send(*sent)
        except UpstreamError as failure:
            if not failure.reused_and_unanswered or _is_late(sent_at):
                raise
        if response is None or (
            response.status == 408 and connection.sent > 1 and not _is_late(sent_at)
        ):
            # The upstream had closed this idle connection, or closes it with a 408 (RFC 9110
            # §15.5.9). It has not served the request, so send it again on a new connection.
            connection.close()
            connection = await pool.connect()
            response = await connection.send(*sent)
        sent = ()  # the upstream has it, and nothing else needs it
        ctx.upstream_us = int((time.monotonic() - sent_at) * 1e6)
        return await _started_answer(ctx, lease, connection, response)
    except FailedError as failed:
        if isinstance(failed.error, UpstreamRefusal):
            assert ctx.inbound is not None
            failed.error = fit_refusal(
                ctx.id,
                lease.target.upstream,
                failed.verdict,
                failed.error,
                as_came=not ctx.inbound.reads_answers,
            )
        raise
    except UpstreamError as failure:
        if connection is not None:
            connection.close()
        verdict = of_failure(failure.kind)._replace(reason=str(failure))
        silent = failure.kind is FailureKind.SILENT
        raise FailedError(verdict, relay_error(failure), used=silent) from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def _is_late(sent_at: float) -> bool:
    """Whether an upstream has had a request for so long that it may have worked on it."""
    return time.monotonic() - sent_at > _STALE_SECONDS


async def _started_answer(
    ctx: RequestContext, lease: Lease, connection: UpstreamConnection, response: Response
) -> Answer:
    """The answer that follows a response's head, once it has begun.

    Raises:
        UpstreamError, FailedError: the response is not a usable answer.
    """
    inbound, target = ctx.inbound, lease.target
    assert inbound is not None
    encoded = b"content-encoding" in response.headers
    # The caller gets `onward`, the log the id.
    shown = response.onward + response.headers.get(b"request-id", b"")
    if target.upstream.repeats_credential(shown) and response.status == 200:
        raise _leaky()
    if response.status != 200:
        body = ResponseBody(connection, response, keep_framing=False, unfold=encoded)
        raise await _refused(inbound, lease, body)
    content_type = response.headers.get(b"content-type", b"").lower()
    if not encoded and response.length:
        is_json = content_type.startswith(_JSON)
        octets = connection.complete_body(response) if is_json else None
        if octets is not None:
            reusable = response.keep_alive and connection.reusable
            answer = Answer(lease, response, None, octets, octets)
            return _complete(ctx, answer, connection, reusable)
        streams = inbound.stream and not inbound.counting
        if not streams if is_json else streams and content_type.startswith(_EVENT_STREAM):
            keep_framing = (
                not inbound.reads_answers
                and not target.shows_asked_name
                and ctx.exchange.passes_framing(response)
            )
            body = ResponseBody(connection, response, keep_framing=keep_framing)
            return await (_document(ctx, lease, body) if is_json else _stream(ctx, lease, body))
    return await _of_any_form(
        ctx, lease, ResponseBody(connection, response, keep_framing=False, unfold=True)
    )


async def _document(ctx: RequestContext, lease: Lease, body: ResponseBody) -> Answer:
    """A JSON answer that comes in several pieces."""
    inbound = ctx.inbound
    assert inbound is not None
    reads = inbound.reads_answers
    await body.look_ahead(limit=_MAX_DOCUMENT_OCTETS if reads else LOOK_AHEAD_OCTETS)
    if body.complete:
        answer = Answer(lease, body.response, None, body.octets, body.payload)
        return _complete(ctx, answer, body.connection, body.reusable)
    if reads or form_of(body.payload[:64], complete=False) not in (Form.DOCUMENT, None):
        raise UpstreamError(FailureKind.GARBAGE, "an answer that is too long, or none")
    if lease.target.upstream.repeats_credential(body.payload):
        raise _leaky()
    return Answer(lease, body.response, body)  # it is too long to be held back


async def _stream(ctx: RequestContext, lease: Lease, body: ResponseBody) -> Answer:
    """A stream, once it has brought content."""
    first = FirstContent()
    await body.look_ahead(first.feed)
    if first.kind is FirstEvent.CONTENT:
        return Answer(lease, body.response, body)
    if first.kind is None and body.complete and form_of(body.payload) is Form.DOCUMENT:
        answer = Answer(lease, body.response, None, b"", body.payload)
        return _complete(ctx, answer, body.connection, body.reusable)
    if first.kind is None and not body.complete and first.pending:
        return Answer(lease, body.response, body)  # its first event is longer than is held back
    raise _no_content(lease, body, first)


def _no_content(lease: Lease, body: ResponseBody, first: FirstContent) -> Exception:
    """The failure of a stream that has brought no content."""
    body.connection.close()
    if first.kind is FirstEvent.ERROR:
        return _late_error(lease, first.error)
    if first.kind is None and body.complete:
        return UpstreamError(FailureKind.CLOSED, "its stream brought nothing")
    return UpstreamError(FailureKind.GARBAGE, "a stream whose first content cannot be read")


async def _of_any_form(ctx: RequestContext, lease: Lease, body: ResponseBody) -> Answer:
    """An answer in another form than was asked for, compressed, or with a wrong label."""
    inbound, response = ctx.inbound, body.response
    assert inbound is not None
    reader = AnswerReader(streams=inbound.stream and not inbound.counting)
    await body.look_ahead(reader.feed, _MAX_DOCUMENT_OCTETS)
    form, first = reader.form, reader.first
    if form is Form.STREAM and reader.streams:
        if first.kind is not FirstEvent.CONTENT:
            raise _no_content(lease, body, first)
        return Answer(lease, as_event_stream(response), body)
    payload = body.payload
    if form is Form.STREAM:
        if reader.broken or not (body.complete or reader.document.error):
            raise _unreadable()
        if reader.document.error is not None:
            body.connection.close()
        payload = _assembled(lease, reader.document)
    elif form is not Form.DOCUMENT or not body.complete:
        raise UpstreamError(FailureKind.GARBAGE, _shown(response))
    answer = Answer(lease, response, None, b"", payload)
    return _complete(ctx, answer, body.connection, body.reusable)


def _shown(response: Response) -> str:
    content_type = response.headers.get(b"content-type", b"").lower()
    shown = _UNPRINTABLE.sub(b"?", content_type[:64]).decode() or "nothing"
    return f"200 with {shown}; is its base_url right?"


def _assembled(lease: Lease, stream: StreamDocument) -> bytes:
    """The document of a complete stream."""
    if stream.error is not None:
        raise _late_error(lease, stream.error)
    if not stream.complete:
        raise UpstreamError(FailureKind.CLOSED, "its answer has no end")
    try:
        return stream.octets()
    except (ValueError, RecursionError):
        raise _unreadable() from None


def _complete(
    ctx: RequestContext, answer: Answer, connection: UpstreamConnection, reusable: bool
) -> Answer:
    """An answer that is here as a whole, in the form that was asked for."""
    inbound, payload = ctx.inbound, answer.payload
    assert inbound is not None
    upstream = answer.lease.target.upstream
    pool = upstream.pool
    usage = answer.usage = message_usage(payload)
    if usage.stop_reason is None or usage.model is None:  # else it is certainly an answer
        try:
            payload = _checked(answer, inbound.counting)
        except FailedError:
            pool.put(connection, reusable=reusable)
            raise
    # Of a translated answer only its content reaches the caller, which cannot quote it.
    if not inbound.reads_answers and upstream.repeats_credential(answer.payload):
        raise _leaky()
    if not answer.octets or (inbound.stream and not inbound.counting):
        _convert(answer, payload, streams=inbound.stream and not inbound.counting)
    if inbound.reads_answers and not answer.events:
        try:
            inbound.read_document(ctx, answer)
        except ValueError:
            raise _unreadable() from None
    pool.put(connection, reusable=reusable)
    return answer


def _checked(answer: Answer, counting: bool) -> bytes:
    """The document of a body with status 200 that may not be an answer at all."""
    payload = answer.payload
    if form_of(payload) is Form.STREAM:
        stream = StreamDocument()
        try:
            stream.feed(payload)
        except (ValueError, RecursionError):
            raise _unreadable() from None
        answer.octets, answer.events = b"", payload
        payload = _assembled(answer.lease, stream)
        if not stream.stopped:
            answer.events += MESSAGE_STOP
        answer.usage = message_usage(payload)
    elif states_error(payload) and not is_answer(payload, counting=counting):
        raise _late_error(answer.lease, payload)
    if not answer.usage.complete:
        raise UpstreamError(FailureKind.CLOSED, "its answer is no whole JSON")
    if not is_answer(payload, counting=counting):
        raise UpstreamError(FailureKind.GARBAGE, "200 without an answer")
    return payload


def _convert(answer: Answer, payload: bytes, *, streams: bool) -> None:
    """Bring an answer into the form that was asked for."""
    if streams:
        try:
            answer.events = answer.events or document_events(payload)
        except (ValueError, RecursionError):
            raise _unreadable() from None
        answer.response = as_event_stream(answer.response)
    else:
        answer.events, answer.octets, answer.payload = b"", payload, payload
        answer.response = as_json(answer.response, payload)


def _unreadable() -> UpstreamError:
    return UpstreamError(FailureKind.GARBAGE, "an answer that cannot be read")


def _leaky() -> UpstreamError:
    return UpstreamError(FailureKind.GARBAGE, "an answer that repeats the operator's credential")


def _late_error(lease: Lease, payload: bytes) -> FailedError:
    """An error inside an answer with status 200; it gets the status that fits the error."""
    target = lease.target
    verdict = target.upstream.error_classifier.judge_event(payload, target.name, time.time())
    return _failed(verdict, status_of(payload), b"content-type: %b\r\n" % _JSON, payload)


async def _refused(inbound: InboundRequest, lease: Lease, body: ResponseBody) -> FailedError:
    """An answer with another status than 200, judged."""
    target, response = lease.target, body.response
    upstream, status = target.upstream, response.status
    readable = True
    if status >= 400:
        try:
            await body.look_ahead()
        except UpstreamError as failure:  # even if silent: it is not working on the request
            if failure.kind is not FailureKind.GARBAGE or not body.unfolded:
                raise UpstreamError(FailureKind.CLOSED, f"within its {status}") from None
            readable = False  # its coding is not known here, but its status and head say enough
        if readable and not body.complete:
            raise UpstreamError(FailureKind.GARBAGE, f"a {status} without end")
    upstream.pool.put(body.connection, reusable=readable and body.complete and body.reusable)
    payload = body.payload if readable else b""
    verdict = upstream.error_classifier.judge(
        status, response.headers, payload, target.name, time.time(), inbound.counting
    )
    return _failed(verdict, status, response.onward, payload)


def _failed(verdict: Verdict, status: int, fields: bytes, payload: bytes) -> FailedError:
    error: RelayError | UpstreamRefusal = UpstreamRefusal(status, fields, payload)
    if verdict.scope is Scope.CREDENTIAL or status in _CREDENTIAL_STATUSES:
        error = RelayError(OVERLOADED, OPERATORS_MATTER)
    if status == 403 and verdict.of_body:  # a firewall's page
        error = RelayError(FORBIDDEN, _FIREWALL)
    elif status < 400:
        error = RelayError(BAD_UPSTREAM, _MESSAGES[FailureKind.GARBAGE])
    elif status < 500 and verdict.scope is Scope.FAILURE:  # a 408, or a 400 of an aggregator
        error = RelayError(BAD_UPSTREAM, _MESSAGES[FailureKind.CLOSED])
    if verdict.until:
        verdict = verdict._replace(until=converted(verdict.until))
    failed = FailedError(verdict, error)
    failed.words = payload[:_SAID_OCTETS]
    return failed
