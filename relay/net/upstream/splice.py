"""An upstream's response body joined to a caller's exchange: the innermost loop of the relay.

Per piece of body: find where it ends, let the tap look at it, write it. The octets are
those that came, chunk framing included, wherever the caller speaks HTTP/1.1. The octets that
end a body are left to whoever ends the answer, once it is known to be whole.
"""

from collections.abc import Callable
from typing import Final, Protocol

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.runner import Waiter
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.wire.body import Extent, Sized, UntilClose
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import UNTIL_CLOSE, Response

_COMMENT: Final = b":\n\n"  # an event stream's comment, and the end of an event that is none


class Tap(Protocol):
    """Looks at the octets that pass, as they pass."""

    def framed_by(self, scanner: ChunkScanner) -> None:
        """The octets will have chunk framing; `scanner` stands where each piece ends."""
        ...

    def feed(self, data: bytes) -> None:
        """Octets that were passed on."""
        ...

    def between_events(self) -> bool:
        """Whether what has passed ends where another event could begin."""
        ...


class Splice:
    """One body on its way. `await join(fields)` returns when it is whole; `flush` is due then."""

    __slots__ = (
        "_connection",
        "_done",
        "_exchange",
        "_extent",
        "_framed",
        "_last",
        "_response",
        "_tap",
        "_write",
    )

    def __init__(
        self,
        exchange: Exchange,
        connection: UpstreamConnection,
        response: Response,
        tap: Tap,
        *,
        reframed: bool = False,
    ) -> None:
        """`reframed` gives the answer a framing of its own, since its first octets change."""
        self._exchange = exchange
        self._connection = connection
        self._response = response
        self._tap = tap
        self._last = b""  # the octets that end the body
        self._done: Waiter[None] = Waiter()
        self._extent: Extent
        self._write: Callable[[bytes], None] = exchange.transport.write
        length = response.length
        # An answer that has begun without knowing a length is in chunks.
        self._framed = reframed or length == UNTIL_CLOSE or (length >= 0 and exchange.started)
        if self._framed:
            self._write = exchange.write
        if length >= 0:
            self._extent = Sized(length)
        elif length == UNTIL_CLOSE:
            self._extent = UntilClose()
        elif exchange.passes_chunks and not reframed:
            self._extent = scanner = ChunkScanner()
            tap.framed_by(scanner)
        else:
            self._extent = ChunkReader()

    async def join(self, fields: bytes, edit: Callable[[bytes], bytes] | None = None) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is whole.

        `edit` changes the first octets of a reframed answer. One that has begun goes on.

        Raises:
            UpstreamError: it was cut, silent for too long, or its framing broke. If that is
                known before the answer has begun, it does not begin.
        """
        connection, exchange, response = self._connection, self._exchange, self._response
        octets = connection.early()
        if octets:
            octets = self._pass(octets)
        if edit is not None:
            octets = edit(octets)
        extent = self._extent
        if extent.done and isinstance(extent, Sized) and not self._framed:
            self._last, octets = octets, b""  # nothing but its octets ends it
        if connection.lost is not None and not extent.done:
            if not (connection.lost_cleanly and response.length == UNTIL_CLOSE):
                raise connection.lost
            extent.done = True
        if exchange.started:
            if octets:
                self._write(octets)
        elif self._framed:
            octets = exchange.framed(octets)
            exchange.begin_with(response.status, fields, UNTIL_CLOSE, octets)
        else:
            exchange.begin_with(response.status, fields, response.length, octets)
        if extent.done:
            return
        exchange.source = connection
        exchange.probe = self._probe
        connection.on_lost = self._lost
        connection.attach(self._feed)
        if exchange.paused:  # by the first octets already
            connection.pause()
        try:
            await self._done
        finally:  # no cycles: what refers to itself waits for the collector
            exchange.source = exchange.probe = None

    @property
    def reusable(self) -> bool:
        """Whether the upstream's connection can take another request: this one is answered."""
        return (
            self._response.keep_alive
            and self._extent.done
            and not self._extent.rest
            and self._connection.reusable
        )

    def last(self) -> bytes:
        """The octets that end the body: `join` leaves them to whoever ends the answer."""
        last, self._last = self._last, b""
        return self._exchange.framed(last) if self._framed else last

    def interject(self, payload: bytes) -> bool:
        """Write `payload` between two events, if that is where the answer stands."""
        extent = self._extent
        whole = self._framed or (not isinstance(extent, Sized) and extent.at_boundary())
        if self._last or not whole or not self._tap.between_events():
            return False
        self._exchange.write(payload)
        return True

    def _pass(self, data: bytes) -> bytes:
        """Those of the first octets that are the caller's."""
        try:
            data = self._extent.feed(data)
        except RelayError as error:
            raise UpstreamError(FailureKind.GARBAGE, error.message) from None
        if data:
            self._tap.feed(data)
        return data

    def _feed(self, data: bytes) -> None:
        """`_pass` and write, once per event of a stream: what it costs is written out here."""
        extent = self._extent
        try:
            data = extent.feed(data)
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        if data:
            if extent.done:
                self._last = data
            else:
                self._write(data)
            self._tap.feed(data)
        if extent.done:
            self._complete()

    def _complete(self) -> None:
        self._connection.on_lost = None
        if not self._done.done:
            self._done.set_result(None)

    def _fail(self, failure: UpstreamError) -> None:
        self._connection.on_lost = None
        if not self._done.done:
            self._done.set_exception(failure)

    def _lost(self, failure: UpstreamError) -> None:
        if isinstance(self._extent, UntilClose) and self._connection.lost_cleanly:
            self._extent.done = True
            self._complete()
        else:
            self._fail(failure)

    def _probe(self) -> bool:
        # Where nothing can be put in, the next octets of the body will tell; to cut a caller
        # who still reads would be worse than to wait for them.
        self.interject(_COMMENT)
        return True
