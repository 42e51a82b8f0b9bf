"""Joins an upstream's event stream to a caller's exchange, and translates it.

Like `splice`, but a translator makes the caller's octets from the upstream's: complete events, in
chunks of the relay's own.

Decides how translated octets reach the caller. Must not know their content.
"""

from collections.abc import Callable

from relay.errors import RelayError
from relay.net.exchange import Exchange
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.splice import Splice, Tap


class Transcode(Splice):
    """Translates one stream and passes it on.

    `heard` is the time of the last octets to the caller, in seconds of the deadlines' clock. An
    upstream may send events for long that the caller's dialect has no counterpart for.
    """

    __slots__ = ("_source", "_translate", "heard")

    def __init__(
        self, exchange: Exchange, body: ResponseBody, tap: Tap, translate: Callable[[bytes], bytes]
    ) -> None:
        """`translate` makes the caller's octets from the upstream's; it raises ValueError for those
        that it cannot read. `tap` gets the upstream's octets."""
        super().__init__(exchange, body, tap, reframed=True)
        self._source = body.connection
        self._translate = translate
        self.heard = body.connection.heard

    async def convert(self, fields: bytes) -> None:
        """Begin the caller's answer with `fields`, and pass the body on until it is complete.

        Raises:
            UpstreamError: as in `join`, or an event could not be read.
        """
        await self.join(fields, self._translated)

    def interject(self, payload: bytes) -> bool:
        """Write `payload`; it always fits, because a translator writes complete events."""
        self._exchange.write(payload)
        return True

    def _feed(self, data: bytes) -> None:
        extent = self._extent
        try:
            data = self._translate(extent.feed(data))
        except RelayError as error:
            self._fail(UpstreamError(FailureKind.GARBAGE, error.message))
            return
        except ValueError:
            self._fail(_unreadable())
            return
        except Exception as error:  # as in `Splice`
            self._fail(error)
            return
        if data:
            self.heard = self._source.heard
            self._write(data)
        if extent.done:
            self._complete()

    def _translated(self, data: bytes) -> bytes:
        try:
            return self._translate(data)
        except ValueError:
            raise _unreadable() from None


def _unreadable() -> UpstreamError:
    return UpstreamError(FailureKind.GARBAGE, "an event that cannot be read")
