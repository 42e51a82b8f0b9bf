"""An upstream in a process of its own: to each request a stream that comes in many pieces.

python -m tests.attacks.streaming_upstream       prints its port, serves until it is killed
"""

import asyncio
from typing import cast

import uvloop

from tests.fakes import answers

EVENTS = 150
PIECES = [answers.chunk(piece) for piece in answers.stream(["some words of an answer "] * EVENTS)]
EVENTS_AT_ONCE = 10
PAUSE = 0.005  # seconds


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.answering: asyncio.Task[None] | None = None

    def data_received(self, octets: bytes) -> None:
        if octets.endswith(b"}"):  # of the request's body
            self.answering = asyncio.get_running_loop().create_task(self.answer())

    def connection_lost(self, error: Exception | None) -> None:
        if self.answering is not None:
            self.answering.cancel()

    async def answer(self) -> None:
        self.transport.write(answers.chunked_head())
        for number in range(0, len(PIECES), EVENTS_AT_ONCE):
            self.transport.write(b"".join(PIECES[number : number + EVENTS_AT_ONCE]))
            await asyncio.sleep(PAUSE)
        self.transport.write(answers.LAST)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
