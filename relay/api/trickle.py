"""A slow stream of a few octets, by which `relay doctor` finds a proxy that buffers.

The admin listener gives out a path that works once; the stream is then asked for at the public
address. Decides who gets it and how slow it is. Must not know what reads it.
"""

import asyncio
import hmac
import secrets
import time
from typing import Final

from relay.errors import NOT_FOUND, RelayError
from relay.gateway.context import Outcome, RequestContext
from relay.gateway.keepalive import UNBUFFERED, UNCACHED

PATH: Final = b"/v1/trickle"  # below /v1, as a proxy may buffer by path
EVENTS: Final = 6
INTERVAL_SECONDS: Final = 0.3
_VALID_SECONDS: Final = 30.0
_FIELDS: Final = b"content-type: text/event-stream; charset=utf-8\r\n" + UNBUFFERED + UNCACHED


class Trickle:
    """See the module. The fields are those of the streams that clients get."""

    def __init__(self) -> None:
        self._token = b""  # "": none is given out
        self._valid_until = 0.0  # of the monotonic clock

    async def answer(self) -> object:
        """`POST /trickle` of the admin listener: the path to ask for, and the number and
        duration of its events."""
        self._token = secrets.token_hex(16).encode()
        self._valid_until = time.monotonic() + _VALID_SECONDS
        path = f"{PATH.decode()}?{self._token.decode()}"
        return {"path": path, "events": EVENTS, "seconds": (EVENTS - 1) * INTERVAL_SECONDS}

    async def serve(self, ctx: RequestContext) -> None:
        """Send the stream.

        Raises:
            RelayError: 404, it was not given out, or has been sent.
        """
        exchange = ctx.exchange
        given = exchange.request.target.partition(b"?")[2]
        is_valid = self._token and time.monotonic() < self._valid_until
        if not is_valid or not hmac.compare_digest(given, self._token):
            raise RelayError(NOT_FOUND, "`relay doctor` gets a stream here, by a token of its own.")
        self._token = b""
        exchange.begin_stream(200, _FIELDS, _event(1))
        for number in range(2, EVENTS + 1):
            await asyncio.sleep(INTERVAL_SECONDS)
            await exchange.writable()
            exchange.write(_event(number))
        ctx.end(Outcome.COMPLETE)
        exchange.end()


def _event(number: int) -> bytes:
    return b": %d\n\n" % number
