"""An upstream of streams whose events carry the moment at which they were sent.

Decides when each open stream gets its next event. A stream begins and ends with octets recorded
from the simulator. In between come events at even intervals, in turns, so that those of many
streams do not coincide; without an interval there is silence until `/release`. The clock is the
machine's, so clients can compare.

`GET /set?events=100&interval_us=20000` is for the streams that follow; `GET /release` ends the
silence of those that are open. `python -m bench.ticking PORT OPENING ENDING`.
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
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
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
        self.events = 0
        self._interval = 0.0  # seconds between two events of a stream; 0: silence
        self._streams: deque[Stream] = deque()
        self._silent: set[Stream] = set()
        self._timer = -1
        self._tick = 0.0
        self._owed = 0.0

    def set(self, events: int, interval: float) -> None:
        """Use these numbers from now on."""
        self._stop()
        self.events, self._interval = events, interval

    def add(self, stream: "Stream") -> None:
        if not self._interval or not stream.left:
            self._silent.add(stream)
            return
        self._streams.append(stream)
        # One tick for each event, while there are few.
        rate = min(_MAX_TICKS_S, len(self._streams) / self._interval)
        if self._timer < 0 or (self._tick > 1 / _MAX_TICKS_S and rate > 1.1 / self._tick):
            self._start(rate)

    def release(self) -> None:
        """End all silent streams."""
        silent, self._silent = self._silent, set()
        for stream in silent:
            stream.write(self.ending)

    def remove(self, stream: "Stream") -> None:
        self._silent.discard(stream)

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
            stream.left -= 1
            if stream.left:
                streams.append(stream)
            else:
                stream.write(self.ending)
        if not streams:
            self._stop()


class Stream(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._head = b""  # of a request, as far as it has come
        self._target = ""
        self._missing = 0  # octets of the request's body
        self.left = 0  # events
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
            self.left = self._ticker.events
            self._ticker.add(self)
            return
        if target.path == "/release":
            self._ticker.release()
        elif target.path == "/set":
            values = {name: int(value) for name, (value,) in parse_qs(target.query).items()}
            self._ticker.set(values["events"], values["interval_us"] / 1e6)
        self.write(_OK)


async def serve(port: int, opening: bytes, ending: bytes) -> None:
    ticker = Ticker(opening, ending)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(ticker), "127.0.0.1", port, backlog=16_384)
    await server.serve_forever()


if __name__ == "__main__":
    recorded = (Path(path).read_bytes() for path in sys.argv[2:4])
    uvloop.run(serve(int(sys.argv[1]), *recorded))
