"""An upstream's response body joined to a caller's exchange: the innermost loop of the relay.

Per piece of body: find where it ends, let the tap look at it, write it. The octets are those
that came, chunk framing included, wherever the caller's side takes that framing. The octets that
end a body wait for `end`, until the answer is known to be complete.
"""

from collections.abc import Callable
from typing import Final, Protocol

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.runner import Waiter
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.wire.body import Extent, Sized
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import UNTIL_CLOSE

_COMMENT: Final = b":\n\n"  # an event stream's comment, and the end of an event that is none


class Tap(Protocol):
    """Looks at the octets that pass, as they pass."""

    def begin(
        self, payload: bytes, scanner: ChunkScanner | None, chunks: ChunkReader | None
    ) -> None:
        """Take the payload that was looked at ahead.

        With a `scanner`, the octets to come have chunk framing: the scanner stands where each
        piece ends, and `chunks` takes the framing off from where `payload` ended.
        """
        ...

    def feed(self, data: bytes) -> None:
        """Octets that were passed on."""
        ...

    def between_events(self) -> bool:
        """Whether the octets that passed end where another event could begin."""
        ...


class Splice:
    """One body on its way. `await join(fields)` returns when it is complete; `end` is due then."""

    __slots__ = (
        "_body",
        "_connection",
        "_done",
        "_exchange",
        "_extent",
        "_framed",
        "_last",
        "_tap",
        "_write",
    )

    def __init__(
        self, exchange: Exchange, body: ResponseBody, tap: Tap, *, reframed: bool = False
    ) -> None:
        """`reframed` gives the answer a framing of its own: its first octets change."""
        self._exchange = exchange
        self._body = body
        self._connection = body.connection
        self._extent: Extent = body.extent
        self._tap = tap
        self._last = b""  # the octets that end the body
        self._done: Waiter[None] = Waiter()
        self._write: Callable[[bytes], None] = exchange.transport.write
        length = body.response.length
        # An answer that has started without a known length is in chunks.
        self._framed = reframed or length == UNTIL_CLOSE or (length >= 0 and exchange.started)
        if self._framed:
            self._write = exchange.write

    async def join(self, fields: bytes, edit: Callable[[bytes], bytes] | None = None) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is complete.

        `edit` changes the first octets of a reframed answer. An answer that has started goes on.

        Raises:
            UpstreamError: it was cut, silent for too long, or its framing broke. If that is
                known before the answer has started, it does not start.
        """
        connection, exchange, body = self._connection, self._exchange, self._body
        body.begin()
        octets = self._first_octets()
        if edit is not None:
            octets = edit(octets)
        extent = self._extent
        if extent.done and isinstance(extent, Sized) and not self._framed:
            self._last, octets = octets, b""  # nothing but its octets ends it
        if exchange.started:
            if octets:
                self._write(octets)
        elif self._framed:
            exchange.begin_stream(body.response.status, fields, octets)
        else:
            exchange.begin_raw(body.response.status, fields, body.response.length, octets)
        del octets
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
        finally:  # no cycles: an object that refers to itself waits for the collector
            exchange.source = exchange.probe = None

    @property
    def reusable(self) -> bool:
        """Whether the upstream's connection can take another request: this one is answered."""
        return self._body.reusable

    def end(self) -> None:
        """End the answer as complete, with the octets that end the body."""
        last, self._last = self._last, b""
        if self._framed:
            self._exchange.end(last)
        else:
            self._exchange.end_raw(last)

    def cut(self, error: bytes) -> None:
        """Cut an answer that has started: after `error`, an event, where one can stand."""
        exchange = self._exchange
        last, self._last = self._last, b""
        if last:
            self._write(last)
        if error and self.interject(error):
            exchange.close()
        else:
            exchange.cut()

    def interject(self, payload: bytes) -> bool:
        """Write `payload` between two events; False: the answer does not stand there."""
        extent = self._extent
        between = self._framed or (not isinstance(extent, Sized) and extent.at_boundary())
        if self._last or not between or not self._tap.between_events():
            return False
        self._exchange.write(payload)
        return True

    def _first_octets(self) -> bytes:
        """The octets that came before the join; the tap sees their payload."""
        body = self._body
        octets, payload, scanner = body.octets, b"", None
        if isinstance(body.extent, ChunkScanner):
            scanner, payload = body.extent, body.payload
        else:
            payload = octets
        self._tap.begin(payload, scanner, body.chunks)
        body.release()
        return octets

    def _feed(self, data: bytes) -> None:
        """Once per event of a stream, so each step is written out here."""
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
        if self._body.ended_by(failure):
            self._complete()
        else:
            self._fail(failure)

    def _probe(self) -> bool:
        # Where nothing can be put in, the next octets of the body answer the probe; to cut a
        # caller who still reads would be worse than to wait for them.
        self.interject(_COMMENT)
        return True
