"""The relay as a process: signals, the lock on its database, inherited sockets, the collector.

Decides when the process ends. Must not know what is served or how it is built.
"""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from relay import __version__
from relay.accounts.sign_up import first_account_url
from relay.app import App
from relay.config import Settings
from relay.handover.offer import Offer
from relay.handover.take import Taking
from relay.memory import collect_later, freeze_objects, map_large_blocks
from relay.net.descriptors import raise_limit
from relay.reload import LogFormat, Reloader, with_log_format
from relay.service_manager import Notifier, passed_sockets
from relay.store.database import StoreError
from relay.successor import Successor
from relay.telemetry.error_log import queued_stderr

if TYPE_CHECKING:
    from relay.workers.owner import Workers
    from relay.workers.plan import WorkerPlan

_log = logging.getLogger("relay")

_IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # until there is a loop


def serve(
    settings: Settings,
    path: str,
    *,
    takeover: bool = False,
    log_format: LogFormat | None = None,
) -> int:
    """Serve until a signal; returns the exit status. `path` is that of relay.toml, to reload it.

    `takeover`: take the place of the relay that serves from the database, if there is one.
    `log_format` replaces that of the settings, now and after a reload.

    Raises:
        ConfigError: relay.toml names something that cannot be used.
        StoreError: the database cannot be used.
        OSError: an address cannot be bound, or another relay serves from the database.
    """
    for number in _IGNORED_SIGNALS:  # `Signals` reports them, once there is a loop
        signal.signal(number, signal.SIG_IGN)
    plan = None
    if settings.server.processes > 1:
        plan = _worker_plan(os.path.abspath(path), log_format)
    with queued_stderr():
        raise_limit()
        map_large_blocks()
        collect_later()
        reloader = partial(Reloader, path=os.path.abspath(path), log_format=log_format)
        uvloop.run(_serve(with_log_format(settings, log_format), reloader, plan, takeover=takeover))
    return 0


def _worker_plan(path: str, log_format: LogFormat | None) -> "WorkerPlan":
    """Fork the process that starts workers, before there is a thread. Raises as `serve`."""
    # libuv accepts all that wait in one go, so one process would get all of a burst.
    os.environ.setdefault("UV_TCP_SINGLE_ACCEPT", "1")
    from relay.workers.plan import WorkerPlan  # its memory is for those who use it

    return WorkerPlan.fork(path, log_format)


async def _serve(
    settings: Settings,
    new_reloader: Callable[[App], Reloader],
    plan: "WorkerPlan | None",
    *,
    takeover: bool,
) -> None:
    signals = Signals()
    notifier = Notifier.of_environment()
    taking = await Taking.connect(settings.database.path) if takeover else None
    if taking is None:
        lock = lock_database(settings.database.path)
        app = await App.start(settings, passed=passed_sockets())
    else:
        app = await App.start(settings, takeover=taking)
        lock = taking.lock
    workers = None if plan is None else await plan.workers(app)
    offer = Offer(app, lock, [] if taking is None else taking.predecessors, workers)
    handing_over = _listen_for_successor(offer)
    reloader = app.reloading = new_reloader(app)
    if workers is not None and plan is not None:
        reloader.on_reload = plan.reloads(workers)
        await workers.start()

    signals.abort = partial(_abort, app, workers)
    app.operator.commands[b"/reload"] = reloader.answer
    app.operator.commands[b"/handover"] = Successor(offer).answer

    async def reload() -> None:
        notifier.reloading()
        await reloader.on_signal()
        notifier.ready(status)

    async def reopen_log() -> None:
        if app.log is None or not app.settings.log.file:
            signals.ignore(signal.SIGUSR1)
        else:
            app.log.reopen()
            if workers is not None:
                workers.broadcast("reopen")

    signals.on(signal.SIGHUP, reload)
    signals.on(signal.SIGUSR1, reopen_log)
    status = f"relay {__version__} listens on {', '.join(app.addresses)}"
    freeze_objects()
    announce(status)
    if settings.ledger.url:
        _announce_node(settings)
    notifier.ready(status, replaces=taking is not None)
    _warn_operator(app)
    await _offer_first_account(app)
    if handing_over:
        _log.warning("%s; no other process can take over from this one", handing_over)
    await _first(signals.wait(), offer.left.wait())
    if offer.left.is_set():
        notifier.stop()
    else:
        notifier.stopping("requests in flight finish")
    await _end(app, offer, workers)


