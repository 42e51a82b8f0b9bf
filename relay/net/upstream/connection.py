"""One connection to an upstream: a request out, a response head in, then a body to a sink.

Decides when a connection has failed. Must not know the body's meaning or its end.
`UpstreamError.reused_and_unanswered`: a reused connection died before one octet of an answer, the
only case in which a request may be sent again (RFC 9112 §9.3.1; pingora's RetryType::ReusedOnly).
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

from relay.config import ProxyUrl
from relay.errors import RelayError
from relay.net.deadlines import NEVER, Deadlines
from relay.net.runner import Waiter
from relay.net.socket_options import write_at_once
from relay.wire.events import Limits, Response
from relay.wire.h1 import HeadReader, response_reader
from relay.wire.h1_legal import NOT_HTTP

_HEAD_LIMITS: Final = Limits(request_line=8 * 1024, head=64 * 1024, fields=1000)
_MAX_INTERIM_RESPONSES: Final = 16  # 1xx, before the final one
_MAX_JOINED_OCTETS: Final = 64 * 1024  # a request up to this is one write; a copy costs less
_AT_ONCE: Final = 4 * 1024  # octets of a body that the sink gets before others have their turn


class FailureKind(Enum):
    """The kind of a failure; the value is its text in the log. Failover decides by the kind."""

    CONNECT = "cannot be reached"
    TLS = "failed the TLS handshake"
    SILENT = "did not answer in time"
    CLOSED = "closed the connection early"
    GARBAGE = "did not answer in HTTP/1.1"


class UpstreamError(Exception):
    """The upstream gave no complete answer."""

    def __init__(
        self, kind: FailureKind, detail: str = "", *, reused_and_unanswered: bool = False
    ) -> None:
        super().__init__(f"{kind.value}: {detail}" if detail else kind.value)
        self.kind = kind
        self.reused_and_unanswered = reused_and_unanswered


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of an upstream, and its timeouts in seconds."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    connect_time: float = 5.0
    first_byte_time: float = 600.0
    silence_time: float = 120.0
    idle_time: float = 55.0
    egress: ProxyUrl | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Origin {self}>"


class UpstreamConnection:
    """See the module. Call `send`, then `attach` for the body, then return it to its pool."""

    __slots__ = (
        "_deadlines",
        "_early",
        "_interim",
        "_paused",
        "_reader",
        "_rest",
        "_sink",
        "_waiter",
        "answered",
        "deadline",
        "heard",
        "lost",
        "lost_cleanly",
        "on_idle_end",
        "on_lost",
        "origin",
        "sent",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, origin: Origin, deadlines: Deadlines) -> None:
        self.origin = origin
        self.deadline = NEVER
        self.heard = 0.0  # time of the last octets, by the deadlines' clock
        self.sent = 0  # requests
        self.answered = False  # an octet of the current answer has come
        self.lost: UpstreamError | None = None
        self.lost_cleanly = False  # by an end of stream, not by a reset
        self.on_lost: Callable[[UpstreamError], None] | None = None
        self.on_idle_end: Callable[[UpstreamConnection], None] | None = None
        self._deadlines = deadlines
        self._reader: HeadReader[Response] = response_reader(_HEAD_LIMITS)
        self._waiter: Waiter[Response] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._early = b""  # octets of the body that came with the head
        self._rest = b""  # octets that were read, and wait for their turn; nothing more is read
        self._paused = False
        self._interim = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected (and through TLS, if any)."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        write_at_once(self.transport)
        self._deadlines.watch(self)

    def send(self, *pieces: bytes | memoryview) -> Waiter[Response]:
        """Send a request, a head and a body; the waiter returned gets the head of its response.

        Raises (when awaited, in a `CoroutineRunner`):
            UpstreamError: see `FailureKind`.
        """
        self.sent += 1
        self.answered = False
        self._interim = 0
        self._early = b""
        waiter = self._waiter = Waiter()
        self.deadline = self._deadlines.now + self.origin.first_byte_time
        try:
            octets = 0
            for piece in pieces:
                octets += len(piece)
            if octets <= _MAX_JOINED_OCTETS:
                self.transport.write(b"".join(pieces))
            else:
                self.transport.writelines(pieces)
        except RuntimeError:  # uvloop's, of a socket that has closed before `connection_lost`
            self._fail(
                UpstreamError(
                    FailureKind.CLOSED, reused_and_unanswered=self._reused_and_unanswered()
                )
            )
        return waiter

    def early(self) -> bytes:
        """The octets of body that came with the head."""
        early, self._early = self._early, b""
        return early

    def complete_body(self, response: Response) -> bytes | None:
        """The complete body, if it came with the head and the head gives its length."""
        return self.early() if len(self._early) == response.length else None

    def attach(self, sink: Callable[[bytes], None]) -> None:
        """Send the body's octets to `sink` from now on."""
        self._sink = sink
        if self._rest:
            self._deadlines.turns.add(self)
        self.heard = self._deadlines.now
        self.deadline = self.heard + self.origin.silence_time

    def idle(self) -> None:
        """Prepare for the pool: any octet before the next `send` is an error."""
        self._sink = None
        self.on_lost = None
        self.answered = False  # further octets answer no request
        if self._paused:  # by a caller that had not read the last octets
            self.resume()
        self.deadline = self._deadlines.now + self.origin.idle_time

    def close(self) -> None:
        """End the connection at once, without calling back."""
        self._sink = None
        self._rest = b""
        self.on_lost = None
        self._waiter = None
        self._deadlines.forget(self)
        self.transport.abort()

    @property
    def reusable(self) -> bool:
        """Whether another request could go out on this connection.

        Not while the last one is still being sent: an upstream may answer before it has read it.
        """
        return (
            self.lost is None
            and not self._early
            and not self._rest
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
        )

    def pause(self) -> None:
        """Stop reading until `resume`: the caller is slower than the upstream."""
        if not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
            self.deadline = NEVER  # a slow caller has a deadline of its own

    def resume(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self._paused = False
            if self._rest:
                self._deadlines.turns.add(self)
            else:
                self.transport.resume_reading()
            self.heard = self._deadlines.now
            self.deadline = self.heard + self.origin.silence_time

    def data_received(self, data: bytes) -> None:
        """The data path: octets of a body go straight to the sink."""
        sink = self._sink
        if sink is not None:
            self.heard = self._deadlines.now
            if len(data) > _AT_ONCE:
                self._wait_for_turn(data)
            else:
                sink(data)
        elif self._waiter is not None:
            self._read_head(self._waiter, data)
        else:  # no request is waiting for an answer
            self._fail(UpstreamError(FailureKind.GARBAGE, "octets without a request"))

    def take_turn(self) -> bool:
        """Send the next part of a large read to the sink; return whether there is more."""
        sink, rest = self._sink, self._rest
        if sink is None or self._paused or not rest:
            return False
        self._rest = rest[_AT_ONCE:]
        if not self._rest and not self.transport.is_closing():  # before the body may end
            self.transport.resume_reading()
        sink(rest[:_AT_ONCE])
        return bool(self._rest)

    def pause_writing(self) -> None:
        """The upstream reads slowly. Nothing to do: the body is in the buffer already."""

    def resume_writing(self) -> None:
        """The buffer has room again. Nothing to do."""

    def eof_received(self) -> bool:
        """The upstream has ended its side: the regular end of a body without a length."""
        self._fail(
            UpstreamError(FailureKind.CLOSED, reused_and_unanswered=self._reused_and_unanswered()),
            clean=True,
        )
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was reset or closed."""
        self._deadlines.forget(self)
        detail = exc.strerror or "" if isinstance(exc, OSError) else ""
        self._fail(
            UpstreamError(
                FailureKind.CLOSED, detail, reused_and_unanswered=self._reused_and_unanswered()
            )
        )

    def expire(self) -> None:
        """No head, no octet of a body, or no request for too long."""
        if self._sink is not None:
            due = self.heard + self.origin.silence_time
            if due > self._deadlines.swept:
                self.deadline = due
                return
        self.deadline = NEVER
        self._fail(UpstreamError(FailureKind.SILENT))

    def _wait_for_turn(self, data: bytes) -> None:
        self._rest = data
        self.transport.pause_reading()
        if self._sink is not None:
            self._deadlines.turns.add(self)

    def _reused_and_unanswered(self) -> bool:
        return self.sent > 1 and not self.answered

    def _read_head(self, waiter: Waiter[Response], data: bytes) -> None:
        self.answered = True
        try:
            while True:
                parsed = self._reader.feed(data)
                if parsed is None:
                    return
                response, data = parsed
                if response.status >= 200:
                    break
                self._interim += 1
                if self._interim > _MAX_INTERIM_RESPONSES:
                    self._fail(UpstreamError(FailureKind.GARBAGE, "too many interim responses"))
                    return
                if not data:
                    return
        except RelayError as error:
            reason = "no HTTP/1.1" if error.message == NOT_HTTP else error.message
            self._fail(UpstreamError(FailureKind.GARBAGE, reason))
            return
        self._waiter = None
        self.deadline = self._deadlines.now + self.origin.silence_time
        if len(data) > _AT_ONCE and len(data) != response.length:
            self._wait_for_turn(data[_AT_ONCE:])
            data = data[:_AT_ONCE]
        self._early = data
        waiter.set_result(response)

    def _fail(self, failure: UpstreamError, clean: bool = False) -> None:
        """End a failed connection and call back everything that waits on it, once."""
        if self.lost is None:
            self.lost = failure
            self.lost_cleanly = clean
        rest, self._rest = self._rest, b""
        if rest and self._sink is None:  # it came before the end
            self._early += rest
        elif rest and self._sink is not None:
            self._sink(rest)
        waiter, self._waiter = self._waiter, None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(failure)
        on_idle_end, self.on_idle_end = self.on_idle_end, None
        if on_idle_end is not None:
            on_idle_end(self)
        self._deadlines.forget(self)
        self.transport.abort()
        if waiter is not None:  # last: it resumes the request at once
            waiter.set_exception(failure)
