"""`relay upgrade` and `relay rollback`: switches between versions that stand side by side.

Decides the order: install, save the database (in `saved/`), switch the link, let the running relay
hand over; and back again if the new version does not serve. Must not know how a version is
installed (`cli.versions`), or how a relay hands over.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from relay import __version__, config
from relay.cli.admin_client import call
from relay.cli.program import Failure, Misuse, config_option, load_settings
from relay.cli.versions import ARCHIVE, installed, link_target, probe, relink

FOLDER: Final = "/opt/relay"
_HANDOVER_SECONDS: Final = 90.0
_folder_option = click.option(
    "--folder", metavar="DIR", default=FOLDER, show_default=True, help="Where the versions are."
)


@click.command(hidden=True)
def schema() -> None:
    """Print the version and the schema that it knows, for another version's `relay upgrade`."""
    from relay.store.database import migrations

    click.echo(json.dumps([__version__, len(migrations())]))


@click.command()
@click.argument("package", required=False)
@_folder_option
@config_option
def upgrade(package: str | None, folder: str) -> None:
    """Install PACKAGE and switch to it: a relay.pyz, a wheel, or a name for the package index.

    The database is saved first. The running relay hands over to the new version without cutting a
    stream; if that one does not serve within 10 seconds, the old one goes on. The client of
    PostgreSQL comes along if this version has it, or [ledger] is set.
    """
    settings = load_settings()
    place = Path(folder)
    before = link_target(place / "current")
    if package is None and before is not None and (before / ARCHIVE).exists():
        raise Misuse(f"relay: name the new {ARCHIVE}, or run install.sh again, which fetches it")
    with_cluster = bool(settings.ledger.url) or find_spec("psycopg") is not None
    new = installed(package or "relay", place, with_cluster=with_cluster)
    version = probe(new)[0]
    if before is not None and before.name == new.name:
        click.echo(f"relay {version} is in use already.")
        return
    saved = _save(settings, place, new.name)
    if saved:
        click.echo(f"The database is saved in {saved}.")
    relink(place / "current", new)
    serving = _hand_over(settings, lambda: relink(place / "current", before))
    if before is not None:
        relink(place / "previous", before)
    _check_serving(serving, new, place)
    click.echo(f"relay {version} {'serves' if serving else 'is installed; none is running'}.")


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
    before, now = link_target(place / "previous"), link_target(place / "current")
    if before is None or now is None:
        raise Failure(f"relay: there is no version to go back to in {place}")
    version, known = probe(before)
    if _schema_of(settings.database.path) > known:
        _restore(settings, place, now.name, known)
    relink(place / "current", before)
    serving = _hand_over(settings, lambda: relink(place / "current", now))
    relink(place / "previous", now)
    _check_serving(serving, before, place)
    click.echo(f"relay {version} {'serves' if serving else 'is in use; none is running'}.")


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

    lock = os.path.realpath(settings.database.path) + ".lock"
    if not os.path.exists(lock):  # it would be made by this user, and shut out the service's
        return False
    try:
        os.close(lock_database(settings.database.path))
    except OSError:
        return True
    return False


def _hand_over(settings: config.Settings, undo: Callable[[], None]) -> str:
    """Let the running relay hand over; returns the program of the one that serves now, "" if none
    is running.

    Raises:
        Failure: the new process does not serve; `undo` was called.
    """
    if not _is_running(settings):
        return ""
    try:
        call(settings)
        answer = call(settings, "POST", "/handover", _HANDOVER_SECONDS)
    except Failure:
        undo()
        raise
    return str(answer["program"])


def _check_serving(program: str, version: Path, place: Path) -> None:
    """Raises Failure: a relay serves that is not this version's."""
    if program and not Path(program).is_relative_to(version.resolve()):
        raise Failure(
            f"relay: {version.name} is in place, but {program} serves: that relay was not started "
            f"by {place / 'current/bin/relay'}. Restart its service, which has to start that one"
        )