def _abort(app: App, workers: "Workers | None") -> None:
    """End all requests now."""
    app.server.abort()
    if workers is not None:
        workers.cut()


async def _offer_first_account(app: App) -> None:
    """Print the link that opens the first account, while there is none."""
    if not app.settings.web.enabled:
        return
    try:
        url = await first_account_url(app.database, app.settings, time.time())
    except StoreError as error:
        _log.warning("there is no link for the first account: %s", error)
        return
    if url:
        announce(
            "nobody has an account yet; open the first one, an administrator's, within 7 days: "
            + url
        )


def _listen_for_successor(offer: Offer) -> str:
    """Let another process take over; returns why none can."""
    try:
        offer.start()
    except OSError as error:  # such as a path that is too long for a Unix socket
        return str(error)
    return ""


async def _first(*events: Coroutine[Any, Any, object]) -> None:
    """Wait for one of several events."""
    tasks = [asyncio.ensure_future(event) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _end(app: App, offer: Offer, workers: "Workers | None") -> None:
    """Let requests in flight finish, here and in older processes; then close everything. The
    database's lock is released with the process."""
    patience = app.settings.server.timeouts.drain
    ends_at = time.monotonic() + patience
    if offer.left.is_set():
        ends = [app.server.emptied(patience)]
        if workers is not None:
            ends.append(workers.finish(patience))
        await asyncio.gather(*ends)
        if app.certificates is not None:
            await app.certificates.finish(max(0.0, ends_at - time.monotonic()))
    else:
        offer.close()
        ends = [app.drain(patience)]
        if workers is not None:
            ends.append(workers.drain(patience))
        await asyncio.gather(*ends)
    await offer.finish(max(0.0, ends_at - time.monotonic()))
    await app.stop(0)


class Signals:
    """Handlers of signals. The first SIGTERM or SIGINT ends `wait`, later ones call `abort`.

    `on` gives another signal its effect. Other signals that servers reload or reopen logs at have
    none; by default they would end the process.
    """

    def __init__(self) -> None:
        self._received = asyncio.Event()
        self._ignored: set[signal.Signals] = set()
        self._effects: set[asyncio.Task[None]] = set()
        self.abort: Callable[[], None] = lambda: None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        for number in _IGNORED_SIGNALS:
            loop.add_signal_handler(number, self.ignore, number)

    def on(self, number: signal.Signals, effect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `effect` at each signal of this number."""
        asyncio.get_running_loop().add_signal_handler(number, self._run, effect)

    def _run(self, effect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(effect())
        self._effects.add(task)  # a loop keeps no reference to its tasks
        task.add_done_callback(self._effects.discard)

    def _on_signal(self) -> None:
        if self._received.is_set():
            self.abort()
        self._received.set()

    def ignore(self, number: signal.Signals) -> None:
        """Log, once, that a signal has no effect."""
        if number not in self._ignored:
            self._ignored.add(number)
            _log.warning(
                "%s has no effect; SIGHUP lets the relay read relay.toml again", number.name
            )

    async def wait(self) -> None:
        await self._received.wait()


def lock_database(path: str) -> int:
    """Lock the database of a server: a second server would overwrite the first one's counts.

    Returns the descriptor that holds the lock; the kernel releases it when the process ends.

    Raises:
        OSError: another server holds it, or the folder does not exist.
    """
    real = os.path.realpath(path)  # the same database through any link
    folder = os.path.dirname(real)
    if not os.path.isdir(folder):
        raise OSError(f"database {path}: there is no folder {folder}")
    while True:
        lock = os.open(f"{real}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise OSError(f"another relay serves from the database {path}") from None
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # its holder has deleted it meanwhile: another one may be there


def announce(text: str) -> None:
    """Print the line that says where a server listens; supervisors and tests wait for it."""
    print(text, file=sys.stderr, flush=True)


def _announce_node(settings: Settings) -> None:
    """Print the name that other relays know this one by; the URL may have a password."""
    from relay.cluster.joining import node_name  # psycopg is for those who share a ledger

    announce(f"relay shares its ledger as node {node_name(settings)}")


def _warn_operator(app: App) -> None:
    """Log after `announce`: its line comes first."""
    if app.without_admin:
        _log.warning(
            "%s; `relay upstreams` cannot reach this relay until it has a server.admin_listen of "
            "its own",
            app.without_admin,
        )
    for upstream in app.upstreams:
        if upstream.health.paused:
            _log.warning(
                "upstream %s is still paused; `relay upstreams resume %s` resumes it",
                upstream.name,
                upstream.name,
            )
