"""Joins an upstream's response body to a caller's exchange: the relay's innermost loop.

For each piece of body: find the body's end, write the piece, show it to the tap. The octets pass
unchanged, chunk framing included, if the caller's connection accepts that framing. The octets that
end a body wait for `end`, because only then is the answer known to be complete.

Decides how an upstream's octets reach the caller. Must not know their content.
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
from relay.wire.events import CHUNKED, UNTIL_CLOSE
from relay.wire.unfolding import Unfolded

_COMMENT: Final = b":\n\n"  # a comment, and the end of an empty event


class Tap(Protocol):
    """Observes the octets of a splice, without changing them."""

    def begin(
        self, payload: bytes, scanner: ChunkScanner | None, chunks: ChunkReader | None
    ) -> None:
        """Take the payload that was read ahead.

        With a `scanner`, the following octets have chunk framing. The scanner stands at the end of
        each piece; `chunks` removes the framing, starting where `payload` ended.
        """
        ...

    def feed(self, data: bytes) -> object:
        """Take octets that are passed on."""
        ...

    def between_events(self) -> bool:
        """Whether the octets so far end between two events."""
        ...


class Splice:
    """Passes one body on. `await join(fields)` returns when it is complete; then call `end`.

    `started`: the first octets were passed on.
    """

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
        "started",
    )

    def __init__(
        self, exchange: Exchange, body: ResponseBody, tap: Tap, *, reframed: bool = False
    ) -> None:
        """`reframed` gives the answer its own framing, because its octets change."""
        self._exchange = exchange
        self._body = body
        self._connection = body.connection
        self._extent: Extent | Unfolded = body.extent
        self._tap = tap
        self._last = b""  # the octets that end the body
        self._done: Waiter[None] = Waiter()
        self.started = False
        self._write: Callable[[bytes], None] = exchange.transport.write
        length = body.response.length
        # An answer that started without a known length is chunked; so is one whose own chunk
        # framing the body's reader takes off.
        self._framed = (
            reframed
            or length == UNTIL_CLOSE
            or (length >= 0 and exchange.started)
            or (length == CHUNKED and not isinstance(body.extent, ChunkScanner))
        )
        if self._framed:
            self._write = exchange.write

    async def join(self, fields: bytes, edit: Callable[[bytes], bytes] | None = None) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is complete.

        `edit` changes the first octets of a reframed answer. An answer that has started continues.

        Raises:
            UpstreamError: the body was cut, silent for too long, or had broken framing. If the
                failure is known before the answer has started, the answer does not start.
        """
        connection, exchange, body = self._connection, self._exchange, self._body
        body.begin()
        octets = self._first_octets()
        if edit is not None:
            octets = edit(octets)
        extent = self._extent
        if extent.done and isinstance(extent, Sized) and not self._framed:
            self._last, octets = octets, b""  # its last octet ends it
        if exchange.started:
            if octets:
                self._write(octets)
        elif self._framed:
            exchange.begin_stream(body.response.status, fields, octets)
        else:
            exchange.begin_raw(body.response.status, fields, body.response.length, octets)
        del octets
        self.started = True
        if extent.done:
            return
        if self._framed:
            self._write = exchange.payload_writer()
        exchange.source = connection
        exchange.probe = self._probe
        connection.on_lost = self._lost
        connection.attach(self._feed)
        if exchange.paused:  # already by the first octets
            connection.pause()
        try:
            await self._done
        finally:  # break the reference cycle, which would wait for the garbage collector
            exchange.source = exchange.probe = None

    @property
    def reusable(self) -> bool:
        """Whether the upstream's connection can take another request."""
        return self._body.reusable

    def end(self) -> None:
        """End the answer as complete: write the octets that end the body."""
        last, self._last = self._last, b""
        if self._framed:
            self._exchange.end(last)
        else:
            self._exchange.end_raw(last)

    def cut(self, error: bytes) -> None:
        """Cut an answer that has started, after the event `error` if one fits here."""
        exchange = self._exchange
        last, self._last = self._last, b""
        if last:
            self._write(last)
        if error and self.interject(error):
            exchange.close()
        else:
            exchange.cut()

    def interject(self, payload: bytes) -> bool:
        """Write `payload` between two events; False if the answer is not between two."""
        extent = self._extent
        between = self._framed or (not isinstance(extent, Sized) and extent.at_boundary())
        if self._last or not between or not self._tap.between_events():
            return False
        self._exchange.write(payload)
        return True

    def _first_octets(self) -> bytes:
        """The octets read ahead of the join; the tap gets their payload."""
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
            try:
                self._tap.feed(data)
            except Exception as error:  # the loop would close the connection: the upstream's fault
                self._fail(error)
                return
        if extent.done:
            self._complete()

    def _complete(self) -> None:
        self._connection.on_lost = None
        if not self._done.done:
            self._done.set_result(None)

    def _fail(self, failure: Exception) -> None:
        self._connection.on_lost = None
        if not self._done.done:
            self._done.set_exception(failure)

    def _lost(self, failure: UpstreamError) -> None:
        if self._body.ended_by(failure):
            self._complete()
        else:
            self._fail(failure)

    def _probe(self) -> bool:
        # If the comment does not fit here, the body's next octets are the probe. Waiting for them
        # is better than cutting a caller that still reads.
        self.interject(_COMMENT)
        return True
