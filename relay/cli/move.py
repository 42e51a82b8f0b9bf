"""`relay move`: an install to one file, and an install from it.

Decides where the passphrase comes from, and the output. The parts of an install are in
`relay.transfer.install`.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from relay import config
from relay.cli.output import print_json, print_stderr, timestamp
from relay.cli.program import (
    Failure,
    Misuse,
    config_option,
    config_path,
    json_option,
    load_settings,
)

if TYPE_CHECKING:
    from relay.transfer.install import Manifest

_MIN_PASSPHRASE_CHARACTERS: Final = 8
_passphrase_option = click.option(
    "--passphrase-file", metavar="PATH", help="Read the passphrase from this file."
)


@click.group()
@config_option
def move() -> None:
    """Move everything of this install to another machine, in one file."""


@move.command("export")
@click.argument("file")
@_passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Write the file unencrypted.")
@config_option
@json_option
def move_export(file: str, passphrase_file: str | None, no_passphrase: bool, as_json: bool) -> None:
    """Write relay.toml, the database and every file that relay.toml names to FILE.

    A server may run meanwhile; stop it first if nothing may be lost.
    """
    load_settings()  # its errors are shown as everywhere
    if no_passphrase and passphrase_file:
        raise Misuse("relay: --no-passphrase and --passphrase-file exclude each other")
    passphrase = None if no_passphrase else _passphrase(passphrase_file, new=True)
    from relay.transfer.install import export_install

    target = Path(file)
    with _errors():
        manifest = export_install(Path(config_path()), target, passphrase, time.time())
    size = target.stat().st_size
    if passphrase is None:
        print_stderr(
            f"relay: warning: {file} is not encrypted and holds every secret of this install; "
            "only its owner can read it: keep it so"
        )
    if as_json:
        print_json({"path": file, "bytes": size, **_view(manifest)})
        return
    click.echo(f"This install is in {file} ({size:,} bytes): {_names(manifest)}.")
    _show_environment(manifest)
    click.echo(f"On the new machine: relay move import {target.name} --to FOLDER")


@move.command("import")
@click.argument("file")
@click.option("--to", "folder", metavar="FOLDER", default=".", help="An empty folder.")
@click.option("--dry-run", is_flag=True, help="Test the file, and write nothing.")
@_passphrase_option
@config_option
@json_option
def move_import(
    file: str, folder: str, dry_run: bool, passphrase_file: str | None, as_json: bool
) -> None:
    """Make an install in an empty FOLDER from FILE, which `relay move export` wrote."""
    from relay.transfer.install import import_install, is_sealed

    with _errors():
        passphrase = _passphrase(passphrase_file) if is_sealed(Path(file)) else None
        manifest, contents = import_install(Path(file), Path(folder), passphrase, dry_run=dry_run)
    for name in manifest.environment:
        if name not in os.environ:
            print_stderr(f"relay: warning: relay.toml needs the environment variable {name}")
    settings_file = str(Path(folder) / "relay.toml")
    if as_json:
        print_json(
            {
                "imported": not dry_run,
                "config": settings_file,
                "accounts": contents.accounts,
                "keys": contents.keys,
                **_view(manifest),
            }
        )
        return
    click.echo(
        f"{file} was written on {timestamp(manifest.created)} by relay {manifest.relay}: "
        f"{_names(manifest)}; {contents.accounts:,} accounts, {contents.keys:,} keys."
    )
    if dry_run:
        click.echo("It can be imported; nothing was written.")
        return
    click.echo(f"The install is in {folder}. Check it: relay check --config {settings_file}")


def _view(manifest: "Manifest") -> dict[str, object]:
    return {
        "relay": manifest.relay,
        "created": timestamp(manifest.created),
        "folder": manifest.folder,
        "files": [member.name for member in manifest.members],
        "environment": manifest.environment,
    }


def _names(manifest: "Manifest") -> str:
    return ", ".join(member.name for member in manifest.members)


def _show_environment(manifest: "Manifest") -> None:
    if manifest.environment:
        click.echo(f"Not in it, set them there: {', '.join(manifest.environment)}.")


def _passphrase(file: str | None, *, new: bool = False) -> str:
    """Raises Misuse: there is none, or a new one is too short."""
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise Misuse(f"relay: --passphrase-file: cannot read {file}: {reason}") from None
    elif sys.stdin.isatty():
        text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    else:
        plain = ", or --no-passphrase" if new else ""
        raise Misuse(
            f"relay: there is no terminal to ask for a passphrase; give --passphrase-file{plain}"
        )
    if new and len(text) < _MIN_PASSPHRASE_CHARACTERS:
        raise Misuse(f"relay: a passphrase has at least {_MIN_PASSPHRASE_CHARACTERS} characters")
    return text


@contextmanager
def _errors() -> Iterator[None]:
    from relay.store.database import StoreError
    from relay.transfer import TransferError

    try:
        yield
    except (StoreError, TransferError, config.ConfigError) as error:
        raise Failure(f"relay: {error}") from None
