"""One request at a time, each on a connection of its own: for what is not measured itself.

Must not know what is asked for.
"""

import asyncio

from bench.loadgen import HEAD_END, LoadError

_ANSWER_S = 60.0  # in which any answer is there


async def answer_of(
    host: str,
    port: int,
    target: str,
    fields: str = "",
    method: str = "GET",
    *,
    within: float = _ANSWER_S,
) -> bytes:
    """The body of the answer to a request without one.

    Raises:
        LoadError: the answer is no 200 or 204, or not there in time.
    """
    try:
        async with asyncio.timeout(within):
            return await _answer(host, port, target, fields, method)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise LoadError(f"{method} {target} was not answered: {error!r}") from None


async def _answer(host: str, port: int, target: str, fields: str, method: str) -> bytes:
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
    finally:
        writer.close()
