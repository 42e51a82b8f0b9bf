"""An upstream's event stream joined to a caller's exchange, and turned into another one meanwhile.

As `splice`, but the octets that come out are those that a machine makes of the ones that came
in: whole events, in chunks of the relay's own.
"""

from collections.abc import Callable

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.upstream.connection import FailureKind, UpstreamConnection, UpstreamError
from relay.net.upstream.splice import Splice, Tap
from relay.wire.events import Response


class Transcode(Splice):
    """One stream on its way. `heard` is when the caller last got something of it, by the
    timers' clock: an upstream may talk for long without a word that the other dialect has."""

    __slots__ = ("_source", "_turn", "heard")

    def __init__(
        self,
        exchange: Exchange,
        connection: UpstreamConnection,
        response: Response,
        tap: Tap,
        turn: Callable[[bytes], bytes],
    ) -> None:
        """`turn` makes the caller's octets of the upstream's; it raises ValueError where those
        cannot be read. `tap` sees what the upstream sent."""
        super().__init__(exchange, connection, response, tap, reframed=True)
        self._source = connection
        self._turn = turn
        self.heard = connection.heard

    async def convert(self, fields: bytes) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is whole.

        Raises:
            UpstreamError: as `join`; or an event could not be read.
        """
        await self.join(fields, self._turned)

    def interject(self, payload: bytes) -> bool:
        """Write `payload`: what a machine makes always ends with a whole event."""
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
