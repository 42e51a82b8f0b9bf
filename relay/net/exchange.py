"""One request and its response, as a handler sees them, on an HTTP/1.1 connection.

The request's body is collected by an `RequestBody`, bounded; the response is written straight to
the transport. A handler answers with `respond`, or with `begin`, `write` … and `end`. An answer
that cannot be completed is cut (`close`, `abort`), never ended as if it were whole.
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
from relay.errors import Dialect, RelayError
from relay.net.request_body import RequestBody, too_large
from relay.net.runner import CoroutineRunner
from relay.wire.chunked import LAST_CHUNK
from relay.wire.events import UNTIL_CLOSE, Request

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"

_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: the kernel resets


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and CR LF."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


_boot = secrets.token_hex(6).encode()
_count = itertools.count(1).__next__

Headers = Iterable[tuple[bytes, bytes]]


def new_id() -> bytes:
    """A request id: unique, in order within a process, and no secret."""
    return b"req_%b%08x" % (_boot, _count())


class Pausable(Protocol):
    """Where the answer's octets come from, so that a slow reader can slow it down."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """What an exchange needs of the connection that it runs on."""

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
        "drive",
        "ended",
        "id",
        "intake",
        "octets",
        "only_pings",
        "paused",
        "probe",
        "request",
        "source",
        "started",
        "status",
        "transport",
    )

    def __init__(
        self, connection: Connection, request: Request, body_limit: int, octets: bytes = b""
    ) -> None:
        """`octets` is the body, if it is here already."""
        self.request = request
        self.id = new_id()
        self.arrived = time.monotonic()
        self.drive: CoroutineRunner | None = None
        self.status = 0
        self.started = False  # the head of the answer is written
        self.only_pings = False  # it has begun, but of the answer itself nothing is written
        self.ended = False  # nothing more will be written
        self.closing = False  # the connection ends with this exchange
        self.paused = False  # the caller reads too slowly
        self.source: Pausable | None = None
        self.probe: Callable[[], bool] | None = None  # how a splice asks, see `still_read`
        self.transport = connection.transport
        self._connection = connection
        self._body_limit = body_limit
        self._chunked = False
        self._until_close = False  # only the connection's end tells the answer's
        self._drain_waiter: asyncio.Future[None] | None = None
        self.intake: RequestBody | None = None  # None: the body came with the head
        self.octets = octets  # the body, if it came with the head
        if len(octets) != request.length:
            self.intake = RequestBody(request.length, body_limit)

    # --- the request's body ---------------------------------------------------------

    @property
    def peer(self) -> str:
        """The caller's address, for the log."""
        return self._connection.peer

    @property
    def received(self) -> bool:
        """Whether the whole request is here."""
        return self.intake is None or self.intake.complete

    async def body(self) -> bytes:
        """The whole request body.

        Raises:
            RelayError: 413 over the limit, 408 too slow, 400 broken chunked coding.
        """
        if self.request.length > self._body_limit:
            raise too_large(self._body_limit)
        intake = self.intake
        if intake is None:
            return self.octets
        if self.request.expects_continue and not intake.size and not self.started:
            self.transport.write(CONTINUE)
        return await intake.whole()

    # --- the response ---------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes, fields: bytes = b"") -> None:
        """Answer whole, with a content-length; `fields` are header lines that are ready."""
        head = self._head(status, fields + _lines(headers), len(body))
        self.ended = True
        self.transport.write(head if self.request.method == b"HEAD" else head + body)

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin an answer of `length` octets, or in chunks."""
        self.begin_with(status, _lines(headers), UNTIL_CLOSE if length is None else length)

    def begin_with(self, status: int, fields: bytes, length: int, octets: bytes = b"") -> None:
        """Begin an answer with field lines that are ready; `length` as in wire.events.

        `octets` is the beginning of the body as it goes on the wire: one write for both saves
        a system call, of which a request has four.
        """
        self.transport.write(self._head(status, fields, length) + octets)

    def framed(self, data: bytes) -> bytes:
        """Payload as it goes on the wire, in an answer whose length was not told."""
        if not data or not self.request.http11:
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)

    def write(self, data: bytes) -> None:
        """Write payload, in a chunk of its own where the answer is chunked."""
        if data:
            self.transport.write(self.framed(data) if self._chunked else data)

    def write_raw(self, data: bytes) -> None:
        """Write octets onto the connection as they are."""
        self.transport.write(data)

    def end(self, octets: bytes = b"") -> None:
        """End the answer as whole, with these last octets as they go on the wire."""
        if not self.ended:
            self.ended = True
            if self._chunked:
                octets += LAST_CHUNK
            if octets:
                self.transport.write(octets)

    def close(self) -> None:
        """Cut the answer: what was written still goes out, then the connection ends."""
        self.ended = self.closing = True
        self.transport.close()

    def cut(self) -> None:
        """`close` so that it shows, to a caller of HTTP/1.0 too: by a reset, which may overtake
        what was written last."""
        if self._until_close and not self.transport.is_closing():
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def abort(self) -> None:
        """Cut the answer and the connection at once."""
        self.ended = self.closing = True
        self.transport.abort()

    def fail(
        self, error: RelayError, dialect: Dialect = Dialect.MESSAGES, fields: bytes = b""
    ) -> None:
        """Answer with an error, `fields` among its header lines; or cut what has begun."""
        if self.started:
            self.cut()
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"request-id", self.id),
            self.own_timing(),
            *error.headers,
        ]
        if dialect is not Dialect.MESSAGES:  # where its SDKs look for it
            headers.append((b"x-request-id", self.id))
        self.respond(error.status(dialect), headers, error.body(dialect, self.id.decode()), fields)

    def own_timing(self) -> tuple[bytes, bytes]:
        """`server-timing` of an answer that no upstream had a part in."""
        return b"server-timing", b"relay;dur=%.3f" % ((time.monotonic() - self.arrived) * 1000)

    @property
    def passes_chunks(self) -> bool:
        """Whether chunks can go to the caller as they come from the upstream."""
        return self.request.http11

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

    def still_read(self) -> bool:
        """Ask a caller that shut its sending side whether it still reads; False: no way to ask.

        An interim response means nothing to a client that waits (RFC 9110 §15.2), and a
        socket that was closed answers it with a reset.
        """
        if self.probe is not None:
            return self.probe()
        if self.started or not self.request.http11:
            return False
        self.transport.write(CONTINUE)
        return True


class _DateLine:
    """The `date` field of answers that bring none, renewed by the server's clock."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.line = b"date: %b\r\n" % http_date(time.time())


date: Final = _DateLine()


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
