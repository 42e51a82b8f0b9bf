"""An upstream's response body joined to a caller's exchange: the innermost loop of the relay.

Per piece of body: find where it ends, let the tap look at it, write it. The octets are
those that came, chunk framing included, wherever the caller speaks HTTP/1.1. The end of a
chunked body is written by `Splice` itself once the body is known to be whole.
"""

import asyncio
from typing import Final, Protocol

from relay.errors import RelayError
from relay.net.client import Trouble, UpstreamConnection, UpstreamError
from relay.net.exchange import Exchange
from relay.wire.body import Extent, Sized, UntilClose, extent
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Response

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
    """One body on its way. `await join()` returns when it is whole, and then `end` is due."""

    __slots__ = (
        "_connection",
        "_done",
        "_exchange",
        "_extent",
        "_keep_alive",
        "_tap",
        "_write",
        "octets",
    )

    def __init__(
        self,
        exchange: Exchange,
        connection: UpstreamConnection,
        response: Response,
        fields: bytes,
        tap: Tap,
    ) -> None:
        """Begin the caller's answer with `fields` and the upstream's status."""
        self._exchange = exchange
        self._connection = connection
        self._keep_alive = response.keep_alive
        self.octets = 0
        self._extent: Extent
        if response.length != CHUNKED:
            self._extent = extent(response.length)
        elif exchange.passes_chunks:
            self._extent = scanner = ChunkScanner()
            tap.framed_by(scanner)
        else:
            self._extent = ChunkReader()
        self._write = exchange.write if response.length == UNTIL_CLOSE else exchange.write_raw
        self._tap = tap
        self._done: asyncio.Future[None] | None = None
        exchange.begin_with(response.status, fields, response.length)
        exchange.source = connection
        exchange.probe = self._probe

    async def join(self) -> None:
        """Pass the body on until it is whole.

        Raises:
            UpstreamError: it was cut, silent for too long, or its framing broke.
        """
        connection = self._connection
        if self._extent.done:  # no body at all
            return
        self._done = asyncio.get_running_loop().create_future()
        connection.on_lost = self._lost
        connection.attach(self._feed)
        if connection.lost is not None:
            self._lost(connection.lost)
        try:
            await self._done
        finally:
            self._exchange.source = None

    @property
    def reusable(self) -> bool:
        """Whether the upstream's connection can take another request: this one is answered."""
        return (
            self._keep_alive
            and self._extent.done
            and not self._extent.rest
            and self._connection.reusable
        )

    def interject(self, payload: bytes) -> bool:
        """Write `payload` between two events, if that is where the answer stands."""
        if (
            isinstance(self._extent, Sized)
            or not self._extent.at_boundary()
            or not self._tap.between_events()
        ):
            return False
        self._exchange.write(payload)
        return True

    def _feed(self, data: bytes) -> None:
        extent = self._extent
        try:
            data = extent.feed(data)
        except RelayError as error:
            self._fail(UpstreamError(Trouble.GARBAGE, error.message))
            return
        if data:
            self._write(data)
            self._tap.feed(data)
            self.octets += len(data)
        if extent.done:
            self._complete()

    def _complete(self) -> None:
        self._connection.on_lost = None
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, failure: UpstreamError) -> None:
        self._connection.on_lost = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(failure)

    def _lost(self, failure: UpstreamError) -> None:
        if isinstance(self._extent, UntilClose) and self._connection.lost_cleanly:
            self._extent.done = True
            self._complete()
        else:
            self._fail(failure)

    def _probe(self) -> bool:
        return self.interject(_COMMENT)
