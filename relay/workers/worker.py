"""A worker: the relay's server without its ledger, journal, pages, upkeep or admin listener.

It is forked by the nursery, asks the owner for its settings, serves on the owner's listening
sockets, and ends when the owner says so or is gone.

Decides how its parts are put together. Must not know the rules of admission.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import uvloop

from relay import config
from relay.app import App, compose
from relay.config import AdminAddress, Settings
from relay.forbidden_addresses import guard_connections
from relay.gateway.access_text import open_access_log
from relay.memory import collect_later, freeze_objects, map_large_blocks
from relay.net.certificate_source import CertificateSource
from relay.net.deadlines import Deadlines
from relay.net.descriptors import raise_limit
from relay.net.upstream.resolver import Resolver
from relay.pool.setup import read_setups
from relay.pool.upstream import Upstream
from relay.reload import LogFormat, Reloader, kept_until_restart, with_log_format
from relay.storage import Storage
from relay.store.database import Database
from relay.telemetry.error_log import queued_stderr
from relay.upkeep import sweep
from relay.workers.certificates import share_certificates_as_worker
from relay.workers.figures import share_figures_as_worker
from relay.workers.forward import forward_as_worker
from relay.workers.link import Link, LinkClosedError
from relay.workers.link_journal import LinkJournal
from relay.workers.owner_connections import OwnerConnections
from relay.workers.pool_sharing import share_pool_as_worker
from relay.workers.refreshing import share_changes_as_worker
from relay.workers.remote_responses import share_responses_as_worker
from relay.workers.slots import SlotLedger, Traffic
from relay.workers.worker_admissions import WorkerAdmissions

_PULSE_SECONDS: Final = 1.0
_WATCH_INTERVAL_SECONDS: Final = 0.25
_ENDED_BY_OWNER: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_log = logging.getLogger("relay.workers")

Named = list[tuple[str, socket.socket]]


class Beginning(msgspec.Struct):
    """What the owner says at the start."""

    path: str  # of relay.toml
    text: str  # of relay.toml when the owner started
    latest: str  # as it is in force, but for settings that need a restart
    log_format: LogFormat | None


def run(sock: socket.socket, listening: Named) -> None:
    """Serve until the owner ends it. In a forked process of its own."""
    for number in _ENDED_BY_OWNER:
        signal.signal(number, signal.SIG_IGN)
    with queued_stderr():
        raise_limit()
        map_large_blocks()
        collect_later()
        uvloop.run(_serve(sock, listening))


async def _serve(sock: socket.socket, listening: Named) -> None:
    link = await Link.open(sock)
    gone = asyncio.Event()
    link.on_end = gone.set
    link.start()
    try:
        beginning = msgspec.convert(await link.ask("begin", os.getpid()), Beginning)
        app = await WorkerApp.begin(link, beginning, listening)
    except LinkClosedError:
        return
    freeze_objects()
    ended = asyncio.ensure_future(app.ended.wait())
    lost = asyncio.ensure_future(gone.wait())
    await asyncio.wait([ended, lost], return_when=asyncio.FIRST_COMPLETED)
    await app.leave()


class WorkerApp(App):
    """The parts of a worker. `link` leads to the owner; `ended` is set once nothing is left."""

    link: Link
    slots: SlotLedger
    admissions: WorkerAdmissions
    reloader: Reloader
    connections: OwnerConnections
    ended: asyncio.Event
    _background_tasks: set[asyncio.Task[None]]
    send_figures: Callable[[], None]

    @classmethod
    async def begin(cls, link: Link, beginning: Beginning, listening: Named) -> "WorkerApp":
        """Build it, learn the present state from the owner, and serve.

        Raises:
            ConfigError: something that the settings name cannot be used.
            StoreError: the database cannot be used.
            LinkClosedError: the owner is gone.
        """
        guard_connections()
        settings = _settings(beginning)
        traffic = Traffic()
        ledger, journal = SlotLedger(traffic), LinkJournal(traffic)
        journal.send_over(link)
        deadlines = Deadlines(asyncio.get_running_loop())
        resolver = Resolver()
        setups = read_setups(settings)
        certificates = CertificateSource(settings) if settings.server.tls else None
        log = open_access_log(settings.log, 1) if settings.log.access else None
        database = await Database.open(settings.database.path)
        storage = await Storage.beside(settings, database, ledger, journal)
        connections = OwnerConnections(link)
        storage = share_responses_as_worker(storage, connections)
        upstreams = [Upstream(one.settings, settings, deadlines, resolver, one) for one in setups]
        app = compose(settings, deadlines, storage, upstreams, resolver, cls)
        assert isinstance(app, cls)
        app._background_tasks = set()
        app.link, app.slots, app.ended = link, ledger, asyncio.Event()
        pool = app.upstreams
        app.admissions = WorkerAdmissions(app.metering, ledger, link, pool.wake, pool.give_up)
        app.metering.admissions = app.admissions
        app.connections = connections
        forward_as_worker(app, connections, shares_ledger=bool(app.settings.ledger.url))
        share_changes_as_worker(app, link)
        app.reloader = Reloader(app, beginning.path, beginning.log_format)
        app._show_certificates(certificates)
        app.exchange_log(log)
        app._trace_by(settings.traces)
        app.send_figures = share_figures_as_worker(app, link)
        share_certificates_as_worker(app, link)
        app._obey()
        share_pool_as_worker(app, link)
        await link.ask("join")
        app._start_tasks()
        for name, sock in listening:
            app.listeners.hand(name, [sock])
        await app._listen()
        return app

    def _obey(self) -> None:
        """Handle the messages of the owner."""
        link = self.link

        async def recall(account: str) -> None:
            self.slots.recall(account)

        async def freeze() -> None:
            self.server.retiring = True
            for listener in self.server.listeners:
                listener.pause()
            self.admissions.freeze()

        link.answer("recall", recall)
        link.answer("freeze", freeze)
        link.on("thaw", self._thaw)
        link.on("journal", self._note_journal)
        link.on("reload", self._reload)
        link.on("reopen", self._reopen_log)
        link.on("cut", self.ended.set)
        link.on("drain", lambda seconds: self._end_with(self.drain(seconds)))
        link.on("retire", lambda idle, seconds: self._end_with(self._retire(idle, seconds)))

    def _note_journal(self, healthy: bool, failure: str) -> None:
        self.journal.healthy, self.journal.failure = healthy, failure

    def _reopen_log(self) -> None:
        if self.log is not None and self.settings.log.file:
            self.log.reopen()

    def _thaw(self) -> None:
        self.admissions.thaw()
        self.server.retiring = False
        for listener in self.server.listeners:
            listener.resume()

    def _reload(self, text: str) -> None:
        self._background(self._adopt(text))

    async def _adopt(self, text: str) -> None:
        try:
            await self.reloader.adopt(text)
        except Exception as error:
            # It would serve by other settings than the rest: a new worker begins with these.
            _log.error("a worker cannot use the new settings and ends: %s", error)
            self.link.flush()  # with the ends of requests that wait
            self.link.close()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)

    def _end_with(self, work: Coroutine[Any, Any, None]) -> None:
        async def end() -> None:
            await work
            self.ended.set()

        self._ending = asyncio.get_running_loop().create_task(end())

    async def _retire(self, idle: float, seconds: float) -> None:
        """Another relay has taken over: finish what is here."""
        self.server.release_listeners()
        self.server.retire(idle)
        await self.server.emptied(seconds)
        self.server.abort()

    async def leave(self) -> None:
        """End: write what is left, and close everything. What is still in flight is cut."""
        self.server.abort()
        self.send_figures()
        await self.link.flushed()
        await self.stop(0)
        self.connections.close()
        await self.link.flushed()  # with the ends of what was cut
        self.link.close()

    # --- other than in the owner ---

    def _start_tasks(self) -> None:
        self.deadlines.each_tick(self._flush_log)
        self.deadlines.start()
        self._parts.loop_lag.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.changes.watch(_WATCH_INTERVAL_SECONDS)),
            loop.create_task(sweep(self.ledger, self.bindings)),
            loop.create_task(self._beat()),
        ]

    async def _beat(self) -> None:
        """Each second: show the owner that the loop turns, and give back idle slots."""
        while True:
            self.link.send("pulse")
            self.slots.sweep_slots()
            await asyncio.sleep(_PULSE_SECONDS)

    async def _keep_certificates(self, certificates: CertificateSource) -> None:
        """The owner renews them, and listens for plain HTTP."""

    def _keep_by(self, settings: Settings) -> None:
        before, self.settings = self.settings, settings
        if before.traces != settings.traces:
            self._trace_by(settings.traces)


def _settings(beginning: Beginning) -> Settings:
    """The settings in force; a worker has no admin listener. Raises ConfigError."""
    path, replace = beginning.path, msgspec.structs.replace
    settings = config.load_text(beginning.text, path)
    if beginning.latest != beginning.text:
        settings = kept_until_restart(config.load_text(beginning.latest, path), settings)
    server = replace(settings.server, admin_listen=AdminAddress(""))
    return with_log_format(replace(settings, server=server), beginning.log_format)
