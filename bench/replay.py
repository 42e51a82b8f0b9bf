"""An upstream that gives every request the same octets, recorded from the simulator.

Decides nothing. It replays a complete answer for the json scenarios: a proxy's cost per request
is only comparable when its core is busy all the time. Half idle, nginx wakes up for every single
request and costs twice as much as when it is saturated. The simulator, which reads, checks and
composes, cannot send nginx enough; this can, at 16 µs per request. It replays the beginning of a
stream for the body scenarios, and holds the stream open without keeping the request. Run by file
name, so it imports nothing of the bench.
"""

import asyncio
import re
import sys
from pathlib import Path
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Replay(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = ("answer", "head", "missing", "transport")

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.head = b""  # of a request, as far as it has come
        self.missing = 0  # octets of the request's body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            if self.head:
                data = self.head + data
            head_end = data.find(b"\r\n\r\n")
            if head_end < 0:
                self.head = data
                return
            self.head = b""
            found = _LENGTH.search(data, 0, head_end + 2)
            self.missing = head_end + 4 + (int(found[1]) if found else 0) - len(data)
        if not self.missing:
            self.transport.write(self.answer)


async def serve(port: int, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Replay(answer), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
