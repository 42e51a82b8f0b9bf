"""An upstream in a process of its own: `python -m tests.attacks.distant` prints its URL.

It reads bodies of any size without looking at them. A stream that it is asked for has an event
every 2 ms, without end.
"""

import asyncio
import re
from typing import Any

import uvloop

from tests.fakes.upstream import OK

EVENT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT_SECONDS = 0.002


class Distant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._head = b""
        self._left = -1  # octets of the body that have yet to come; -1 while the head comes

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", self._head)
            self._left = int(length[1]) if length else 0
            data = self._head[end + 4 :]
            self._streams = b'"stream": true' in data
            self._head = b""
        self._left -= len(data)
        if not self._left:
            self._left = -1
            if self._streams:
                self._transport.write(HEAD)
                self._write_event()
            else:
                self._transport.write(OK)

    def _write_event(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            asyncio.get_running_loop().call_later(EVENT_SECONDS, self._write_event)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Distant, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
