"""Options of the loop's transports, for both sides of the relay.

Decides how many octets wait in a buffer. Must not know their content.
"""

import asyncio
import socket
from typing import Final

_RECEIVE_BUFFER_OCTETS: Final = 28 * 1024  # Linux doubles it


def write_at_once(transport: asyncio.Transport) -> None:
    """Pass each write to the kernel immediately; pause as soon as the kernel accepts no more.

    By default uvloop queues writes until the end of the loop's turn and pauses above 64 KiB. The
    relay writes once per event, so a queue would gather nothing. Without one, a slow reader costs
    a single piece of memory. Not over TLS: each write is in flight when it returns, so every one
    would pause.
    """
    if transport.get_extra_info("sslcontext") is None:
        transport.set_write_buffer_limits(high=0)


def read_little(connection: socket.socket) -> None:
    """Limit the kernel's receive buffer of a socket that is yet to connect to 56 KiB.

    uvloop reads up to 250 KiB at once, and the relay would hold them for a slow caller. No stream
    comes as fast as this buffer still lets it: 200 KB a second at a distance of 150 ms.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
