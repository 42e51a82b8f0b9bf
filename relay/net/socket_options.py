"""How the loop's transports are set, for both sides of the relay."""

import asyncio
import socket
from typing import Final

_RECEIVE: Final = 64 * 1024


def write_at_once(transport: asyncio.Transport) -> None:
    """Hand each write to the kernel as it is made, and pause as soon as the kernel takes no more.

    uvloop otherwise queues writes for the end of the loop's turn, and only pauses above 64 KiB.
    The relay writes once per event, so a queue gathers nothing; and what it holds for a slow
    reader is then a single piece. (Over TLS each write is still in flight when it returns,
    and this would pause after every one.)
    """
    if transport.get_extra_info("sslcontext") is None:
        transport.set_write_buffer_limits(high=0)


def read_little(transport: asyncio.Transport) -> None:
    """Let an upstream send 64 KiB ahead and no more: uvloop reads up to 250 KiB at once, which
    a caller who reads slowly would make the relay hold.
    """
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE)
