"""A worker's connections to the owner's inner server.

Decides how many there are and which are kept. Must not know what goes over them.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final, Protocol, cast

from relay.errors import OVERLOADED, RelayError
from relay.net.descriptors import is_exhausted, max_idle_connections
from relay.workers import inner_frames as frames
from relay.workers.link import Link

ADDRESS: Final = "inner server"  # the message that names the owner's socket

_MAX_IDLE: Final = 32
_CONNECT_SECONDS: Final = 5.0  # for the owner to accept, when very many come at once
_RETRY_SECONDS: Final = 0.01
_BUSY: Final = "The relay has no connection to spare at the moment. Try again in a moment."
_RETRY_AFTER: Final = ((b"retry-after", b"1"),)


class OwnerGoneError(Exception):
    """The owner cannot be reached, or ended before its answer was complete."""


class Receiver(frames.Receiver, Protocol):
    """Takes what the owner sends in answer to one request or call."""

    def lose(self) -> None:
        """The owner is gone."""
        ...


class OwnerConnection:
    """One connection, for one request or call at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.lost = False
        self._reader = frames.FrameReader()
        self._receiver: Receiver | None = None
        self._is_paused = False

    def begin(self, receiver: Receiver, *octets: bytes) -> None:
        """Send the frames that begin a request or call; the receiver gets the answer."""
        self._receiver = receiver
        if self.lost:
            receiver.lose()
        else:
            self.send(*octets)

    def send(self, *octets: bytes) -> None:
        """Send frames."""
        if not self.transport.is_closing():
            self.transport.writelines(octets)

    def release(self) -> None:
        """The answer is complete: nothing more comes."""
        self._receiver = None
        if self._is_paused:  # by a caller that had not read the last octets
            self.resume()

    def close(self) -> None:
        """End the connection, which cancels what the owner does for it."""
        self._receiver = None
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading until `resume`: the caller is slower than the owner."""
        if not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # --- as the loop sees it ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # it answers nothing
            self.transport.abort()
            return
        try:
            self._reader.feed(data, receiver)
        except (ValueError, struct.error):
            self.transport.abort()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lose()


class OwnerConnections:
    """All connections of a worker. They wait for the address, which the owner sends."""

    def __init__(self, link: Link) -> None:
        link.on(ADDRESS, self.name)
        self._loop = asyncio.get_running_loop()
        self._path: asyncio.Future[str] = self._loop.create_future()
        self._idle: list[OwnerConnection] = []
        self._max_used = max_idle_connections()
        self.used = 0

    def name(self, path: str) -> None:
        """The owner's socket is at this path."""
        if not self._path.done():
            self._path.set_result(path)

    async def take(self) -> OwnerConnection:
        """A connection, to be given back with `put`.

        Raises:
            OwnerGoneError: the owner accepts none.
            RelayError: 503, there are too many.
        """
        if self.used >= self._max_used:
            raise RelayError(OVERLOADED, _BUSY, headers=_RETRY_AFTER)
        self.used += 1
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                return connection
        try:
            return await self._connect()
        except BaseException:
            self.used -= 1
            raise

    def put(self, connection: OwnerConnection, *, reusable: bool) -> None:
        """Take a connection back; `reusable`: its answer was complete."""
        self.used -= 1
        if reusable and not connection.lost and len(self._idle) < _MAX_IDLE:
            connection.release()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections, and keep no more."""
        while self._idle:
            self._idle.pop().close()

    async def call(self, name: str, values: Iterable[bytes]) -> list[bytes]:
        """The result of the owner's function of this name.

        Raises:
            OwnerGoneError: the owner is gone, or the function failed.
            RelayError: as `take`.
        """
        connection = await self.take()
        reply = _Reply(self._loop.create_future())
        try:
            connection.begin(
                reply,
                frames.frame(frames.CALL, name.encode()),
                *frames.value_frames(frames.BODY, values),
                frames.frame(frames.BODY_END),
            )
            return await reply.result
        finally:
            self.put(connection, reusable=reply.is_complete)

    async def _connect(self) -> OwnerConnection:
        # Shielded: who awaits it may be cancelled, and others wait for it, too.
        path = await asyncio.shield(self._path)
        create: Any = self._loop.create_unix_connection  # Any: a protocol of no base class
        _, connection = await create(OwnerConnection, sock=await self._socket(path))
        return cast(OwnerConnection, connection)

    async def _socket(self, path: str) -> socket.socket:
        """A connected socket. The kernel refuses a connection for the moment if the owner has very
        many to accept."""
        ends_at = self._loop.time() + _CONNECT_SECONDS
        while True:
            try:
                return _connected(path)
            except BlockingIOError:
                if self._loop.time() > ends_at:
                    raise OwnerGoneError from None
            except OSError as error:
                if is_exhausted(error):
                    raise RelayError(OVERLOADED, _BUSY, headers=_RETRY_AFTER) from None
                raise OwnerGoneError from None
            await asyncio.sleep(_RETRY_SECONDS)


def _connected(path: str) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


class _Reply(Receiver):
    """The result of a call."""

    def __init__(self, result: "asyncio.Future[list[bytes]]") -> None:
        self.result = result
        self.is_complete = False
        self._values = frames.Values()

    def take_frame(self, kind: int, payload: bytes) -> None:
        self.is_complete = True
        if self.result.done():  # cancelled
            return
        if kind == frames.END:
            self.result.set_result(self._values.complete)
        else:
            self.result.set_exception(OwnerGoneError())

    def take_part(self, data: bytes, ends: bool) -> None:
        self._values.take_part(data, ends)

    def lose(self) -> None:
        if not self.result.done():
            self.result.set_exception(OwnerGoneError())
