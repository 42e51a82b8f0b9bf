"""The process that takes the place of one that serves.

Decides how long it waits for each step of the old one. Must not know what is served.
"""

import asyncio
import os
import socket
from typing import Any, Final

import msgspec

from relay import __version__
from relay.app import App
from relay.handover.channel import KIND, Channel, is_own_process, path_beside
from relay.handover.predecessor import Predecessor, Running
from relay.quota.held import Share, State

PROTOCOL: Final = 1
_STEP_SECONDS: Final = 12.0  # the old process goes on by itself after 10


class Taking:
    """The old process, until it has left. `lock` is the database's, after `finish`."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock)
        self._messages: asyncio.Queue[tuple[list[Any], list[int]]] = asyncio.Queue()
        self._sockets: list[tuple[str, socket.socket]] = []
        self._earlier: list[tuple[list[str], Share, socket.socket]] = []
        self._share = Share()
        self._channel.on_message = self._on_message
        self._channel.on_end = lambda: self._messages.put_nowait((["gone"], []))
        self.lock = -1
        self.predecessors: list[Predecessor] = []

    @property
    def sockets(self) -> list[tuple[str, socket.socket]]:
        """See `app.Takeover`."""
        return self._sockets

    @classmethod
    async def connect(cls, database: str) -> "Taking | None":
        """Reach the relay that serves from `database`; None: there is none.

        Raises:
            OSError: it is another user's, or does not hand over.
        """
        sock = socket.socket(socket.AF_UNIX, KIND)
        try:
            sock.connect(path_beside(database))
        except OSError:
            sock.close()
            return None
        if not is_own_process(sock):
            sock.close()
            raise OSError("the relay that serves runs as another user")
        taking = cls(sock)
        taking._channel.start()
        taking._channel.send("take", PROTOCOL, __version__)
        (names,), descriptors = await taking._next("sockets")
        taking._sockets = [
            (name, socket.socket(fileno=number))
            for name, number in zip(names, descriptors, strict=True)
        ]
        return taking

    async def begin(self) -> State:
        """See `app.Takeover`."""
        self._channel.send("freeze")
        (state, earlier), descriptors = await self._next("state")
        for (ids, share), number in zip(earlier, descriptors, strict=True):
            sock = socket.socket(fileno=number)
            self._earlier.append((ids, msgspec.convert(share, Share), sock))
        found = msgspec.convert(state, State)
        self._share = found.share
        return self._with_earlier(found)

    def _with_earlier(self, state: State) -> State:
        """The state with the shares of processes before that one."""
        total = msgspec.structs.replace(state, share=Share())
        for share in (state.share, *(share for _, share, _ in self._earlier)):
            total.share.include(share)
        return total

    async def finish(self, app: App) -> None:
        """See `app.Takeover`."""
        self._channel.send("loaded")
        _, descriptors = await self._next("go")
        self.lock = descriptors[0]
        running: Running = {row.id: row for row in app.running}
        for ids, share, sock in self._earlier:
            own = {id: running.pop(id) for id in ids if id in running}
            self.predecessors.append(Predecessor(app, sock, own, share))
        self.predecessors.append(Predecessor(app, self._channel.detach(), running, self._share))

    def _on_message(self, message: list[Any], descriptors: list[int]) -> None:
        if message[0] == "go":  # what follows is for its `Predecessor`
            self._channel.pause()
        self._messages.put_nowait((message, descriptors))

    async def _next(self, kind: str) -> tuple[list[Any], list[int]]:
        """The next message, which is of this kind. Raises OSError."""
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                message, descriptors = await self._messages.get()
        except TimeoutError:
            raise OSError("the relay that serves did not hand over in time; it serves on") from None
        if message[0] == kind:
            return message[1:], descriptors
        for number in descriptors:
            os.close(number)
        reason = message[1] if message[0] == "refused" else "it closed the connection"
        raise OSError(f"the relay that serves does not hand over: {reason}")
