"""The states that alerts are about, read from the running relay.

Decides which state is a fault. Files and disks are read on a thread. Must not know receivers.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from relay import clock
from relay.alerts.rules import Condition
from relay.config import AlertingSettings, Settings, certificate_files
from relay.pool import clock as pool_clock
from relay.pool.leases import Upstreams
from relay.store.journal import Journal
from relay.store.scheduled_backup import Backups

Expiries = Callable[[], Iterable[tuple[str, float]]]  # names and the epoch seconds of their ends


class Sources:
    """Reads all states. `read` is for the loop, `read_blocking` for a thread."""

    def __init__(
        self,
        settings: Settings,
        upstreams: Upstreams,
        journal: Journal,
        backups: Backups,
        expiries: Expiries | None = None,
    ) -> None:
        """`expiries`: the certificates in use, called on a thread; None: those of the files in
        `server.tls`. It may be replaced later."""
        self._settings = settings
        self._upstreams = upstreams
        self._journal = journal
        self._backups = backups
        self.expiries = expiries or (lambda: file_expiries(settings))

    def read(self) -> list[Condition]:
        """The states that are in memory."""
        alerting = self._settings.alerting
        found: list[Condition] = []
        now = pool_clock.now()
        for upstream in self._upstreams:
            found += upstream_conditions(
                upstream.name, upstream.health.view(now), upstream.quota_left, alerting
            )
        journal, backups = self._journal, self._backups
        clear = alerting.recovered.seconds
        found.append(
            Condition("journal", "journal", not journal.healthy, journal.failure, 2.0, clear)
        )
        if self._settings.backup.every.seconds:
            found.append(Condition("backup", "backup", bool(backups.failure), backups.failure))
        return found

    def read_blocking(self) -> list[Condition]:
        """The states that may wait for a disk. Raises nothing."""
        return [*self._disks(), *self._certificates()]

    def _disks(self) -> Iterator[Condition]:
        alerting = self._settings.alerting
        folders = [os.path.dirname(os.path.abspath(self._settings.database.path))]
        if self._settings.backup.every.seconds and os.path.isdir(self._settings.backup.path):
            folders.append(self._settings.backup.path)
        devices = set()
        for folder in folders:
            try:
                device = os.stat(folder).st_dev
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            if device in devices:
                continue
            devices.add(device)
            share = usage.free / usage.total if usage.total else 1.0
            yield Condition(
                "disk",
                folder,
                # In between nothing changes: a file that comes and goes is no news.
                None if alerting.disk <= share < alerting.disk * 1.1 else share < alerting.disk,
                f"{usage.free:,} of {usage.total:,} bytes are free ({share:.1%}).",
            )

    def _certificates(self) -> Iterator[Condition]:
        now = time.time()
        margin = self._settings.alerting.certificate.seconds
        try:
            expiries = list(self.expiries())
        except (OSError, ValueError):  # `relay check` names it
            return
        for name, ends_at in expiries:
            ended = "ended" if ends_at <= now else "ends"
            text = f"It {ended} on {clock.rfc3339(ends_at).split('.')[0]}Z."
            yield Condition("certificate", name, ends_at - now < margin, text)


def upstream_conditions(
    name: str, view: dict[str, object], left: int | None, alerting: AlertingSettings
) -> Iterator[Condition]:
    """The states of one upstream; `view` is that of its health, `left` the rest of its plan.

    While it is paused, or is tried again, neither its failures nor its cooldown are over.
    """
    state, why = str(view["state"]), str(view["why"])
    unknown = state in ("paused", "probing")
    clear = alerting.recovered.seconds
    until = view["until"]
    ends = f" It says: until {until}." if until and state == "cooling" else ""
    down = None if unknown else state == "down"
    cooling = None if unknown else state == "cooling"
    yield Condition("upstream", name, down, why, alerting.down.seconds, clear)
    yield Condition("cooling", name, cooling, why + "." + ends, alerting.cooling.seconds, clear)
    threshold = alerting.plan.get(name)
    if threshold is not None:
        low = None if left is None else left < threshold
        yield Condition("plan", name, low, f"{left:,} left." if left is not None else "", 0, clear)


def file_expiries(settings: Settings) -> list[tuple[str, float]]:
    """The ends of the certificates in `server.tls`. Raises OSError, ValueError."""
    files = [pair.cert for pair in certificate_files(settings.server.tls)]
    if not files:
        return []
    from cryptography import x509

    found = []
    for file in files:
        certificate = x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
        found.append((file, certificate.not_valid_after_utc.timestamp()))
    return found
