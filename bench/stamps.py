"""The clients of streams whose events carry the moment at which they were sent.

Decides how much later than the upstream a proxy let two events follow each other: the gap at the
client less the gap at the upstream. Must not know which proxy answers.
"""

import asyncio
import re
from array import array
from time import monotonic_ns

from bench.dialects import HOST, MESSAGES, Dialect
from bench.http import answer_of
from bench.streams import StreamClient, StreamLoad

_STAMP = re.compile(rb'"@(\d{19})"')
_STAMP_OCTETS = 22
_NEVER = 1 << 63


class StampedLoad(StreamLoad):
    """Streams of such events."""

    def __init__(self, port: int, payload: bytes, dialect: Dialect = MESSAGES) -> None:
        super().__init__(port, payload, dialect)
        self.gaps = array("q")  # nanoseconds, of events sent from `since` to `until`
        self.since = self.until = _NEVER
        self.stamps = 0  # events that came

    def new_client(self) -> StreamClient:
        return StampedClient(self)


class StampedClient(StreamClient):
    """One stream."""

    __slots__ = ("rest", "seen", "sent_at", "stamped")

    def __init__(self, load: StampedLoad) -> None:
        super().__init__(load)
        self.stamped = load
        self.rest = b""
        self.seen = 0  # when the latest event came
        self.sent_at = 0  # when it was sent

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        super().data_received(data)
        load = self.stamped
        text = self.rest + data
        end = 0
        for found in _STAMP.finditer(text):
            end = found.end()
            sent = int(found[1])
            # By when it was sent: an event that is still held back at the end counts, too.
            if self.seen and load.since <= sent < load.until:
                load.gaps.append(now - self.seen - (sent - self.sent_at))
            self.seen, self.sent_at = now, sent
            load.stamps += 1
        self.rest = text[max(end, len(text) - _STAMP_OCTETS) :]


async def tick(port: int, interval: float) -> None:
    """Give all open streams events, so many seconds apart, until they are ended."""
    await answer_of(HOST, port, f"/tick?interval_us={round(interval * 1e6)}")


async def end(port: int) -> int:
    """End the streams that get events; the number of events that were sent."""
    return int(await answer_of(HOST, port, "/end"))


async def release(port: int) -> None:
    """End the silence of all open streams."""
    await answer_of(HOST, port, "/release")


async def closed() -> None:
    """Let the sockets close, so that no open stream delays a proxy's end."""
    await asyncio.sleep(0.2)
