"""The machine: files that others may read, disk, descriptors, the kernel's queue, cores.

Decides which values are too low. Opens the database's folder, never the database.
"""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay import config
from relay.cli.admin_client import call
from relay.cli.doctor.findings import Finding, fault, passed, warning
from relay.cli.program import Failure
from relay.net.descriptors import UNLIMITED, descriptor_limits

_GIB: Final = 2**30
_LOW_DISK: Final = 1 * _GIB
_FULL_DISK: Final = 100 * 2**20
_FEW_DESCRIPTORS: Final = 4096
_ENOUGH_DESCRIPTORS: Final = 524288  # as in the unit of `relay service install`
_MIN_QUEUE: Final = 1024  # as the relay's listeners ask for
_CERTIFICATE_DAYS: Final = 21


def examine(settings: config.Settings, path: str) -> Iterator[Finding]:
    """All findings; `path` is the settings file."""
    yield from _permissions(settings, Path(path))
    yield from _folder(settings)
    yield from _disk(settings)
    yield from _descriptors(settings)
    yield from _queue()
    yield from _processes(settings)
    for pair in config.certificate_files(settings.server.tls):
        yield from _certificate(pair.cert)


def _permissions(settings: config.Settings, path: Path) -> Iterator[Finding]:
    secrets = any(not one.api_key.startswith(("env:", "file:")) for one in settings.upstream)
    database = Path(settings.database.path)
    files = {path: secrets, database: True, database.with_name(database.name + "-wal"): True}
    for one in settings.upstream:
        if one.api_key.startswith("file:"):
            files[Path(one.api_key[5:])] = True
    for pair in config.certificate_files(settings.server.tls):
        files[Path(pair.key)] = True
    for file, is_secret in files.items():
        try:
            mode = file.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            yield fault("permissions", f"{file}: {error.strerror}", "run this as the relay's user")
            continue
        if is_secret and mode & (stat.S_IROTH | stat.S_IWOTH):
            yield fault(
                "permissions", f"every user of this machine may read or write {file}",
                f"chmod o-rwx {file}",
            )  # fmt: skip
        else:
            yield passed("permissions", f"{file} {stat.filemode(mode)}")


def _folder(settings: config.Settings) -> Iterator[Finding]:
    folder = os.path.dirname(os.path.realpath(settings.database.path))
    if not os.path.isdir(folder):
        yield fault("database", f"there is no folder {folder}", f"mkdir -p {folder}")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield fault(
            "database", f"{folder} cannot be written", "run this as the relay's user, or chown it"
        )
    else:
        yield passed("database", f"{folder} can be written")


def _disk(settings: config.Settings) -> Iterator[Finding]:
    folder = os.path.dirname(os.path.realpath(settings.database.path))
    try:
        disk = os.statvfs(folder)
    except OSError:
        return
    free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail
    found = f"{free / _GIB:.1f} GiB free on the database's disk"
    if free < _FULL_DISK or (disk.f_files and inodes < 100):
        yield fault("disk", found, "free some space: without it new requests get a 503")
    elif free < _LOW_DISK:
        yield warning("disk", found, "free some space, or lower database.retention_days")
    else:
        yield passed("disk", found)


def _descriptors(settings: config.Settings) -> Iterator[Finding]:
    """The limits of the running relay, or of this shell without one."""
    try:
        status = call(settings, "GET", "/status")
        soft, hard = status["descriptor_limits"]
        whose = "the running relay"
    except (Failure, KeyError):  # none runs, or an older one
        soft, hard = descriptor_limits()
        soft = hard  # the relay raises it
        whose = "a process of this shell"
    found = f"{whose} may have {_shown(soft)} files open, {_shown(hard)} at most"
    if min(soft, hard) < _FEW_DESCRIPTORS:
        yield warning(
            "descriptors", found,
            f"write LimitNOFILE={_ENOUGH_DESCRIPTORS} below [Service] (`systemctl edit relay`), or "
            "raise `ulimit -Hn`, and restart the relay",
        )  # fmt: skip
    else:
        yield passed("descriptors", found)


def _shown(limit: float) -> str:
    return "any number of" if limit >= UNLIMITED else str(limit)


def _queue() -> Iterator[Finding]:
    try:
        queue = int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return
    if queue < _MIN_QUEUE:
        yield warning(
            "somaxconn", f"the kernel queues {queue} connections",
            f"sysctl -w net.core.somaxconn={_MIN_QUEUE}",
        )  # fmt: skip
    else:
        yield passed("somaxconn", f"the kernel queues {queue} connections")


def _processes(settings: config.Settings) -> Iterator[Finding]:
    number, cores = settings.server.processes, len(os.sched_getaffinity(0))
    if number > cores:
        yield warning(
            "workers", f"server.workers is {number}, with {cores} {_cores(cores)} to run on",
            'write server.workers = "auto": more processes than cores only take turns',
        )  # fmt: skip
    elif number > 1:
        yield passed(
            "workers", f"server.workers lets {number} processes serve, on {cores} {_cores(cores)}"
        )


def _cores(number: int) -> str:
    return "core" if number == 1 else "cores"


def _certificate(path: str) -> Iterator[Finding]:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        yield fault("certificate", f"{path}: {error}", "name a PEM file in server.tls.cert")
        return
    days = (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400
    if days < 0:
        yield fault("certificate", f"{path} ended {-days:.0f} days ago", "renew it")
    elif days < _CERTIFICATE_DAYS:
        yield warning("certificate", f"{path} ends in {days:.0f} days", "renew it")
    else:
        yield passed("certificate", f"{path} is valid for {days:.0f} days")
