"""An upstream in a process of its own: `python -m tests.attacks.large_streams` prints its URL.

As `distant`, but a request for "a large stream" gets 300 KB of tiny events at once.
"""

import asyncio

import uvloop

from tests.attacks.distant import Distant
from tests.fakes import answers

LARGE = answers.chunked(answers.stream(["x" * 20] * 2000))


class LargeStreams(Distant):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        if b'"a large stream"' in data:
            self._transport.write(LARGE)
        else:
            super().data_received(data)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(LargeStreams, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
