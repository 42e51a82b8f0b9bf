"""An upstream's event stream joined to a caller's exchange, and translated on the way.

As `splice`, but the octets that come out are those that a translator makes of the octets that
came in: complete events, in chunks of the relay's own.
"""

from collections.abc import Callable

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.splice import Splice, Tap


class Transcode(Splice):
    """One stream on its way. `heard` is when the caller last got something of it, by the
    deadlines' clock: an upstream may talk for long without a word that the other dialect has."""

    __slots__ = ("_source", "_turn", "heard")

    def __init__(
        self, exchange: Exchange, body: ResponseBody, tap: Tap, turn: Callable[[bytes], bytes]
    ) -> None:
        """`turn` makes the caller's octets of the upstream's; it raises ValueError for octets
        that it cannot read. `tap` sees the upstream's own octets."""
        super().__init__(exchange, body, tap, reframed=True)
        self._source = body.connection
        self._turn = turn
        self.heard = body.connection.heard

    async def convert(self, fields: bytes) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is complete.

        Raises:
            UpstreamError: as `join`; or an event could not be read.
        """
        await self.join(fields, self._turned)

    def interject(self, payload: bytes) -> bool:
        """Write `payload`: a translator's octets always end with a complete event."""
        self._exchange.write(payload)
        return True

    def _feed(self, data: bytes) -> None:
        extent = self._extent
        try:
            data = self._turn(extent.feed(data))
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        except ValueError:
            self._fail(_unreadable())
            return
        if data:
            self.heard = self._source.heard
            self._write(data)
        if extent.done:
            self._complete()

    def _turned(self, data: bytes) -> bytes:
        try:
            return self._turn(data)
        except ValueError:
            raise _unreadable() from None


def _unreadable() -> UpstreamError:
    return UpstreamError(FailureKind.GARBAGE, "an event that cannot be read")
