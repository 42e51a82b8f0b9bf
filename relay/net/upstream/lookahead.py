"""The beginning of a response's body, kept back until it is known what it is.

What was kept is either all there is (`whole`), or it goes back to the connection, so that a
splice begins at the body's first octet as if nothing had been read.
"""

from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.net.runner import Waiter
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.wire.body import Extent, Sized, UntilClose
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import UNTIL_CLOSE, Response

MOST: Final = 1024 * 1024  # octets that are kept back


class Lookahead:
    """See the module.

    `octets` are the body as it came, `payload` without its framing. The octets that end a
    chunked body are in neither.
    """

    __slots__ = (
        "_came",
        "_connection",
        "_done",
        "_enough",
        "_extent",
        "_most",
        "_payload",
        "_pieces",
        "_reader",
        "_response",
        "_size",
        "complete",
    )

    def __init__(self, connection: UpstreamConnection, response: Response) -> None:
        self._connection = connection
        self._response = response
        self._reader: ChunkReader | None = None
        self._extent: Extent
        if response.length >= 0:
            self._extent = Sized(response.length)
        elif response.length == UNTIL_CLOSE:
            self._extent = UntilClose()
        else:
            self._extent = ChunkScanner()
            self._reader = ChunkReader()
        self._came: list[bytes] = []  # as read
        self._pieces: list[bytes] = []  # of them, what the extent let through
        self._size = 0
        self._payload: list[bytes] = []  # and that without its framing
        self.complete = False
        self._enough: Callable[[bytes], bool] = bool
        self._most = MOST
        self._done: Waiter[None] = Waiter()

    @property
    def octets(self) -> bytes:
        """The body as it came, without the octets that end it."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    @property
    def payload(self) -> bytes:
        """The same without its framing."""
        return self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)

    async def until(self, enough: Callable[[bytes], bool], most: int = MOST) -> None:
        """Collect until the body is `whole`, or `enough` says so of the next piece of payload,
        or there is more than `most`.

        Raises:
            UpstreamError: it broke off, fell silent, or its framing broke.
        """
        connection = self._connection
        self._enough, self._most = enough, most
        early = connection.early()
        # A body of no octets is whole before any has come.
        if not ((early or self._extent.done) and self._take(early)):
            if connection.lost is not None:
                self._end_of_connection(connection.lost)
            else:
                connection.on_lost = self._end_of_connection
                connection.attach(self._feed)
            await self._done
        self.complete = self._extent.done

    def give_back(self) -> None:
        """Have the connection as if nothing of the body had been read."""
        self._connection.unread(b"".join(self._came))

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request: the body was read to its end."""
        return (
            self.complete
            and self._response.keep_alive
            and not self._extent.rest
            and self._connection.reusable
        )

    def _take(self, data: bytes) -> bool:
        """Whether it is enough."""
        extent = self._extent
        self._came.append(data)
        try:
            piece = extent.feed(data)
            payload = piece if self._reader is None else self._reader.feed(piece)
        except RelayError as error:
            raise UpstreamError(FailureKind.GARBAGE, error.message) from None
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self._payload.append(payload)
        if payload and (self._enough(payload) or self._size > self._most):
            return True
        return extent.done

    def _feed(self, data: bytes) -> None:
        try:
            enough = self._take(data)
        except UpstreamError as failure:
            self._finish(failure)
            return
        if enough:
            self._finish(None)

    def _end_of_connection(self, failure: UpstreamError) -> None:
        if isinstance(self._extent, UntilClose) and self._connection.lost_cleanly:
            self._extent.done = True
            self._finish(None)
        else:
            self._finish(failure)

    def _finish(self, failure: UpstreamError | None) -> None:
        self._connection.on_lost = None
        if self._done.done:
            return
        if failure is None:
            self._connection.keep()  # what comes until somebody attaches
            self._done.set_result(None)
        else:
            self._done.set_exception(failure)
