"""Reads relay.toml again while the relay serves, and exchanges all settings in one step.

Decides which settings can be exchanged and which need a restart, and the words for what changed. A
file that is wrong changes nothing. Must not know signals, or how a part uses its settings.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from relay import config
from relay.app import App
from relay.config import ConfigError, Settings
from relay.errors import INVALID_REQUEST, RelayError
from relay.pool.setup import UpstreamSetup, read_setups
from relay.quota.plans import compile_plans
from relay.store import audit, pauses
from relay.store.database import StoreError
from relay.store.executor import ThreadExecutor
from relay.telemetry.access_log import AccessLog

_log = logging.getLogger("relay")

# Sections and settings that are read at the start alone.
_RESTART: Final = (
    ("server", "listen"),
    ("server", "admin_listen"),
    ("server", "redirect_listen"),
    ("server", "workers"),
    ("database", "path"),
    ("database", "synchronous"),
    ("ledger", "url"),
    ("ledger", "on_outage"),
    ("ledger", "node"),
)
_NAMED: Final = {"upstream": "name", "model": "id", "plan": "id", "vendor": "name"}
_MAX_SHOWN_CHARACTERS: Final = 200  # of a value
_OPERATOR: Final = audit.Actor("operator", "relay.toml")

LogFormat: TypeAlias = Literal["json", "text"]


class Report(msgspec.Struct, frozen=True):
    """What a reload did: one line for each setting."""

    changed: list[str]
    restart: list[str]  # changed in the file, in force only after a restart


@dataclass(frozen=True, slots=True)
class _Reading:
    """All that a reload reads from files."""

    written: Settings  # as the file has them
    settings: Settings  # with the present values of what needs a restart
    setups: list[UpstreamSetup]
    text: str  # of relay.toml
    log: AccessLog | None  # the present one, unless its settings have changed


class Reloader:
    """Exchanges the settings of a running relay. `path` is that of its relay.toml; `log_format`
    replaces that of the file."""

    def __init__(self, app: App, path: str, log_format: LogFormat | None = None) -> None:
        self._app = app
        self.path = path
        self._log_format = log_format
        self._lock = asyncio.Lock()
        self.reloaded_at = 0.0  # epoch seconds
        # Called with the text of relay.toml once it is in force.
        self.on_reload: Callable[[str], None] | None = None

    async def reload(self, actor: audit.Actor = _OPERATOR) -> Report:
        """Read the file again and exchange the settings.

        Raises:
            ConfigError: the file or one that it names cannot be used; nothing has changed.
        """
        async with self._lock:
            reading = await self._read()
            try:
                report = await self._exchange(reading)
            finally:
                if reading.log is not None and reading.log is not self._app.log:
                    reading.log.close()  # it has no lines
        self.reloaded_at = time.time()
        if self.on_reload is not None:
            self.on_reload(reading.text)
        if report.changed:
            await self._record(report, actor)
        for line in report.changed:
            _log.warning("reload: %s", line)
        for line in report.restart:
            _log.warning("reload: %s needs a restart", line)
        if not report.changed and not report.restart:
            _log.warning("reload: nothing has changed")
        return report

    async def adopt(self, text: str) -> None:
        """Use the settings that another process of this relay has in force, which has recorded it.

        Raises:
            ConfigError: see `reload`.
        """
        async with self._lock:
            reading = await self._read(text)
            try:
                await self._exchange(reading)
            finally:
                if reading.log is not None and reading.log is not self._app.log:
                    reading.log.close()

    async def compare(self, text: str | None = None) -> Report:
        """What `reload` would do now, or with another text in the file. Raises ConfigError: see
        `reload`."""
        async with self._lock:
            reading = await self._read(text)
            if reading.log is not None and reading.log is not self._app.log:
                reading.log.close()
            return self._report(reading)

    async def _record(self, report: Report, actor: audit.Actor) -> None:
        after = {"changed": report.changed}
        change = audit.Change("settings.reload", "relay.toml", None, after)
        try:
            await audit.note(self._app.database.by(actor), time.time(), change)
        except StoreError as error:
            _log.error("reload: the audit log has no entry of it: %s", error)

    async def answer(self) -> object:
        """`POST /reload` of the admin listener. Raises RelayError: 400, see `reload`."""
        try:
            return msgspec.to_builtins(await self.reload())
        except ConfigError as error:
            message = f"{self.words(error)}; the settings in force stay"
            raise RelayError(INVALID_REQUEST, message) from None

    async def on_signal(self) -> None:
        """Reload at SIGHUP: an error goes to the log."""
        try:
            await self.reload()
        except ConfigError as error:
            _log.error("reload refused: %s; the settings in force stay", self.words(error))
        except Exception:
            _log.exception("reload failed; the settings in force stay")

    def words(self, error: Exception) -> str:
        """An error as one line, with the file that it is in."""
        in_file = isinstance(error, ConfigError) and error.path
        return f"{self.path}: {error}" if in_file else str(error)

    async def _read(self, text: str | None = None) -> _Reading:
        """Read all files on a thread: none may hold the loop. `text` stands for relay.toml's."""
        before = {one.name: one.setup for one in self._app.upstreams}
        last = self._app.settings

        def read() -> _Reading:
            content = config.read_text(self.path) if text is None else text
            file = config.load_text(content, self.path)
            written = with_log_format(file, self._log_format)
            settings = kept_until_restart(written, last)
            compile_plans(settings.plan)
            setups = read_setups(settings, before)
            is_same = settings.log == last.log
            log = self._app.log if is_same else self._app.open_log(settings.log)
            return _Reading(written, settings, setups, content, log)

        thread = ThreadExecutor("reload")
        try:
            return await thread.call(read)
        finally:
            await thread.close()

    async def _exchange(self, reading: _Reading) -> Report:
        app, settings = self._app, reading.settings
        report = self._report(reading)
        try:
            paused = set(await pauses.paused(app.database))
        except StoreError:  # those that are paused stay so; a new one is not
            paused = set()
        if app.certificates is not None:  # first: of all that may be wrong, this alone waits
            await app.certificates.reload(settings)
        app.exchange(settings, reading.setups, paused)
        app.exchange_log(reading.log)
        return report

    def _report(self, reading: _Reading) -> Report:
        """What these settings change, before they are exchanged."""
        settings = reading.settings
        setups = {one.name: one.setup for one in self._app.upstreams}
        changed = list(differences(self._app.settings, settings))
        for setup in reading.setups:
            before = setups.get(setup.settings.name)
            if before is not None:
                place = f"upstream[{setup.settings.name}]"
                changed += [
                    f"{place}.{name}: has a new value" for name in setup.new_secrets(before)
                ]
        restart = list(differences(settings, reading.written))
        return Report(changed, restart)


