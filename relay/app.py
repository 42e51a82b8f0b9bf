"""The composition root: each object is built once here, started and stopped in order.

Start: database, keys, upstreams, listeners. Stop (SIGTERM or SIGINT): listeners close,
exchanges in flight finish, then upstreams, log and database; a second signal cuts.
"""

import asyncio
import fcntl
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from relay import __version__, config
from relay.accounts import keys, users
from relay.api.admin import Admin
from relay.api.handler import Handler
from relay.api.models import Models
from relay.api.stored_responses import StoredResponses
from relay.config import ConfigError, Settings
from relay.gateway.authentication import KeyIndex
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.gateway.responses import ResponsesReader
from relay.net import tls as certificates
from relay.net.deadlines import Deadlines
from relay.net.http1 import Bounds, Server
from relay.pool.affinity import Sessions
from relay.pool.leases import Upstreams
from relay.pool.plan_polling import PlanPoller
from relay.pool.routes import Routes
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.secret import derived
from relay.store import pauses
from relay.store.change_watch import watch
from relay.store.database import Database, StoreError
from relay.store.journal import Journal
from relay.store.keys import LiveKey, live_keys
from relay.store.recovery import restore
from relay.store.responses import DatabaseResponseStore, MemoryResponseStore, ResponseStore
from relay.store.server_secret import sealing_key
from relay.store.usage import prune
from relay.telemetry.access_log import AccessLog
from relay.wire.events import Limits

_log = logging.getLogger("relay")

_SWEEP = 5.0  # seconds between looks for limits that are whole again
_PRUNE = 3600.0
_WATCH = 0.25  # seconds after which a change on the command line is in force
_PASSED_FROM = 3  # systemd's SD_LISTEN_FDS_START


