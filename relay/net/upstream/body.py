"""The body of an upstream's response: its end, and the octets read ahead of the answer.

`look_ahead` holds an answer back until its first content shows whether it succeeded. This object
keeps the octets read by then, and the reader that looks for the body's end. A splice continues with
that reader, so no octet is pushed back to the connection, or scanned twice for the body's end.

Decides where a body ends and whether its connection can be reused. Must not know the content: the
`enough` callback reads it.
"""

from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.net.runner import Waiter
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.wire.body import Extent, Sized, UntilClose
from relay.wire.chunked import ChunkReader, ChunkScanner
from relay.wire.events import UNTIL_CLOSE, Response
from relay.wire.unfolding import Unfolded

LOOK_AHEAD_OCTETS: Final = 1024 * 1024  # default limit of octets held back


class ResponseBody:
    """One response's body, including the octets that arrived with its head.

    `extent` finds the body's end. `chunks` decodes the payload where `extent` leaves the chunked
    coding in the octets; None if octets and payload are the same. `complete`: `look_ahead` read the
    body to its end. `unfolded`: the octets are decompressed, so the relay must frame them itself.
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
        "unfolded",
    )

    def __init__(
        self,
        connection: UpstreamConnection,
        response: Response,
        *,
        keep_framing: bool,
        unfold: bool = False,
    ) -> None:
        """`keep_framing`: the octets are passed on unchanged, chunked coding included. `unfold`:
        a content coding is removed, whatever the label says (not with `keep_framing`)."""
        self.connection = connection
        self.response = response
        extent: Extent
        self.chunks: ChunkReader | None = None
        if response.length >= 0:
            extent = Sized(response.length)
        elif response.length == UNTIL_CLOSE:
            extent = UntilClose()
        elif keep_framing:
            extent = ChunkScanner()
            self.chunks = ChunkReader()
        else:
            extent = ChunkReader()
        self.unfolded = unfold
        self.extent: Extent | Unfolded = extent
        if unfold:
            self.extent = Unfolded(extent, response.headers.get(b"content-encoding", b""))
        self.complete = False
        self._octets: list[bytes] = []
        self._payload: list[bytes] = self._octets if self.chunks is None else []
        self._size = 0
        self._enough: Callable[[bytes], bool] = bool
        self._limit = 0
        self._done: Waiter[None] = Waiter()

    @property
    def octets(self) -> bytes:
        """The body's octets to pass on, without those that end a chunked body."""
        return self._octets[0] if len(self._octets) == 1 else b"".join(self._octets)

    @property
    def payload(self) -> bytes:
        """The body without its framing."""
        return self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request, with this body read to its end."""
        return (
            self.response.keep_alive
            and self.extent.done
            and not self.extent.rest
            and self.connection.reusable
        )

    async def look_ahead(
        self, enough: Callable[[bytes], bool] | None = None, limit: int = LOOK_AHEAD_OCTETS
    ) -> None:
        """Collect octets, until one of these:

        - the body is complete;
        - `enough` returns True for the next piece of payload (never, without `enough`);
        - more than `limit` octets were collected.

        Raises:
            UpstreamError: the body broke off, fell silent, or has broken framing.
        """
        connection = self.connection
        self._enough, self._limit = enough or _never_enough, limit
        early = connection.early()
        # An empty body is complete before any octet arrives.
        if not ((early or self.extent.done) and self._collect(early)):
            if connection.lost is not None:
                self._on_lost(connection.lost)
            else:
                connection.on_lost = self._on_lost
                connection.attach(self._feed)
            await self._done
        elif not self.extent.done:  # octets that arrive before a splice begins stay here
            connection.attach(self._feed)
        self.complete = self.extent.done

    def begin(self) -> None:
        """Take the octets that arrived with the head, if nothing was read ahead.

        Raises:
            UpstreamError: the framing is broken, or the connection ended too early.
        """
        if not self._octets and (early := self.connection.early()):
            self._collect(early)
        lost = self.connection.lost
        if lost is not None and not self.extent.done and not self.ended_by(lost):
            raise lost

    def ended_by(self, failure: UpstreamError) -> bool:
        """Whether the body is complete when its connection ends with `failure`.

        A clean end completes a body without a length. An unclean end completes it only if it is an
        event stream: its last event shows whether it is complete, and some servers end TLS without
        close_notify (RFC 9112 §9.8).
        """
        if self.response.length == UNTIL_CLOSE and failure.kind is FailureKind.CLOSED:
            ended = self.connection.lost_cleanly or self._shows_its_end()
            if ended and isinstance(self.extent, Unfolded):
                return self.extent.finished()
            self.extent.done = ended
        return self.extent.done

    @property
    def ended_uncleanly(self) -> bool:
        """Whether only the loss of its connection ended the body."""
        return self.response.length == UNTIL_CLOSE and not self.connection.lost_cleanly

    def _shows_its_end(self) -> bool:
        headers = self.response.headers
        kind = headers.get(b"content-type", b"").lower()
        return kind.startswith(b"text/event-stream") and b"content-encoding" not in headers

    def release(self) -> None:
        """Free the octets, once they were passed on."""
        self._octets, self._payload = [], []

    def _collect(self, data: bytes) -> bool:
        """Keep the next octets; return whether the look-ahead is over."""
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
