"""One request and its response, as a handler sees them.

A handler reads the request's head and its bounded body, and answers with `respond`, or with
`begin`, `write` … and `end`. An answer that cannot be completed is cut (`close`, `cut`, `abort`),
never ended as if it were complete. The interface carries payload only: how a body is framed on the
wire is decided here and in `net.upstream.splice`, for HTTP/1.1 by this class.

Must not know models, keys or the dialect of an error.
"""

import asyncio
import itertools
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

from relay.clock import http_date
from relay.errors import ErrorShape, RelayError
from relay.net.request_body import RequestBody, too_large
from relay.net.runner import CoroutineRunner
from relay.wire.chunked import LAST_CHUNK
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Request, Response

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: the kernel sends a reset


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and CR LF."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


_boot: Final = secrets.token_hex(6).encode()
_count: Final = itertools.count(1).__next__

Headers = Iterable[tuple[bytes, bytes]]


def new_id() -> bytes:
    """A request id: unique, in order within a process, and no secret."""
    return b"req_%b%08x" % (_boot, _count())


class Pausable(Protocol):
    """The source of an answer's octets, which a slow reader can slow down."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """The connection that an exchange runs on."""

    transport: asyncio.Transport
    peer: str

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
        """`octets` is the body, if it came with the head."""
        self.request = request
        self.id = new_id()
        self.arrived = time.monotonic()
        self.runner: CoroutineRunner | None = None
        self.status = 0
        self.started = False  # the head of the answer is written
        self.ended = False  # nothing more will be written
        self.closing = False  # the connection ends with this exchange
        self.paused = False  # the caller reads too slowly
        self.source: Pausable | None = None
        self.probe: Callable[[], bool] | None = None  # set by a splice, see `still_read`
        self.transport = connection.transport
        self._connection = connection
        self._body_limit = body_limit
        self._chunked = False
        self._until_close = False  # the end of the connection ends the answer
        self._drain_waiter: asyncio.Future[None] | None = None
        self.early_body = octets  # the body, where it came with the head
        self.request_body: RequestBody | None = None  # None: the body came with the head
        if len(octets) != request.length:
            self.request_body = RequestBody(request.length, body_limit)

    # --- the request's body ---------------------------------------------------------

    @property
    def peer(self) -> str:
        """The caller's address, for the log."""
        return self._connection.peer

    @property
    def received(self) -> bool:
        """Whether the request is here to its end."""
        return self.request_body is None or self.request_body.complete

    async def body(self) -> bytes:
        """The request's body, once it is complete.

        Raises:
            RelayError: 413 over the limit, 408 too slow, 400 broken chunked coding.
        """
        if self.request.length > self._body_limit:
            raise too_large(self._body_limit)
        pending = self.request_body
        if pending is None:
            return self.early_body
        if self.request.expects_continue and not pending.size and not self.started:
            self.transport.write(CONTINUE)
        return await pending.complete_body()

    def release_body(self) -> None:
        """Let the request's body go. It stays received; `body` returns nothing from now on."""
        self.early_body = b""
        if self.request_body is not None:
            self.request_body.release()

    # --- the response ---------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes, fields: bytes = b"") -> None:
        """Answer with a complete body; `fields` are field lines that are ready, CR LF included."""
        self.respond_with(status, fields + field_lines(headers), body)

    def respond_with(self, status: int, fields: bytes, body: bytes) -> None:
        """Answer with a complete body and field lines that are ready."""
        head = self._head(status, fields, len(body))
        self.ended = True
        self.transport.write(head if self.request.method == b"HEAD" else head + body)

    def respond_as_received(self, response: Response, fields: bytes, octets: bytes) -> None:
        """Answer with a complete body in the framing that it came in.

        `octets` are the body as it came (`net.upstream.body`), or its payload where
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

        `octets` begin the body as it goes on the wire: one write for both saves a system call,
        of which a request has four.
        """
        self.transport.write(self._head(status, fields, length) + octets)

    def write(self, data: bytes) -> None:
        """Write payload, in a chunk of its own where the answer is chunked."""
        if data:
            self.transport.write(self._framed(data) if self._chunked else data)

    def write_raw(self, data: bytes) -> None:
        """Write octets onto the connection as they are."""
        self.transport.write(data)

    def end(self, payload: bytes = b"") -> None:
        """End the answer as complete, with this last payload."""
        self.end_raw(self._framed(payload) if self._chunked else payload)

    def end_raw(self, octets: bytes) -> None:
        """End the answer as complete, with these last octets as they go on the wire."""
        if not self.ended:
            self.ended = True
            if self._chunked:
                octets += LAST_CHUNK
            if octets:
                self.transport.write(octets)

    def close(self) -> None:
        """Cut the answer: octets written before still go out, then the connection ends."""
        self.ended = self.closing = True
        self.transport.close()

    def cut(self) -> None:
        """`close`, and let callers of HTTP/1.0 see the cut: by a reset, which may overtake
        the octets written last."""
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

        For handlers without a dialect; the gateway renders its callers' errors itself.
        """
        if self.started:
            self.cut()
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"request-id", self.id),
            self.own_timing(),
            *error.headers,
        ]
        body = error.body(ErrorShape.MESSAGES, self.id.decode())
        self.respond(error.status(ErrorShape.MESSAGES), headers, body)

    def own_timing(self) -> tuple[bytes, bytes]:
        """`server-timing` of an answer that no upstream had a part in."""
        return b"server-timing", b"relay;dur=%.3f" % ((time.monotonic() - self.arrived) * 1000)

    def passes_framing(self, response: Response) -> bool:
        """Whether a body can go to the caller in the framing that it comes in."""
        return response.length != CHUNKED or self.request.http11

    async def writable(self) -> None:
        """Wait while the caller reads too slowly."""
        if self.paused:
            self._drain_waiter = asyncio.get_running_loop().create_future()
            await self._drain_waiter

    def pause(self) -> None:
        """The caller reads too slowly: called by the connection."""
        self.paused = True
        if self.source is not None:
            self.source.pause()

    def resume(self) -> None:
        """The caller has caught up: called by the connection."""
        self.paused = False
        if self.source is not None:
            self.source.resume()
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def still_read(self) -> bool:
        """Probe whether a caller that shut its sending side still reads; False: no way to probe.

        An interim response means nothing to a client that waits (RFC 9110 §15.2), and a
        socket that was closed answers it with a reset.
        """
        if self.probe is not None:
            return self.probe()
        if self.started or not self.request.http11:
            return False
        self.transport.write(CONTINUE)
        return True

    def _framed(self, payload: bytes) -> bytes:
        """Payload as it goes on the wire in an answer of unknown length."""
        if not payload or not self.request.http11:
            return payload
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    def _head(self, status: int, fields: bytes, length: int) -> bytes:
        self.started = True
        self.status = status
        if not self.received or self._connection.closes_after_answer():
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
            status_line(status),
            fields,
            b"" if b"\r\ndate:" in fields or fields[:5] == b"date:" else date.line,
            framing,
            b"connection: close\r\n\r\n" if self.closing else b"\r\n",
        )


class _DateLine:
    """The `date` field of answers that bring none, renewed by the server's clock."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line = b""
        self.renew()

    def renew(self) -> None:
        self.line = b"date: %b\r\n" % http_date(time.time())


date: Final = _DateLine()


def field_lines(headers: Headers) -> bytes:
    """Header fields as lines, each with its CR LF."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