class App:
    """The relay, from its settings to its sockets."""

    def __init__(self, settings: Settings, log_fd: int = 1) -> None:
        self._settings = settings
        self._log_fd = log_fd
        self.addresses: list[str] = []
        self.admin_address = ""  # "": nothing listens for the operator,
        self.without_admin = ""  # and if it was to, why it does not

    async def start(self) -> None:
        """Be ready to serve.

        Raises:
            ConfigError: an upstream's credential or proxy or a certificate cannot be read.
            StoreError: the database cannot be used.
            OSError: an address cannot be listened on.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        self.timers = Deadlines(loop)
        made = _upstreams(settings, self.timers)
        tls = certificates.listener(settings.server.tls) if settings.server.tls else None
        self._lock = _only_one(settings.database.path)
        self.database = await Database.open(settings.database.path)
        state = await restore(self.database, time.time())
        self.ledger = Ledger()
        self.ledger.restore(state.rows)
        self.upstreams = Upstreams(made, settings.pool, self.ledger, self.timers)
        self.sessions = _sessions(settings.pool)
        await self._pause_again()
        self.callers = KeyIndex()
        self._take_over(await live_keys(self.database))
        self.journal = await Journal.start(
            self.database, self.ledger.changes, settings.database.synchronous
        )
        metering = Metering(settings, self.ledger, self.journal)
        self._chores = [
            loop.create_task(watch(self.database, _WATCH, self._take_over)),
            loop.create_task(self._sweep()),
            loop.create_task(PlanPoller(self.upstreams).run()),
        ]
        self.log = AccessLog(self._log_fd) if settings.log.access else None
        if self.log is not None:
            self.timers.each_tick(self.log.flush)
        shelf, sealing = await _kept(settings.responses, self.database)
        self._shelf = shelf
        self._chores.append(loop.create_task(self._prune()))
        routes = Routes(settings.model, made)
        gateway = Handler(
            Relay(
                self.callers,
                routes,
                metering,
                self.upstreams,
                self.sessions,
                settings.pool,
                self.timers,
                ResponsesReader(sealing, StoredResponses(shelf)),
                settings.server.limits.body,
            ),
            Models(settings.model),
            StoredResponses(shelf),
            self.callers,
            metering,
            self.log,
        )
        self.server = Server(gateway.handle, self.timers, _bounds(settings.server), gateway.refused)
        admin = Admin(
            self.upstreams,
            None if settings.pool.sticky == "off" else self.sessions,
            self.database,
            settings.database.path,
            settings.server.admin_listen.host,
        )
        self.admin = Server(admin.handle, self.timers)
        gateway.ready = lambda: routes.any and self.journal.healthy and not self.server.draining
        self.timers.start()
        try:
            await self._listen(tls)
            await self._listen_for_operator()
        except BaseException:
            await self.stop(0)
            raise

    async def _listen(self, tls: ssl.SSLContext | None) -> None:
        scheme = "https" if tls else "http"
        passed = _passed_sockets()
        for sock in passed:
            port = await self.server.listen(sock=sock, tls=tls)
            bound = config.Address.tcp(str(sock.getsockname()[0]), port) if port else "unix"
            self.addresses.append(f"{scheme}://{bound}" if port else "a Unix socket")
        if passed:
            return
        for text in self._settings.server.listen:
            shown = await _open(self.server, text, tls)
            self.addresses.append(str(shown) if shown.path else f"{scheme}://{shown}")

    async def _listen_for_operator(self) -> None:
        """The admin listener. A second relay on this machine, whose operator chose no address
        for it, does without: it can serve all the same."""
        text = self._settings.server.admin_listen
        if not text:
            return
        try:
            self.admin_address = str(await _open(self.admin, text))
        except OSError as error:
            if text != config.ServerSettings().admin_listen:
                raise
            self.without_admin = str(error)

    async def _pause_again(self) -> None:
        """What the operator paused stays so over a restart."""
        for name in await pauses.paused(self.database):
            upstream = self.upstreams.named(name)
            if upstream is not None:
                upstream.health.pause()

    async def stop(self, patience: float) -> None:
        """Let what is in flight finish, then end everything."""
        await self.server.drain(patience)
        await self.admin.drain(1.0)
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for upstream in self.upstreams:
            upstream.pool.close()
        self.timers.stop()
        if self.log is not None:
            self.log.close()
        await self.journal.close()
        await self.database.close()
        os.close(self._lock)

    def _take_over(self, keys: list[LiveKey]) -> None:
        """What the database now says of keys and credits is in force."""
        self.callers.replace(keys)
        for key in keys:
            self.ledger.fund(key.user_id, key.credited)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self.ledger.sweep(time.time())
            self.sessions.sweep(time.monotonic())

    async def _prune(self) -> None:
        while True:
            try:
                await prune(self.database, self._settings.database.retention_days, time.time())
                if self._shelf is not None:
                    await self._shelf.prune(time.time())
            except StoreError as error:
                _log.warning("what is old is not pruned for now: %s", error)
            await asyncio.sleep(_PRUNE)


def _only_one(path: str) -> int:
    """Keep a second server from this database: each would undo what the other has counted.

    Returns the descriptor that holds the lock; the kernel lets go of it with the process.

    Raises:
        OSError: another server has it.
    """
    real = os.path.realpath(path)  # whatever links lead there, it is one database
    folder = os.path.dirname(real)
    if not os.path.isdir(folder):
        raise OSError(f"database {path}: there is no folder {folder}")
    lock = os.open(f"{real}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OSError(f"another relay serves from the database {path}") from None
    return lock


def _upstreams(settings: Settings, timers: Deadlines) -> list[Upstream]:
    upstreams = []
    for index, upstream in enumerate(settings.upstream):
        try:
            upstream.proxy()
        except ValueError as error:
            raise ConfigError(f"upstream[{index}].egress", str(error)) from None
        try:
            upstreams.append(Upstream(upstream, settings, timers))
        except ValueError as error:
            raise ConfigError(f"upstream[{index}]", str(error)) from None
    return upstreams


async def _kept(
    settings: config.ResponsesSettings, database: Database
) -> tuple[ResponseStore | None, bytes]:
    """Where responses are kept, if they are, and the key that seals what callers carry.

    Raises:
        ConfigError: the operator's key cannot be had.
    """
    try:
        secret = settings.secret()
    except ValueError as error:
        raise ConfigError("responses.key", str(error)) from None
    if secret is None:
        sealing = await sealing_key(database)
    else:
        sealing = derived(secret, b"relay sealing")
    life = settings.keep.seconds
    if settings.store == "memory":
        return MemoryResponseStore(life, settings.memory), sealing
    if settings.store == "database":
        assert secret is not None  # the settings have been checked
        return DatabaseResponseStore(database, derived(secret, b"relay storing"), life), sealing
    return None, sealing


async def _open(
    server: Server, address: config.Address, tls: ssl.SSLContext | None = None
) -> config.Address:
    """Have a server listen; the address with the port that it got.

    Raises:
        OSError: it cannot; the text names the address.
    """
    try:
        port = await server.listen(address.host, address.port, path=address.path, tls=tls)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        raise OSError(f"cannot listen on {address}: {reason}") from None
    return address if address.path is not None else config.Address.tcp(address.host, port)


def _sessions(settings: config.PoolSettings) -> Sessions:
    # They are known even if nothing is to stay: whose thinking is in their history matters.
    return Sessions(settings.sticky.seconds or 1.0)


def _bounds(server: config.ServerSettings) -> Bounds:
    limits, times = server.limits, server.timeouts
    return Bounds(
        head=Limits(request_line=limits.request_line, head=limits.head, fields=limits.fields),
        body=limits.body,
        head_time=times.head,
        body_time=times.body,
        idle_time=times.idle,
        write_time=times.write,
    )


def _passed_sockets() -> list[socket.socket]:
    """The sockets that systemd listens on for this process (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    text = os.environ.get("LISTEN_FDS", "")
    if not text.isdigit():
        raise OSError(f"LISTEN_FDS is {text!r}, not a number of sockets")
    count = int(text)
    return [socket.socket(fileno=_PASSED_FROM + index) for index in range(count)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Signals:
    """SIGTERM and SIGINT from now on: the first one ends `wait`, the second one cuts."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.cut: Callable[[], None] = lambda: None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._asked.is_set():
            self.cut()
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()


def _tell_of_operator(app: App) -> None:
    """After the line that says where it listens, which whoever started it may wait for."""
    if app.without_admin:
        _log.warning(
            "%s; `relay upstreams` cannot ask this relay until it has a server.admin_listen of "
            "its own",
            app.without_admin,
        )
    for upstream in app.upstreams:
        if upstream.health.paused:
            _log.warning(
                "upstream %s is paused since before; `relay upstreams resume %s` ends that",
                upstream.name,
                upstream.name,
            )


def serve(settings: Settings) -> int:
    """Run the relay until a signal; the exit status."""

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def main() -> None:
        signals = _Signals()
        app = App(settings)
        await app.start()
        signals.cut = app.server.abort
        # What exists now lives as long as the process: keep the collector from walking it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)  # requests leave no cycles behind
        _say(f"relay {__version__} listens on {', '.join(app.addresses)}")
        _tell_of_operator(app)
        await signals.wait()
        await app.stop(settings.server.timeouts.drain)

    uvloop.run(main())
    return 0


def simulate(host: str, port: int) -> int:
    """Run the simulated upstream until a signal; the exit status."""
    from relay.simulator.app import Simulator

    async def main() -> None:
        signals = _Signals()
        timers = Deadlines(asyncio.get_running_loop())
        server = Server(Simulator().handle, timers)
        signals.cut = server.abort
        bound = await server.listen(host, port)
        timers.start()
        _say(f"relay simulate listens on http://{host}:{bound}")
        await signals.wait()
        await server.drain(1.0)
        timers.stop()

    uvloop.run(main())
    return 0


def demo(settings: Settings, port: int | None) -> int:
    """Run a simulated upstream, the relay and one key; nothing of it outlives the process."""
    from relay.simulator.app import Simulator

    async def main(folder: Path) -> None:
        signals = _Signals()
        timers = Deadlines(asyncio.get_running_loop())
        upstream = Server(Simulator().handle, timers)
        upstream_port = await upstream.listen()
        timers.start()
        here = _demo_settings(settings, folder, upstream_port, port)
        app = App(here)
        try:
            await app.start()
        except OSError:
            if port is not None:
                raise
            print(f"{here.server.listen[0]} is taken, so the demo takes another port.\n")
            here = _demo_settings(settings, folder, upstream_port, 0)
            app = App(here)
            await app.start()
        now = time.time()
        await users.create(app.database, here, _DEMO_USER, plan=None, is_admin=False, now=now)
        issued = await keys.create(app.database, here, _DEMO_USER, keys.KeyOptions("demo"), now=now)
        app.callers.replace(await live_keys(app.database))
        key = issued.key.reveal()
        url = app.addresses[0]
        print(_DEMO.format(url=url, key=key, model=here.model[0].id), flush=True)
        signals.cut = app.server.abort
        await signals.wait()
        await app.stop(5.0)
        await upstream.drain(0)
        timers.stop()

    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        uvloop.run(main(Path(folder)))
    return 0


_DEMO_USER = "demo@relay.example"
_DEMO_LIMITS = [
    config.LimitSettings(requests=3_000, per=config.Duration("5h")),
    config.LimitSettings(requests=15_000, per=config.Duration("7d")),
    config.LimitSettings(requests=600, per=config.Duration("1m")),
    config.LimitSettings(tokens=8_000_000, per=config.Duration("1m")),
]
_DEMO = """\
The relay runs at {url} with a simulated upstream behind it. Ctrl-C ends both.

Paste this into another terminal:

curl -N {url}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' -d '{{"model": "{model}", "max_tokens": 200, "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

Or, as OpenAI clients do:

curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'content-type: application/json' -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

curl -N {url}/v1/responses -H 'Authorization: Bearer {key}' -H 'content-type: application/json' -d '{{"model": "{model}", "stream": true, "input": "Hello!"}}'

Or let Claude Code or Codex CLI use it:

ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key} claude --model {model}

codex -c
'model_providers.relay={{name="Relay",base_url="{url}/v1",wire_api="responses",auth={{command="echo",args=["{key}"]}}}}' -c model_provider=relay -m {model}
"""  # noqa: E501 - the lines are to be pasted


def _demo_settings(
    settings: Settings, folder: Path, upstream_port: int, port: int | None
) -> Settings:
    simulated = config.UpstreamSettings(
        name="simulated", base_url=f"http://127.0.0.1:{upstream_port}", api_key="sim-key"
    )
    server = settings.server
    if port is not None:
        server = msgspec.structs.replace(server, listen=[config.Address.tcp("127.0.0.1", port)])
    models = [msgspec.structs.replace(model, routes=None) for model in settings.model] or [
        config.ModelSettings(id="claude-sonnet-4-7", display_name="Claude Sonnet 4.7")
    ]
    return msgspec.structs.replace(
        settings,
        server=msgspec.structs.replace(server, tls=None, admin_listen=config.AddressOrNone("")),
        database=config.DatabaseSettings(path=str(folder / "demo.db")),
        log=config.LogSettings(access=False),
        upstream=[simulated],
        model=models,
        plan=[config.PlanSettings(id="demo", name="Demo", limits=_DEMO_LIMITS)],
    )
