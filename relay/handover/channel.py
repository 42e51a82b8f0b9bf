"""Messages and descriptors between two processes of one relay, over a Unix socket.

Each message is a list in JSON; one that is too long for the kernel goes in several parts. Decides
how they are framed. Must not know what they say.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

_PART_OCTETS: Final = 64 * 1024
_MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD
_LAST, _MORE = b".", b"+"

OnMessage: TypeAlias = Callable[[list[Any], list[int]], None]

KIND: Final = socket.SOCK_SEQPACKET  # keeps messages apart, also for a third process


class Channel:
    """One connected socket. `on_message` gets each message with its descriptors; `on_end` is
    called once the other process has gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._descriptors: list[int] = []
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._flushed: asyncio.Future[None] | None = None
        self.on_message: OnMessage = lambda message, descriptors: None
        self.on_end: Callable[[], None] = lambda: None
        self.closed = False
        self._reading = False

    def start(self) -> None:
        """Read from now on."""
        self._reading = True
        self._loop.add_reader(self._socket, self._read)

    def send(self, *message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message, now or as soon as there is room."""
        if self.closed:
            return
        octets = msgspec.json.encode(message)
        parts = [octets[at : at + _PART_OCTETS] for at in range(0, len(octets), _PART_OCTETS)]
        for part in parts[:-1]:
            self._unsent.append((_MORE + part, ()))
        self._unsent.append((_LAST + parts[-1], descriptors))
        self._write()

    async def flushed(self) -> None:
        """Wait until all messages are with the kernel."""
        if self._unsent and not self.closed:
            self._flushed = self._loop.create_future()
            await self._flushed

    def pause(self) -> None:
        """Stop reading for now; messages stay in the socket."""
        self._reading = False
        self._loop.remove_reader(self._socket)

    def detach(self) -> socket.socket:
        """Stop reading; the socket is for another process. Messages unread stay in it."""
        self.pause()
        self._loop.remove_writer(self._socket)
        self.closed = True
        return self._socket

    def close(self) -> None:
        """End the channel."""
        if not self.closed:
            self.detach().close()
            self._finish_flush()

    def _write(self) -> None:
        while self._unsent:
            part, descriptors = self._unsent[0]
            try:
                if descriptors:
                    socket.send_fds(self._socket, [part], descriptors)
                else:
                    self._socket.send(part)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:  # the other process has gone
                self._end()
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket)
        self._finish_flush()

    def _finish_flush(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _read(self) -> None:
        while self._reading:
            try:
                part, descriptors, _, _ = socket.recv_fds(
                    self._socket, _PART_OCTETS + 1, _MAX_DESCRIPTORS
                )
            except BlockingIOError:
                return
            except OSError:
                part, descriptors = b"", []
            for number in descriptors:
                os.set_inheritable(number, False)
            if not part:
                self._end()
                return
            self._descriptors += descriptors
            self._parts.append(part[1:])
            if part[:1] == _LAST:
                octets, self._parts = b"".join(self._parts), []
                received, self._descriptors = self._descriptors, []
                self.on_message(msgspec.json.decode(octets), received)

    def _end(self) -> None:
        if not self.closed:
            self.close()
            self.on_end()


def listen(path: str) -> socket.socket:
    """A listening socket that its owner alone can reach, in place of one that was left.

    Raises:
        OSError: the path cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, KIND)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        os.fchmod(listener.fileno(), 0o600)  # before it has a name
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(4)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def is_own_process(sock: socket.socket) -> bool:
    """Whether the peer runs as this user, or as root."""
    size = struct.calcsize("iII")  # struct ucred: pid, uid, gid
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("iII", credentials)
    return uid in (0, os.geteuid())


def path_beside(database: str) -> str:
    """The path of the socket for a database."""
    return os.path.realpath(database) + ".handover"