def kept_until_restart(settings: Settings, last: Settings) -> Settings:
    """New settings, with the present values of those that a running relay cannot exchange."""
    replace = msgspec.structs.replace
    kept: dict[str, dict[str, Any]] = {}
    for section, name in _RESTART:
        kept.setdefault(section, {})[name] = getattr(getattr(last, section), name)
    server = replace(settings.server, **kept["server"])
    acme = settings.acme
    if _protocol(server) != _protocol(last.server):  # a listener keeps its protocol
        server = replace(server, tls=last.server.tls, domains=last.server.domains)
        acme = last.acme
    if server.proxy_protocol != last.server.proxy_protocol:
        server = replace(
            server,
            proxy_protocol=last.server.proxy_protocol,
            trusted_proxies=last.server.trusted_proxies,
        )
    return replace(
        settings,
        server=server,
        database=replace(settings.database, **kept["database"]),
        ledger=replace(settings.ledger, **kept["ledger"]),
        responses=last.responses,
        acme=acme,
    )


def _protocol(server: config.ServerSettings) -> str:
    """How callers are served: in clear, with certificates of files, or of an authority."""
    return "clear" if server.tls is None else "auto" if server.tls == "auto" else "files"


def with_log_format(settings: Settings, log_format: LogFormat | None) -> Settings:
    """The settings with another form of the access log; None: their own."""
    if log_format is None:
        return settings
    replace = msgspec.structs.replace
    return replace(settings, log=replace(settings.log, format=log_format))


# --- what changed ---


def differences(last: Settings, settings: Settings) -> Iterator[str]:
    """Each setting that differs, as `pool.wait: 30.0 → 5.0`. Secrets are masked."""
    yield from _compare(
        (config.effective(last, _plain), config.effective(settings, _plain)),
        (config.effective(last), config.effective(settings)),
        "",
    )


def _plain(secret: str) -> str:
    return secret


def _compare(plain: tuple[Any, Any], shown: tuple[Any, Any], path: str) -> Iterator[str]:
    """`plain` are the values before and after, `shown` the same with secrets masked."""
    if plain[0] == plain[1]:
        return
    if isinstance(plain[0], dict) and isinstance(plain[1], dict):
        for name in dict.fromkeys([*plain[0], *plain[1]]):
            inner = f"{path}.{name}" if path else name
            if path == "" and name in _NAMED:
                key = _NAMED[name]
                yield from _compare_named(
                    _by_name(plain, name, key), _by_name(shown, name, key), name
                )
            else:
                yield from _compare(_at(plain, name), _at(shown, name), inner)
        return
    before, after = _short(shown[0]), _short(shown[1])
    yield f"{path}: has a new value" if before == after else f"{path}: {before} → {after}"


def _compare_named(
    plain: tuple[dict[str, Any], dict[str, Any]],
    shown: tuple[dict[str, Any], dict[str, Any]],
    section: str,
) -> Iterator[str]:
    """Compare lists of tables by the tables' names."""
    for name in dict.fromkeys([*plain[0], *plain[1]]):
        place = f"{section}[{name}]"
        if name not in plain[1]:
            yield f"{place}: removed"
        elif name not in plain[0]:
            yield f"{place}: added"
        else:
            yield from _compare(_at(plain, name), _at(shown, name), place)


def _by_name(
    trees: tuple[Any, Any], section: str, key: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    before, after = ({table[key]: table for table in tree[section]} for tree in trees)
    return before, after


def _at(values: tuple[Any, Any], name: str) -> tuple[Any, Any]:
    return values[0].get(name), values[1].get(name)


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return text[:_MAX_SHOWN_CHARACTERS] + "…"
