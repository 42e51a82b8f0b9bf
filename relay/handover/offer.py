"""The process that serves: offers its place, and leaves once another one is ready.

Decides when it leaves, and when it goes on itself after all. Must not know how the other process
starts.
"""

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any, Final, Protocol

from relay.app import App
from relay.handover.borrow import Borrower
from relay.handover.channel import Channel, is_own_process, listen, path_beside
from relay.handover.predecessor import Predecessor
from relay.handover.take import PROTOCOL
from relay.quota.transfer import state_of
from relay.store.database import StoreError, migrations

_log = logging.getLogger("relay.handover")

READY_SECONDS: Final = 10.0  # for the other process to be ready, once this one has stopped
_IDLE_SECONDS: Final = 5.0  # for a connection's last request


class WorkerProcesses(Protocol):
    """Processes that serve beside this one, and admit by its ledger."""

    async def freeze(self) -> None:
        """Let them accept and admit nothing by themselves."""
        ...

    def thaw(self) -> None:
        """Undo `freeze`."""
        ...

    def retire(self, idle_seconds: float) -> None:
        """Another process serves: let them finish what they have."""
        ...


class Offer:
    """The offer of one process. `left` is set once another one has its place."""

    def __init__(
        self,
        app: App,
        lock: int,
        predecessors: list[Predecessor],
        workers: WorkerProcesses | None = None,
    ) -> None:
        """`lock` is the database's; `predecessors` are older processes that still finish."""
        self._app = app
        self._workers = workers
        self._lock = lock
        self._path = path_beside(app.settings.database.path)
        self._predecessors = predecessors
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._channel: Channel | None = None
        self._borrower = self._new_borrower()
        self._deadline: asyncio.TimerHandle | None = None
        self._freezing: asyncio.Task[None] | None = None
        self.version = ""  # of the process that takes over
        self.left = asyncio.Event()
        self.failure = ""  # why the latest other process did not take over
        self.failed = asyncio.Event()

    def _new_borrower(self) -> Borrower:
        app = self._app
        return Borrower(app.ledger, app.journal, app.metering)

    def start(self) -> None:
        """Listen for another process. Raises OSError: the socket's path cannot be used."""
        self._listener = listen(self._path)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Offer no more. The lock is released with the process."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if not self.left.is_set():
                with contextlib.suppress(OSError):
                    os.remove(self._path)

    async def finish(self, seconds: float) -> None:
        """Wait for what older processes still settle here, or for this one's own last messages."""
        waiting = [one for one in self._predecessors if not one.gone]
        if not self.left.is_set() and waiting:
            empty = self._loop.create_future()

            def check() -> None:
                if all(one.gone for one in waiting) and not empty.done():
                    empty.set_result(None)

            for one in waiting:
                one.on_gone = check
            await asyncio.wait([empty], timeout=seconds)
        if self._channel is not None:
            await self._channel.flushed()

    # --- the other process ---

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        channel = Channel(sock)
        if not is_own_process(sock):
            channel.send("refused", "it is another user's")
            channel.close()
        elif self._channel is not None:
            channel.send("refused", "another process is about to take over")
            channel.close()
        else:
            self._channel = channel
            channel.on_message = self._on_message
            channel.on_end = self._on_end
            channel.start()

    def _on_message(self, message: list[Any], _: list[int]) -> None:
        kind, *rest = message
        if kind == "take":
            self._send_sockets(*rest)
        elif kind == "freeze" and not self._app.journal.healthy:
            assert self._channel is not None
            self._channel.send("refused", "its journal cannot be written now")
        elif kind == "freeze":
            self._freezing = self._loop.create_task(self._freeze())
        elif kind == "loaded":
            self._leave()
        elif kind == "answer":
            self._borrower.answered(*rest)

    def _send_sockets(self, protocol: int, version: str) -> None:
        assert self._channel is not None
        if protocol != PROTOCOL:
            self._channel.send("refused", f"it speaks another protocol ({protocol})")
            return
        self.version = version
        names = [name for name, _ in self._app.listeners.named]
        descriptors = [one.socket.fileno() for _, one in self._app.listeners.named]
        self._channel.send("sockets", names, descriptors=descriptors)

    async def _freeze(self) -> None:
        """Stop accepting and admitting, and send what this process holds."""
        app, channel = self._app, self._channel
        assert channel is not None
        self._deadline = self._loop.call_later(READY_SECONDS, self._too_late)
        app.server.retiring = True
        for _, listener in app.listeners.named:
            listener.pause()
        if self._workers is not None:
            await self._workers.freeze()
        for one in self._predecessors:
            if not one.gone:
                one.channel.pause()
        self._borrower.begin()
        await app.journal.close()
        earlier = [one for one in self._predecessors if not one.gone]
        for one in earlier:
            await one.channel.flushed()
        sockets = [one.channel.detach() for one in earlier]
        if channel.closed:  # meanwhile
            return
        self._borrower.note_state()
        state = state_of(app.ledger, [one.share for one in earlier])
        shares = [(list(one.running), one.share) for one in earlier]
        channel.send("state", state, shares, descriptors=[one.fileno() for one in sockets])

    def _leave(self) -> None:
        """The other process has the database open: give it the lock, and leave."""
        app, channel = self._app, self._channel
        assert channel is not None
        if self._deadline is not None:
            self._deadline.cancel()
        channel.send("go", descriptors=[self._lock])
        os.close(self._lock)
        self._borrower.commit(channel.send)
        self.left.set()
        self.close()
        for server in app.servers:
            server.release_listeners()
        app.web.close()
        app.server.retire(_IDLE_SECONDS)
        if self._workers is not None:
            self._workers.retire(_IDLE_SECONDS)
        app.stop_tasks()
        _log.warning("relay %s has taken over; requests in flight finish here", self.version)

    def give_up(self, reason: str) -> None:
        """Refuse the place to the other process, unless it has it or has not asked for it."""
        if self._channel is None or self._channel.closed or self.left.is_set():
            return
        self._channel.close()
        self._take_back(reason)

    def _too_late(self) -> None:
        self.give_up(f"it was not ready within {READY_SECONDS:.0f} s")

    def _on_end(self) -> None:
        if self.left.is_set():
            self._borrower.lose()
            _log.error("the process that took over has gone")
        else:
            self._take_back("it ended before it was ready")

    def _take_back(self, reason: str) -> None:
        if self._freezing is not None:
            self._loop.create_task(self._go_on(reason))
        else:
            self._channel = None
            self._fail(reason)

    async def _go_on(self, reason: str) -> None:
        """Go on serving: the other process has failed."""
        app = self._app
        if self._deadline is not None:
            self._deadline.cancel()
        if self._freezing is not None:
            await self._freezing
        await self._borrower.give_back()
        self._freezing = self._channel = None
        for one in self._predecessors:
            if not one.gone and one.channel.closed:
                one.attach()
            elif not one.gone:
                one.channel.start()
        self._borrower = self._new_borrower()
        app.server.retiring = False
        for _, listener in app.listeners.named:
            listener.resume()
        if self._workers is not None:
            self._workers.thaw()
        self._fail(reason)
        with contextlib.suppress(StoreError):
            version = (await app.database.select("PRAGMA user_version"))[0][0]
            if version > len(migrations()):
                _log.error("the other process has migrated the database: restart with its version")

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self.failed.set()
        _log.error("another relay could not take over: %s; this one serves on", reason)
