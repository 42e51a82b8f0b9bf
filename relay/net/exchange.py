"""One request and its response, as a handler sees them, on an HTTP/1.1 connection.

The request's body is collected here, bounded; the response is written straight to the
transport. A handler answers with `respond`, or with `begin`, `write` … and `end`. An answer
that cannot be completed is cut (`close`, `abort`), never ended as if it were whole.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

from relay.clock import http_date
from relay.errors import REQUEST_TIMEOUT, TOO_LARGE, Dialect, RelayError
from relay.wire.chunked import LAST_CHUNK, ChunkReader
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Request

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"

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
    """See the module. `arrived` is loop-independent monotonic time in seconds."""

    __slots__ = (
        "_body_limit",
        "_body_waiter",
        "_chunked",
        "_collected",
        "_connection",
        "_drain_waiter",
        "_missing",
        "_pieces",
        "_reader",
        "_transport",
        "arrived",
        "begun",
        "closing",
        "ended",
        "id",
        "paused",
        "probe",
        "received",
        "request",
        "source",
        "status",
        "task",
    )

    def __init__(self, connection: Connection, request: Request, body_limit: int) -> None:
        self.request = request
        self.id = new_id()
        self.arrived = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self.status = 0
        self.begun = False  # the head of the answer is written
        self.ended = False  # nothing more will be written
        self.closing = False  # the connection ends with this exchange
        self.received = request.length == 0  # the whole request body is here
        self.paused = False
        self.source: Pausable | None = None
        self.probe: Callable[[], bool] = self._probe_before_answer
        self._connection = connection
        self._transport = connection.transport
        self._chunked = False
        self._body_limit = body_limit
        self._pieces: list[bytes] = []
        self._collected = 0
        self._missing = request.length
        self._reader = ChunkReader() if request.length == CHUNKED else None
        self._body_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None

    # --- the request's body ---------------------------------------------------------

    @property
    def peer(self) -> str:
        """The caller's address, for the log."""
        return self._connection.peer

    async def body(self) -> bytes:
        """The whole request body.

        Raises:
            RelayError: 413 over the limit, 408 too slow, 400 broken chunked coding.
        """
        if self._missing > self._body_limit:
            raise self._too_large()
        if not self.received:
            if self.request.expects_continue and not self._collected and not self.begun:
                self._transport.write(CONTINUE)
            self._body_waiter = asyncio.get_running_loop().create_future()
            await self._body_waiter
        pieces = self._pieces
        if len(pieces) != 1:
            self._pieces = pieces = [b"".join(pieces)]
        return pieces[0]

    @property
    def collected(self) -> int:
        """How many octets of body have come."""
        return self._collected

    def feed(self, data: bytes) -> bytes:
        """Take body octets from the connection; return what follows the body."""
        rest = b""
        if self._reader is None:
            if len(data) > self._missing:
                data, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(data)
            self.received = not self._missing
        else:
            try:
                data = self._reader.feed(data)
            except RelayError as error:
                self.fail_body(error)
                return b""
            self.received = self._reader.done
            rest = self._reader.rest
        self._collected += len(data)
        if self._collected > self._body_limit:
            self.fail_body(self._too_large())
            return b""
        if data:
            self._pieces.append(data)
        if self.received and self._body_waiter is not None:
            if not self._body_waiter.done():
                self._body_waiter.set_result(None)
            self._body_waiter = None
        return rest

    def fail_body(self, error: RelayError) -> None:
        """The body will never be complete: whoever waits for it is told why."""
        self.closing = True
        self._pieces.clear()
        waiter = self._body_waiter
        if waiter is None:
            waiter = self._body_waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(_retrieved)
        if not waiter.done():
            waiter.set_exception(error)

    def body_is_late(self) -> None:
        """The body comes too slowly to wait for."""
        self.fail_body(
            RelayError(
                REQUEST_TIMEOUT,
                "The request body came too slowly. Send it at 1 KiB/s or faster.",
            )
        )

    def _too_large(self) -> RelayError:
        return RelayError(
            TOO_LARGE,
            f"The request body is larger than {self._body_limit} octets. "
            "Shorten the conversation or send smaller files.",
        )

    # --- the response ---------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer whole, with a content-length."""
        head = self._head(status, _lines(headers), len(body))
        self.ended = True
        self._transport.write(head if self.request.method == b"HEAD" else head + body)

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin an answer of `length` octets, or in chunks."""
        self.begin_with(status, _lines(headers), UNTIL_CLOSE if length is None else length)

    def begin_with(self, status: int, fields: bytes, length: int) -> None:
        """Begin an answer with field lines that are ready; `length` as in wire.events."""
        self._transport.write(self._head(status, fields, length))

    def write(self, data: bytes) -> None:
        """Write payload, in a chunk of its own where the answer is chunked."""
        if data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def write_raw(self, data: bytes) -> None:
        """Write octets onto the connection as they are."""
        self._transport.write(data)

    def end(self) -> None:
        """End the answer as whole."""
        if not self.ended:
            self.ended = True
            if self._chunked:
                self._transport.write(LAST_CHUNK)

    def close(self) -> None:
        """Cut the answer: what was written still goes out, then the connection ends."""
        self.ended = self.closing = True
        self._transport.close()

    def abort(self) -> None:
        """Cut the answer and the connection at once."""
        self.ended = self.closing = True
        self._transport.abort()

    def fail(self, error: RelayError, dialect: Dialect = Dialect.MESSAGES) -> None:
        """Answer with an error, or cut the answer if it has begun."""
        if self.begun:
            self.close()
            return
        self.respond(
            error.kind.status,
            [
                (b"content-type", b"application/json"),
                (b"request-id", self.id),
                *error.headers,
            ],
            error.body(dialect, self.id.decode()),
        )

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
        self.begun = True
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
            self.closing = True
        return b"%b%b%b%b%b" % (
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status,
            fields,
            b"" if b"\r\ndate:" in fields or fields[:5] == b"date:" else date.line,
            framing,
            b"connection: close\r\n\r\n" if self.closing else b"\r\n",
        )

    def _probe_before_answer(self) -> bool:
        """Ask a caller that shut its sending side whether it still reads.

        An interim response means nothing to a client that waits (RFC 9110 §15.2), and a
        socket that was closed answers it with a reset.
        """
        if self.begun or not self.request.http11:
            return False
        self._transport.write(CONTINUE)
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


def _retrieved(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()
