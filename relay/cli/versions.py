"""Versions of the relay side by side in one folder, and the links to those in use.

    versions/0.2.0/      one version: a virtual environment, or relay.pyz and its cache
    versions/0.2.0/bin/relay    the command, whichever it is
    current              a link to the one in use; the service starts `current/bin/relay`
    previous             a link to the one before

Decides how a package becomes a version. Must not know databases or running relays.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from relay.cli.program import Failure

ARCHIVE: Final = "relay.pyz"
_DIGEST_LETTERS: Final = 8
# A version runs its own code, from its own cache.
_NOT_INHERITED: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "RELAY_CACHE"})


def installed(package: str, place: Path, *, with_cluster: bool = False) -> Path:
    """Install a package, and see that it runs; returns its folder.

    `package`: a file whose name ends in .pyz, or what pip installs. `with_cluster`: with what the
    package needs to share a ledger, if it is pip's.

    Raises:
        Failure: it cannot be installed, or does not run.
    """
    versions = place / "versions"
    new = versions / f".new-{os.getpid()}"
    os.umask(0o022)  # the service's user reads them
    try:
        versions.mkdir(parents=True, exist_ok=True)
        if package.endswith(".pyz"):
            return _install_archive(Path(package), new, _python(place))
        return _install_by_pip(package, new, with_cluster=with_cluster)
    except OSError as error:
        raise Failure(f"relay: {error.filename or versions}: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def probe(version: Path) -> tuple[str, int]:
    """The number of a version, and the schema that it knows. Raises Failure: it does not run."""
    try:
        number, schema = json.loads(_run(str(version / "bin" / "relay"), "schema"))
    except ValueError:
        raise Failure(f"relay: {version} is no version of the relay") from None
    return str(number), int(schema)


def link_target(link: Path) -> Path | None:
    """The version that a link leads to, if there is one."""
    return link.parent / os.readlink(link) if link.is_symlink() else None


def relink(link: Path, target: Path | None) -> None:
    """Let a link lead elsewhere, in one step; None: nowhere."""
    if target is None:
        link.unlink(missing_ok=True)
        return
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)


def _settled(new: Path) -> Path:
    """Give a new version its name; one that is there already stays.

    The name is its number; another build of the same number (compiled, for one) has a part of its
    digest as well.
    """
    number, _ = probe(new)
    target = new.with_name(number)
    digest = _digest(new)
    if target.exists() and _digest(target) != digest:
        target = new.with_name(f"{number}-{digest[:_DIGEST_LETTERS]}")
    if not target.exists():
        new.rename(target)
    return target


def _digest(version: Path) -> str:
    """Of the archive, or of the relay's own files in an environment."""
    archive = version / ARCHIVE
    if archive.exists():
        return hashlib.sha256(archive.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for packages in version.glob("lib/python*/site-packages"):
        for file in sorted((*packages.glob("relay/**/*"), *packages.glob("relay__mypyc*"))):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(packages)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


# --- relay.pyz ---


def _install_archive(archive: Path, new: Path, python: str) -> Path:
    """A version of relay.pyz. It unpacks itself into `cache`, which no service can write."""
    (new / "bin").mkdir(parents=True)
    (new / "cache").mkdir()
    shutil.copyfile(archive, new / ARCHIVE)
    (new / ARCHIVE).chmod(0o755)
    command = new / "bin" / "relay"
    # Started by the link `current`, it runs the archive by that link, too: the name is kept, and
    # a process that is to start the next version finds that one there.
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(python)} "${{0%/bin/relay}}/{ARCHIVE}" "$@"\n'
    )
    command.chmod(0o755)
    _run(str(command), "--version")
    subprocess.run(  # noqa: S603
        [python, "-m", "compileall", "-q", str(new / "cache")], check=False, capture_output=True
    )
    return _settled(new)


def _python(place: Path) -> str:
    """The Python that runs this, or the one beneath, where it belongs to a version."""
    own = Path(sys.executable)
    is_ours = own.is_relative_to(place.absolute())
    return str(getattr(sys, "_base_executable", own)) if is_ours else str(own)


# --- virtual environments ---


def _install_by_pip(package: str, new: Path, *, with_cluster: bool) -> Path:
    _run(sys.executable, "-m", "venv", str(new))
    pip = [str(new / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run(*pip, package)
    if with_cluster:
        _run(*pip, "relay[cluster]")  # it is there, so pip adds only what it lacks
    _write_venv_command(new)
    target = _settled(new)
    _write_venv_command(target)  # its first line has the folder's name
    return target


def _write_venv_command(environment: Path) -> None:
    path = environment / "bin" / "relay"
    path.write_text(
        f"#!{environment / 'bin' / 'python'}\nimport sys\n\n"
        "from relay.cli.program import main\n\nsys.exit(main())\n"
    )
    path.chmod(0o755)


def _run(*command: str) -> str:
    """Run a command. Raises Failure: it fails; the message is its last line."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise Failure(f"relay: {' '.join(command[:4])}: {lines[-1]}")
    return done.stdout
