"""The body of an upstream's response: where it ends, and the octets that came before its answer.

An answer is held back until its first content shows what it is (`look_ahead`). The octets that
came by then stay here with the reader that found their boundaries, so a splice goes on from that
point: no octet is given back to the connection, and none is scanned twice for where it ends.

Decides where a body ends and whether its connection can take another request. Must not know what
the octets say: the caller's `enough` reads them.
"""

from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.net.runner import Waiter
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.wire.body import Extent, Sized, UntilClose
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import UNTIL_CLOSE, Response

LOOK_AHEAD_OCTETS: Final = 1024 * 1024  # held back at most, unless the caller says otherwise


class ResponseBody:
    """One response's body, from the octets that came with its head on.

    `extent` finds the body's end. `chunks` takes the chunked coding off while `extent` keeps it;
    None where octets and payload are the same. `complete`: the body is here to its end.
    """

    __slots__ = (
        "_done",
        "_enough",
        "_limit",
        "_octets",
        "_payload",
        "_size",
        "chunks",
        "complete",
        "connection",
        "extent",
        "response",
    )

    def __init__(
        self, connection: UpstreamConnection, response: Response, *, keep_framing: bool
    ) -> None:
        """`keep_framing`: the octets will go on as they came, chunked coding included."""
        self.connection = connection
        self.response = response
        self.extent: Extent
        self.chunks: ChunkReader | None = None
        if response.length >= 0:
            self.extent = Sized(response.length)
        elif response.length == UNTIL_CLOSE:
            self.extent = UntilClose()
        elif keep_framing:
            self.extent = ChunkScanner()
            self.chunks = ChunkReader()
        else:
            self.extent = ChunkReader()
        self.complete = False
        self._octets: list[bytes] = []
        self._payload: list[bytes] = self._octets if self.chunks is None else []
        self._size = 0
        self._enough: Callable[[bytes], bool] = bool
        self._limit = 0
        self._done: Waiter[None] = Waiter()

    @property
    def octets(self) -> bytes:
        """The body as it goes on, without the octets that end a chunked one."""
        return self._octets[0] if len(self._octets) == 1 else b"".join(self._octets)

    @property
    def payload(self) -> bytes:
        """The body without its framing."""
        return self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request: the body was read to its end."""
        return (
            self.response.keep_alive
            and self.extent.done
            and not self.extent.rest
            and self.connection.reusable
        )

    async def look_ahead(
        self, enough: Callable[[bytes], bool] | None = None, limit: int = LOOK_AHEAD_OCTETS
    ) -> None:
        """Collect until the body is complete, until `enough` of the next piece of payload,
        or until there are more than `limit` octets. Without `enough`, no piece is enough.

        Raises:
            UpstreamError: it broke off, fell silent, or its framing is broken.
        """
        connection = self.connection
        self._enough, self._limit = enough or _never_enough, limit
        early = connection.early()
        # A body of no octets is complete before any has come.
        if not ((early or self.extent.done) and self._collect(early)):
            if connection.lost is not None:
                self._on_lost(connection.lost)
            else:
                connection.on_lost = self._on_lost
                connection.attach(self._feed)
            await self._done
        elif not self.extent.done:  # octets that come before a splice begins stay here
            connection.attach(self._feed)
        self.complete = self.extent.done

    def begin(self) -> None:
        """Take the octets that came with the head, where nothing was looked at ahead.

        Raises:
            UpstreamError: its framing is broken, or the connection ended too early.
        """
        if not self._octets and (early := self.connection.early()):
            self._collect(early)
        lost = self.connection.lost
        if lost is not None and not self.extent.done and not self.ended_by(lost):
            raise lost

    def ended_by(self, _: UpstreamError) -> bool:
        """Whether the end of the connection is the body's own end, which it then is."""
        if isinstance(self.extent, UntilClose) and self.connection.lost_cleanly:
            self.extent.done = True
        return self.extent.done

    def release(self) -> None:
        """Let the octets go: they have been passed on."""
        self._octets, self._payload = [], []

    def _collect(self, data: bytes) -> bool:
        """Keep the next octets; whether that is enough."""
        try:
            octets = self.extent.feed(data)
            chunks = self.chunks
            payload = octets if chunks is None else chunks.feed(octets)
        except RelayError as error:
            raise UpstreamError(FailureKind.GARBAGE, error.message) from None
        if octets:
            self._octets.append(octets)
            self._size += len(octets)
            if chunks is not None:
                self._payload.append(payload)
        if payload and (self._enough(payload) or self._size > self._limit):
            return True
        return self.extent.done

    def _feed(self, data: bytes) -> None:
        try:
            enough = self._collect(data)
        except UpstreamError as failure:
            self._finish(failure)
            return
        if enough:
            self._finish(None)

    def _on_lost(self, failure: UpstreamError) -> None:
        self._finish(None if self.ended_by(failure) else failure)

    def _finish(self, failure: UpstreamError | None) -> None:
        self.connection.on_lost = None
        if self._done.done:
            return
        if failure is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(failure)


def _never_enough(_: bytes) -> bool:
    return False
