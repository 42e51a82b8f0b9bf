"""`relay service`: installs the relay as a service of systemd, shows it, removes it.

Decides where files are written and which systemctl commands follow. The units are those of
`relay.systemd`.
"""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from relay.cli.check import check_references
from relay.cli.program import Failure, Misuse, config_option, config_path, load_settings
from relay.systemd import NAME, REDIRECT_UNIT, Install, UnitError, units

_FOLDER: Final = "etc/systemd/system"
_BOOTED: Final = Path("/run/systemd/system")  # sd_booted(3)
_UPGRADABLE: Final = Path("/opt/relay/current/bin/relay")
_root_option = click.option(
    "--root", metavar="DIR", help="Write below DIR, and start nothing; for an image."
)


@click.group()
@config_option
def service() -> None:
    """The relay as a service of systemd."""


@service.command()
@click.option(
    "--user",
    metavar="NAME",
    default="",
    help=f"Run as this user.  [default: {NAME}, if there is one here, else a dynamic one]",
)
@click.option("--program", metavar="PATH", help="The command that runs the relay.")
@click.option("--dry-run", is_flag=True, help="Print the units, write nothing.")
@_root_option
@config_option
def install(user: str, program: str | None, dry_run: bool, root: str | None) -> None:
    """Write the socket and the service of systemd, and start them."""
    settings = load_settings()
    path = os.path.abspath(config_path())
    if not user and root is None:
        user = _user_here()
    try:
        files = units(settings, Install((program,) if program else _own_program(), path, user))
    except UnitError as error:
        raise Misuse(f"{config_path()}: {error}") from None
    if dry_run:
        for name, text in files.items():
            click.echo(f"# /{_FOLDER}/{name}\n{text}")
        return
    if root is None:
        _require_systemd()
        check_references(settings)
        if not user and not os.stat(path).st_mode & 0o004:
            raise Failure(
                f"relay: {path}: the service's own user cannot read it; let others read it, with "
                "its secrets in files or variables, or install with --user NAME"
            )
    folder = Path(root or "/") / _FOLDER
    is_new = [name for name in files if not (folder / name).exists()]
    if root is None and REDIRECT_UNIT not in files and (folder / REDIRECT_UNIT).exists():
        _systemctl("disable", "--now", REDIRECT_UNIT)  # of an earlier relay.toml
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        if REDIRECT_UNIT not in files:
            (folder / REDIRECT_UNIT).unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"relay: {folder}: {error.strerror}") from None
    for name in files:
        click.echo(f"{folder / name} is written.")
    if root is None:
        _start(list(files), is_new)


@service.command()
@_root_option
@config_option
def status(root: str | None) -> None:
    """Show whether the service is installed and runs."""
    folder = Path(root or "/") / _FOLDER
    missing = [name for name in _names() if not (folder / name).exists()]
    if missing:
        raise Failure(f"relay: not installed: there is no {folder / missing[0]}")
    click.echo(f"Installed in {folder}.")
    if root is None:
        _require_systemd()
        for name in _names():
            shown = _systemctl("show", "--property=ActiveState,StatusText", "--value", name)
            click.echo(f"{name}: {' '.join(shown.split())}")


@service.command()
@_root_option
@config_option
def uninstall(root: str | None) -> None:
    """Stop the service and remove its units. The database and relay.toml stay."""
    folder = Path(root or "/") / _FOLDER
    found = [name for name in (*_names(), REDIRECT_UNIT) if (folder / name).exists()]
    if not found:
        raise Failure(f"relay: not installed: there is no unit in {folder}")
    if root is None:
        _require_systemd()
        _systemctl("disable", "--now", *found)
    for name in found:
        try:
            (folder / name).unlink()
        except OSError as error:
            raise Failure(f"relay: {folder / name}: {error.strerror}") from None
        click.echo(f"{folder / name} is removed.")
    if root is None:
        _systemctl("daemon-reload")


def _start(files: list[str], is_new: list[str]) -> None:
    """Enable and start the units. systemd opens no further socket of a service that runs."""
    _systemctl("daemon-reload")
    state = _systemctl("show", "--property=ActiveState", "--value", f"{NAME}.service").strip()
    _systemctl("enable", *files)
    _systemctl("start", *_names())  # the service starts its other socket, if it can
    click.echo("The service runs, and starts with the machine.")
    if state == "active" and REDIRECT_UNIT in is_new:
        click.echo(
            f"Its ports of {REDIRECT_UNIT} are opened by the next `systemctl restart {NAME}`."
        )


def _user_here() -> str:
    """The user that install.sh makes, if it has. systemd would take it in place of a dynamic one
    of that name, but with the folders of a dynamic one."""
    try:
        return pwd.getpwnam(NAME).pw_name
    except KeyError:
        return ""


def _names() -> tuple[str, str]:
    return f"{NAME}.socket", f"{NAME}.service"


def _own_program() -> tuple[str, ...]:
    """The command that runs this relay; the installed one, where there is one to be upgraded."""
    if _UPGRADABLE.exists():
        return (str(_UPGRADABLE),)
    own = Path(sys.argv[0])
    if own.name == "__main__.py":
        return sys.executable, "-m", "relay"
    return (str(own.absolute()),)


def _require_systemd() -> None:
    """Raises Failure: systemd does not run this machine."""
    if not _BOOTED.is_dir() or shutil.which("systemctl") is None:
        raise Failure(
            "relay: systemd does not run this machine, so there is no service to act on; "
            "--dry-run prints the units, --root DIR writes them below a folder"
        )


def _systemctl(*arguments: str) -> str:
    """Run systemctl. Raises Failure: it fails; the message is its own."""
    done = subprocess.run(  # noqa: S603
        ["systemctl", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"relay: systemctl {arguments[0]}: {done.stderr.strip() or 'failed'}")
    return done.stdout
