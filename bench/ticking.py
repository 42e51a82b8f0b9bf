"""An upstream of streams whose events carry the moment at which they were sent.

Decides when each open stream gets its next event. A stream begins and ends with octets recorded
from the simulator. In between it is silent, until all that are open are asked at once to go on:
`GET /tick?interval_us=20000` gives each an event in every interval, in turns, so that those of many
streams do not coincide, until `GET /end` ends them and says how many events there were;
`GET /release` ends silent streams. The clock is the machine's, so
clients can compare. `python -m bench.ticking PORT OPENING ENDING`.
"""

import asyncio
import os
import re
import sys
from collections import deque
from pathlib import Path
from time import monotonic_ns
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import uvloop

from bench.pacing import timer_of

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_EVENT: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"@%019d"}}\n\n'
)
_CHUNK: Final = b"%x\r\n%b\r\n" % (len(_EVENT % 0), _EVENT)
_MAX_TICKS_S: Final = 4000.0


class Ticker:
    """The open streams, and when each has its turn."""

    def __init__(self, opening: bytes, ending: bytes) -> None:
        self.opening = opening
        self.ending = ending
        self._interval = 1.0  # seconds between two events of a stream
        self._streams: deque[Stream] = deque()
        self._silent: dict[Stream, None] = {}  # in the order in which they were opened
        self._timer = -1
        self._tick = 0.0  # seconds
        self._owed = 0.0  # events that are due
        self._sent = 0  # events since the streams were asked to go on

    def add(self, stream: "Stream") -> None:
        self._silent[stream] = None

    def tick(self, interval: float) -> None:
        """Give the silent streams events, until they are ended."""
        self._stop()
        self._interval = interval
        self._sent = 0
        self._streams.extend(self._silent)
        self._silent.clear()
        if self._streams:
            # One tick for each event, while there are few.
            self._start(min(_MAX_TICKS_S, len(self._streams) / interval))

    def end(self) -> int:
        """End the streams that get events; the number of events that they have had together."""
        self._stop()
        for stream in self._streams:
            if not stream.closed:
                stream.write(self.ending)
        self._streams.clear()
        return self._sent

    def release(self) -> None:
        """End all silent streams."""
        silent, self._silent = self._silent, {}
        for stream in silent:
            stream.write(self.ending)

    def remove(self, stream: "Stream") -> None:
        self._silent.pop(stream, None)

    def _start(self, rate: float) -> None:
        self._stop()
        self._tick = 1 / rate
        self._timer = timer_of(rate)
        asyncio.get_running_loop().add_reader(self._timer, self._turn)

    def _stop(self) -> None:
        if self._timer >= 0:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1
            self._owed = 0.0

    def _turn(self) -> None:
        expired = int.from_bytes(os.read(self._timer, 8), "little")
        streams = self._streams
        self._owed += expired * self._tick * len(streams) / self._interval
        while self._owed >= 1 and streams:
            self._owed -= 1
            stream = streams.popleft()
            if stream.closed:
                continue
            stream.write(_CHUNK % monotonic_ns())
            self._sent += 1
            streams.append(stream)
        if not streams:
            self._stop()


class Stream(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._head = b""  # of a request, as far as it has come
        self._target = ""
        self._missing = 0  # octets of the request's body
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.Transport, transport).write

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._ticker.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            data = self._head + data
            head_end = data.find(b"\r\n\r\n")
            if head_end < 0:
                self._head = data
                return
            self._head = b""
            self._target = data.split(b" ", 2)[1].decode("latin-1")
            found = _LENGTH.search(data, 0, head_end + 2)
            self._missing = head_end + 4 + (int(found[1]) if found else 0) - len(data)
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        target = urlsplit(self._target)
        if target.path.startswith("/v1/"):
            self.write(self._ticker.opening)
            self._ticker.add(self)
            return
        answer = b"{}"
        if target.path == "/release":
            self._ticker.release()
        elif target.path == "/tick":
            (interval,) = parse_qs(target.query)["interval_us"]
            self._ticker.tick(int(interval) / 1e6)
        elif target.path == "/end":
            answer = b"%d" % self._ticker.end()
        self.write(_OK % (len(answer), answer))


async def serve(port: int, opening: bytes, ending: bytes) -> None:
    ticker = Ticker(opening, ending)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(ticker), "127.0.0.1", port, backlog=16_384)
    await server.serve_forever()


if __name__ == "__main__":
    recorded = (Path(path).read_bytes() for path in sys.argv[2:4])
    uvloop.run(serve(int(sys.argv[1]), *recorded))
