"""`relay upgrade` and `relay rollback`: versions side by side, and the link to the one in use.

    versions/0.2.0/      a virtual environment for each version
    current              a link to the one in use; the service starts `current/bin/relay`
    previous             a link to the one before
    saved/               the database as it was before each upgrade

Decides the order: install, save the database, switch the link, let the running relay hand over; and
back again if the new version does not serve. Must not know how a relay hands over.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from relay import config
from relay.cli.admin_client import call
from relay.cli.program import Failure, config_option, load_settings

FOLDER: Final = "/opt/relay"
_HANDOVER_SECONDS: Final = 90.0
_PROBE: Final = (
    "import relay, json; from relay.store.database import migrations;"
    "print(json.dumps([relay.__version__, len(migrations())]))"
)
_folder_option = click.option(
    "--folder", metavar="DIR", default=FOLDER, show_default=True, help="Where the versions are."
)


@click.command()
@click.argument("package", default="relay")
@_folder_option
@config_option
def upgrade(package: str, folder: str) -> None:
    """Install PACKAGE, a wheel or a name with a version for the package index, and switch to it.

    The database is saved first. The running relay hands over to the new version without cutting a
    stream; if that one does not serve within 10 seconds, the old one goes on.
    """
    settings = load_settings()
    place = Path(folder)
    version, _ = _installed(package, place)
    if _version_of(place / "current") == version:
        click.echo(f"relay {version} is in use already.")
        return
    saved = _save(settings, place, version)
    if saved:
        click.echo(f"The database is saved in {saved}.")
    before = _link_target(place / "current")
    _link(place / "current", place / "versions" / version)
    running = _hand_over(settings, lambda: _relink(place / "current", before))
    if before is not None:
        _link(place / "previous", before)
    click.echo(f"relay {version} {'serves' if running else 'is installed; none is running'}.")


@click.command()
@_folder_option
@config_option
def rollback(folder: str) -> None:
    """Go back to the version before the latest upgrade.

    The database stays as it is, if that version reads it. Otherwise the relay must be stopped, and
    the database saved at the upgrade is put in place: what was used since is lost, and kept beside.
    """
    settings = load_settings()
    place = Path(folder)
    before, now = _link_target(place / "previous"), _link_target(place / "current")
    if before is None or now is None:
        raise Failure(f"relay: there is no version to go back to in {place}")
    version, schema = _probe(before)
    present = _schema_of(settings.database.path)
    if present > schema:
        _restore(settings, place, now.name, schema)
    _link(place / "current", before)
    running = _hand_over(settings, lambda: _relink(place / "current", now))
    _link(place / "previous", now)
    click.echo(f"relay {version} {'serves' if running else 'is in use; none is running'}.")


# --- versions ---


def _installed(package: str, place: Path) -> tuple[str, int]:
    """Install a package into a folder of its own; returns its version and its database's schema.

    Raises:
        Failure: it cannot be installed, or does not run.
    """
    versions = place / "versions"
    new = versions / f".new-{os.getpid()}"
    try:
        versions.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", str(new))
        _run(str(new / "bin" / "python"), "-m", "pip", "install", "--quiet", package)
        _write_command(new)
        version, schema = _probe(new)
        target = versions / version
        if target.exists():
            shutil.rmtree(new)
        else:
            new.rename(target)
            _write_command(target)  # its first line has the folder's name
    except OSError as error:
        raise Failure(f"relay: {error.filename or versions}: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return version, schema


def _write_command(environment: Path) -> None:
    """The command `relay` of a virtual environment."""
    path = environment / "bin" / "relay"
    path.write_text(
        f"#!{environment / 'bin' / 'python'}\nimport sys\n\n"
        "from relay.cli.program import main\n\nsys.exit(main())\n"
    )
    path.chmod(0o755)


def _run(*command: str) -> str:
    """Run a command. Raises Failure: it fails; the message is its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise Failure(f"relay: {' '.join(command[1:4])}: {lines[-1]}")
    return done.stdout


def _probe(environment: Path) -> tuple[str, int]:
    """The version in a virtual environment, and the schema that it knows. Raises Failure."""
    import json

    version, schema = json.loads(_run(str(environment / "bin" / "python"), "-I", "-c", _PROBE))
    return str(version), int(schema)


def _version_of(link: Path) -> str | None:
    target = _link_target(link)
    return None if target is None else target.name


def _link_target(link: Path) -> Path | None:
    return link.parent / os.readlink(link) if link.is_symlink() else None


def _link(link: Path, target: Path) -> None:
    """Let a link lead elsewhere, in one step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)


def _relink(link: Path, target: Path | None) -> None:
    if target is None:
        link.unlink(missing_ok=True)
    else:
        _link(link, target)


# --- the database and the running relay ---


def _save(settings: config.Settings, place: Path, version: str) -> Path | None:
    """Save the database before `version` uses it; None: there is none yet. Raises Failure."""
    from relay.store.backup import backup
    from relay.store.database import StoreError

    path = Path(settings.database.path)
    if not path.exists():
        return None
    target = place / "saved" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{version}.db"
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        backup(path, target)
    except (StoreError, OSError) as error:
        raise Failure(f"relay: the database cannot be saved, nothing is changed: {error}") from None
    return target


def _schema_of(database: str) -> int:
    """The schema of a database; 0 if there is none."""
    from relay.store.database import schema_of

    return schema_of(database)


def _restore(settings: config.Settings, place: Path, version: str, schema: int) -> None:
    """Put the database in place that was saved before `version`. Raises Failure."""
    saved = sorted((place / "saved").glob(f"*-{version}.db"))
    if not saved or _schema_of(str(saved[-1])) > schema:
        raise Failure(
            f"relay: the database is newer than the earlier version reads (schema {schema}), and "
            f"no older one is saved in {place / 'saved'}; nothing is changed"
        )
    if _is_running(settings):
        raise Failure(
            f"relay: the database is newer than the earlier version reads (schema {schema}). Stop "
            f"the relay, then repeat this: {saved[-1]} is put in its place, and what was used "
            "since is lost; nothing is changed yet"
        )
    path = Path(settings.database.path)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(path.with_name(f"{path.name}.newer-{stamp}{suffix}"))
    shutil.copy2(saved[-1], path)
    click.echo(f"{saved[-1]} is in place; the newer database is {path}.newer-{stamp}.")


def _is_running(settings: config.Settings) -> bool:
    from relay.process import lock_database

    try:
        os.close(lock_database(settings.database.path))
    except OSError:
        return True
    return False


def _hand_over(settings: config.Settings, undo: Any) -> bool:
    """Let the running relay hand over; False if none is running.

    Raises:
        Failure: the new process does not serve; `undo` was called.
    """
    if not _is_running(settings):
        return False
    try:
        call(settings)
        call(settings, "POST", "/handover", _HANDOVER_SECONDS)
    except Failure:
        undo()
        raise
    return True
