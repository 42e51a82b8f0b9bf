"""One request and its response, as a handler sees them.

A handler reads the request's head and its bounded body. It answers with `respond`, or with
`begin`, `write` … and `end`. An answer that cannot be completed is cut (`close`, `cut`, `abort`),
never ended as if it were complete. The interface carries payload only; the methods named `raw`,
for `net.upstream.splice`, carry wire octets.

Decides the head and the framing of an answer in HTTP/1.1. Must not know models, keys or the
dialect of an error.
"""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Final, Protocol

from relay.clock import http_date
from relay.errors import INTERNAL, ErrorShape, RelayError
from relay.net.memory_budget import HeldOctets, MemoryBudget
from relay.net.request_body import RequestBody, too_large
from relay.net.runner import CoroutineRunner
from relay.wire.chunked import LAST_CHUNK
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Request, Response
from relay.wire.forwarded import TrustedProxies

UNCOUNTED_OCTETS: Final = 64 * 1024  # a body that came with its head, and is no part of the budget
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: the kernel sends a reset

_log = logging.getLogger("relay.net")


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and CR LF."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


_ID_DIGITS: Final = 32  # 128 bits
_IDS_AT_ONCE: Final = 256  # a call to the kernel for each would cost 0.4 µs

Headers = Iterable[tuple[bytes, bytes]]


