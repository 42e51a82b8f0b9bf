"""Collects a request body that did not arrive with its head, within a limit.

Decides when the body is complete and when it fails. Must not know callers or content.
"""

import asyncio
from io import BytesIO
from typing import Final

from relay.errors import REQUEST_TIMEOUT, TOO_LARGE, RelayError
from relay.net.deadlines import NEVER
from relay.net.memory_budget import HeldOctets
from relay.wire.chunked import ChunkReader
from relay.wire.events import CHUNKED

BODY_OCTETS_PER_SECOND: Final = 1024  # minimum rate of a body after `Bounds.body_time`
_HELD_STEP: Final = 64 * 1024  # octets held ahead while a body of unknown length grows


def too_large(limit: int) -> RelayError:
    """The error for a body over `limit` octets."""
    return RelayError(
        TOO_LARGE,
        f"The request body is larger than {limit} octets. "
        "Shorten the conversation or send smaller files.",
    )


class RequestBody:
    """A body in parts: the connection feeds it, the handler awaits `complete_body`.

    `size` counts the payload's octets so far. `held` is their part of the memory budget, None
    until somebody awaits the body. `ends_at` is when the body must be complete, in seconds of the
    loop's clock.
    """

    __slots__ = (
        "_buffer",
        "_failure",
        "_limit",
        "_missing",
        "_octets",
        "_reader",
        "_waiter",
        "complete",
        "ends_at",
        "held",
        "size",
    )

    def __init__(self, length: int, limit: int) -> None:
        """`length` is as in wire.events; `limit` is in octets of payload."""
        self.complete = False
        self.size = 0
        self.ends_at = NEVER
        self.held: HeldOctets | None = None
        self._limit = limit
        self._missing = length
        self._reader = ChunkReader() if length == CHUNKED else None
        # A list of the segments as they came would take twenty times the octets of tiny ones, and a
        # bytearray would have to be copied as a whole: 20 ms for 32 MiB.
        self._buffer = BytesIO()
        self._octets = b""
        self._failure: RelayError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def narrow(self, limit: int) -> None:
        """Take at most `limit` octets of payload from now on."""
        self._limit = limit
        if self.size > limit:
            self.fail(too_large(limit))

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those that follow the body."""
        rest = b""
        if self._failure is not None:
            return rest
        if self._reader is None:
            if len(data) > self._missing:
                data, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(data)
            complete = not self._missing
        else:
            try:
                data = self._reader.feed(data)
            except RelayError as error:
                self.fail(error)
                return rest
            complete = self._reader.done
            rest = self._reader.rest
        if not self._collect(data):
            return b""
        if complete:
            self.complete = True
            self._wake()
        return rest

    def _collect(self, data: bytes) -> bool:
        """Keep octets of payload; False if the body has failed: over the limit, or no memory."""
        self.size += len(data)
        if self.size > self._limit:
            self.fail(too_large(self._limit))
            return False
        held = self.held
        if held is not None and self.size > held.octets:
            try:
                held.resize(min(self.size + _HELD_STEP, self._limit))
            except RelayError as error:
                self.fail(error)
                return False
        self._buffer.write(data)
        return True

    async def complete_body(self) -> bytes:
        """Wait for the complete body.

        Raises:
            RelayError: 413 over the limit, 408 too slow, 400 broken chunked coding, or as
                `MemoryBudget.change` has it.
        """
        if not self.complete and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        if self._buffer.tell():
            self._octets = self._buffer.getvalue()
            self._buffer = BytesIO()
        return self._octets

    def release(self) -> None:
        """Free the octets; the body stays complete."""
        self._buffer = BytesIO()
        self._octets = b""

    def fail(self, error: RelayError) -> None:
        """Give the body up: raise `error` in `complete_body`."""
        self._failure = error
        self.release()
        self._wake()

    def too_slow(self, seconds: float) -> None:
        """Give the body up because it is too slow; `seconds` is the most that it may take."""
        self.fail(
            RelayError(
                REQUEST_TIMEOUT,
                "The request body came too slowly. Send it at 1 KiB/s or faster, and all of it "
                f"within {seconds:g} s.",
            )
        )

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
