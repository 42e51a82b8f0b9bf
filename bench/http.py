"""One request at a time, each on a connection of its own: for what is not measured itself.

Must not know what is asked for.
"""

import asyncio

from bench.loadgen import HEAD_END, LoadError


async def answer_of(
    host: str, port: int, target: str, fields: str = "", method: str = "GET"
) -> bytes:
    """The body of the answer to a request without one.

    Raises:
        LoadError: the answer is no 200 or 204.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 24)
    try:
        head = f"{method} {target} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n"
        writer.write(f"{head}{fields}\r\n".encode())
        start = await reader.readuntil(HEAD_END)
        if not start.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 ")):
            raise LoadError(f"{method} {target} was answered with {start[:300]!r}")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in start.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            -1,
        )
        return await reader.readexactly(length) if length >= 0 else await reader.read()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise LoadError(f"{method} {target} was not answered: {error!r}") from None
    finally:
        writer.close()