def _random_ids() -> Iterator[bytes]:
    while True:
        digits = os.urandom(_IDS_AT_ONCE * _ID_DIGITS // 2).hex().encode()
        for start in range(0, len(digits), _ID_DIGITS):
            yield b"req_" + digits[start : start + _ID_DIGITS]


_next_id: Final = _random_ids().__next__


def new_id() -> bytes:
    """A request id of 128 random bits: it tells nothing of other requests."""
    return _next_id()


class Pausable(Protocol):
    """The source of an answer's octets; paused while the caller reads too slowly."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """The connection that an exchange runs on."""

    peer: str
    proxies: TrustedProxies | None  # None: `peer` itself is the caller

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def budget(self) -> MemoryBudget: ...
    def closes_after_answer(self) -> bool: ...


class Exchange:
    """See the module. `arrived` is monotonic time in seconds."""

    __slots__ = (
        "_body_limit",
        "_chunked",
        "_connection",
        "_drain_waiter",
        "_until_close",
        "arrived",
        "closing",
        "early_body",
        "ended",
        "held",
        "id",
        "paused",
        "probe",
        "request",
        "request_body",
        "runner",
        "source",
        "started",
        "status",
        "transport",
    )

    def __init__(
        self, connection: Connection, request: Request, body_limit: int, octets: bytes = b""
    ) -> None:
        """`octets` is the body, if it arrived with the head; `body_limit` is in octets."""
        self.request = request
        self.id = _next_id()
        self.arrived = time.monotonic()
        self.runner: CoroutineRunner | None = None
        self.status = 0
        self.started = False  # the answer's head is written
        self.ended = False  # nothing more will be written
        self.closing = False  # the connection closes after this exchange
        self.paused = False  # the caller reads too slowly
        self.source: Pausable | None = None
        self.probe: Callable[[], bool] | None = None  # set by a splice, for `still_read`
        self.transport = connection.transport
        self._connection = connection
        self._body_limit = body_limit
        self._chunked = False
        self._until_close = False  # the connection's end ends the answer
        self._drain_waiter: asyncio.Future[None] | None = None
        self.early_body = octets  # the body, if it arrived with the head
        self.request_body: RequestBody | None = None  # None: the body arrived with the head
        self.held: HeldOctets | None = None  # None: nothing is held in the budget
        if len(octets) != request.length:
            self.request_body = RequestBody(request.length, body_limit)

    # --- the request's body ---------------------------------------------------------

    @property
    def peer(self) -> str:
        """The caller's address, for the log."""
        connection = self._connection
        if connection.proxies is None:
            return connection.peer
        return connection.proxies.caller(connection.peer, self.request.headers)

    @property
    def is_secure(self) -> bool:
        """Whether the caller's connection has TLS."""
        return self.transport.get_extra_info("sslcontext") is not None

    @property
    def received(self) -> bool:
        """Whether the request has arrived completely."""
        return self.request_body is None or self.request_body.complete

    async def body(self, owner: str = "") -> bytes:
        """Wait for the request's complete body, for which its `owner` has memory.

        Without an owner it is not counted.

        Raises:
            RelayError: 413 over the limit, 408 too slow, 400 broken chunked coding; 429 or 503,
                there is no memory for it, and it is not collected.
        """
        length = self.request.length
        if length > self._body_limit:
            raise too_large(self._body_limit)
        pending = self.request_body
        if not owner:
            self._ask_for_body(owner)
            return self.early_body if pending is None else await pending.complete_body()
        self.hold(owner, max(length, len(self.early_body) if pending is None else pending.size))
        if pending is None:
            return self.early_body
        pending.held = self.held
        if pending.complete:
            return await pending.complete_body()
        budget = self._connection.budget
        budget.begin_upload(owner)
        try:
            self._ask_for_body(owner)
            return await pending.complete_body()
        finally:
            budget.end_upload(owner)

    def narrow_body(self, limit: int) -> None:
        """Take a body of at most `limit` octets, for an endpoint that needs no long ones."""
        self._body_limit = min(self._body_limit, limit)
        if self.request_body is not None:
            self.request_body.narrow(self._body_limit)

    def hold(self, owner: str, octets: int) -> None:
        """Hold `octets` more in memory for this exchange, until `release_body` or its end.

        Raises:
            RelayError: 429, 413 or 503, there is no room for them.
        """
        if self.held is None:
            self.held = HeldOctets(self._connection.budget, owner)
        self.held.resize(self.held.octets + octets)

    def replace_body(self, owner: str, octets: int) -> None:
        """Free the body as it came, and hold the `octets` that it was unfolded to.

        Raises:
            RelayError: as `hold`.
        """
        self.release_body()
        if octets > UNCOUNTED_OCTETS:
            self.hold(owner, octets)

    def release_body(self, kept: int = 0) -> None:
        """Free the request's body; `body` returns b"" from now on. `kept` octets stay held."""
        self.early_body = b""
        if self.request_body is not None:
            self.request_body.release()
        if self.held is not None:
            self.held.resize(min(kept, self.held.octets))

    def _ask_for_body(self, owner: str) -> None:
        pending = self.request_body
        if (
            pending is not None
            and self.request.expects_continue
            and not pending.size
            and not self.started
        ):
            self.transport.write(CONTINUE)

    # --- the response ---------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes, fields: bytes = b"") -> None:
        """Answer with a complete body; `fields` are further field lines, each with its CR LF."""
        self.respond_with(status, fields + field_lines(headers), body)

    def respond_with(self, status: int, fields: bytes, body: bytes) -> None:
        """Answer with a complete body; `fields` are field lines, each with its CR LF."""
        head = self._head(status, fields, len(body))
        self.ended = True
        self.transport.write(head if self.request.method == b"HEAD" else head + body)

    def respond_head(self, status: int, fields: bytes, length: int) -> None:
        """Answer HEAD; `length` (wire.events) is that of the body that GET has."""
        head = self._head(status, fields, length)
        self.ended = True
        self.transport.write(head)

    def respond_as_received(self, response: Response, fields: bytes, octets: bytes) -> None:
        """Answer with an upstream's complete body in the framing of `response`.

        `octets` are the body's wire octets (`net.upstream.body`), or its payload if
        `passes_framing` is False.
        """
        length = response.length
        if length == UNTIL_CLOSE:
            octets = self._framed(octets)
        octets = self._head(response.status, fields, length) + octets
        self.ended = True
        self.transport.write(octets + LAST_CHUNK if self._chunked else octets)

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin an answer of `length` octets, or of unknown length."""
        self.begin_raw(status, field_lines(headers), UNTIL_CLOSE if length is None else length)

    def begin_stream(self, status: int, fields: bytes, payload: bytes) -> None:
        """Begin an answer of unknown length; head and first payload are one write."""
        head = self._head(status, fields, UNTIL_CLOSE)
        self.transport.write(head + self._framed(payload))

    def begin_raw(self, status: int, fields: bytes, length: int, octets: bytes = b"") -> None:
        """Begin an answer in the framing of `length` (wire.events), for a splice.

        `octets` are the body's first wire octets. One write for both saves one of the four
        system calls of a request.
        """
        self.transport.write(self._head(status, fields, length) + octets)

    def write(self, data: bytes) -> None:
        """Write payload; in a chunked answer, as one chunk."""
        if data:
            self.transport.write(self._framed(data) if self._chunked else data)

    def payload_writer(self) -> Callable[[bytes], None]:
        """What `write` of some octets comes to once the answer has begun, for a splice: it writes
        once per event."""
        return self._write_chunk if self._chunked else self.transport.write

    def _write_chunk(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def write_raw(self, data: bytes) -> None:
        """Write wire octets to the connection unchanged."""
        self.transport.write(data)

    def end(self, payload: bytes = b"") -> None:
        """End the answer as complete; `payload` is its last part."""
        self.end_raw(self._framed(payload) if self._chunked else payload)

    def end_raw(self, octets: bytes) -> None:
        """End the answer as complete; `octets` are its last wire octets."""
        if not self.ended:
            self.ended = True
            if self._chunked:
                octets += LAST_CHUNK
            if octets:
                self.transport.write(octets)

    def close(self) -> None:
        """Cut the answer: octets already written are sent, then the connection closes."""
        self.ended = self.closing = True
        self.transport.close()

    def cut(self) -> None:
        """Cut the answer like `close`, but with a reset for HTTP/1.0 callers.

        Their answer ends with the connection, so a plain close would look complete. The reset may
        overtake the octets written last.
        """
        if self._until_close and not self.transport.is_closing():
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def abort(self) -> None:
        """Cut the answer and the connection at once."""
        self.ended = self.closing = True
        self.transport.abort()

    def fail(self, error: RelayError) -> None:
        """Answer with an error in the Messages shape, or cut an answer that has started.

        For handlers without a dialect; `api.handler` renders the errors of the API.
        """
        if self.started:
            self.cut()
            return
        kind = (b"content-type", b"application/json")
        headers = [kind, (b"request-id", self.id), self.own_timing(), *error.headers]
        body = error.body(ErrorShape.MESSAGES, self.id.decode())
        self.respond(error.status(ErrorShape.MESSAGES), headers, body)

    def fail_by(self, error: BaseException) -> None:
        """End the answer after an exception of its handler, if need be in the Messages shape."""
        if isinstance(error, RelayError):
            self.fail(error)
        elif isinstance(error, asyncio.CancelledError):
            self.abort()
        else:
            _log.error("request %s failed", self.id.decode(), exc_info=error)
            self.fail(RelayError(INTERNAL, "The relay failed. Its log has the request id."))

    def own_timing(self) -> tuple[bytes, bytes]:
        """`server-timing` of an answer that the relay made without an upstream."""
        return b"server-timing", b"relay;dur=%.3f" % ((time.monotonic() - self.arrived) * 1000)

    def passes_framing(self, response: Response) -> bool:
        """Whether the caller can get a body in the upstream's framing."""
        return response.length != CHUNKED or self.request.http11

    async def writable(self) -> None:
        """Wait until the caller reads fast enough."""
        if self.paused:
            self._drain_waiter = asyncio.get_running_loop().create_future()
            await self._drain_waiter

    def pause(self) -> None:
        """Pause the answer's source. The connection calls it when the caller reads too slowly."""
        self.paused = True
        if self.source is not None:
            self.source.pause()

    def resume(self) -> None:
        """Resume the answer's source. The connection calls it when the caller has caught up."""
        self.paused = False
        if self.source is not None:
            self.source.resume()
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def still_read(self) -> bool:
        """Probe whether a caller that shut its sending side still reads; False if it cannot.

        A waiting client ignores an interim response (RFC 9110 §15.2); a closed socket answers it
        with a reset.
        """
        if self.probe is not None:
            return self.probe()
        if self.started or not self.request.http11:
            return False
        self.transport.write(CONTINUE)
        return True

    def _framed(self, payload: bytes) -> bytes:
        """The wire octets of `payload` in an answer of unknown length."""
        if not payload or not self.request.http11:
            return payload
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    def _head(self, status: int, fields: bytes, length: int) -> bytes:
        self.started = True
        self.status = status
        pending = self.request_body  # `received`, written out: every answer passes here
        if (pending is not None and not pending.complete) or (
            self._connection.closes_after_answer()
        ):
            self.closing = True
        framing = b""
        if length >= 0:
            if status != 204:
                framing = b"content-length: %d\r\n" % length
        elif self.request.http11:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self.closing = self._until_close = True
        return b"%b%b%b%b%b" % (
            _STATUS_LINES.get(status) or status_line(status),
            fields,
            b"" if fields.find(b"\r\ndate:") >= 0 or fields[:5] == b"date:" else date.line,
            framing,
            b"connection: close\r\n\r\n" if self.closing else b"\r\n",
        )


class _DateLine:
    """The `date` field of answers without one, renewed every tick."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line = b""
        self.renew()

    def renew(self) -> None:
        self.line = b"date: %b\r\n" % http_date(time.time())


date: Final = _DateLine()


def field_lines(headers: Headers) -> bytes:
    """Field lines of `headers`, each with its CR LF."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
