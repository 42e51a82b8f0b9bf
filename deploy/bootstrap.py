"""The first code of relay.pyz: unpacks it once into a cache folder, and runs it from there.

Native modules cannot be imported from a zip file. Decides where the cache is, which of the files
this Python needs, and that no other user can change them. Written for any Python 3, so that an old
one gets a message and no syntax error. (shiv would do the same, but keeps its cache in the home
folder, which a service's user often has not, and holds native modules of one Python version only.)
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile

MIN_PYTHON = (3, 11)
_STALE_SECONDS = 30 * 86400  # after which the cache of another build is deleted
_OTHER_PYTHON = re.compile(r"\.cpython-(\d+)-")
# relay's own compiled modules, which it also runs without.
_COMPILED = re.compile(r"relay(__mypyc|/.*)\.cpython-[^/]*\.so$")


def main(archive):
    # type: (str) -> None
    """Unpack `archive` if need be, then run `relay`."""
    if sys.version_info < MIN_PYTHON:
        _fail("needs Python 3.11 or newer; this is {}.{}".format(*sys.version_info[:2]))
    with zipfile.ZipFile(archive) as packed:
        build = packed.read("BUILD").decode().split()
        name, platform, versions = build[0], build[1], build[2:]
        here = "{}.{}".format(*sys.version_info[:2])
        if sys.implementation.name != "cpython" or here not in versions:
            _fail(
                "has no modules for {} {}; it runs on CPython {}".format(
                    sys.implementation.name, here, ", ".join(versions)
                )
            )
        if sys.platform != "linux" or os.uname().machine != platform:
            _fail(
                "is for Linux on {}; this is {} on {}".format(
                    platform, sys.platform, os.uname().machine
                )
            )
        folder = _unpacked(packed, archive, "{}-{}".format(name, here))
    sys.path[0] = folder  # in the place of the archive
    from relay.cli import main as command

    command(prog_name="relay")


def _fail(why):
    # type: (str) -> None
    sys.stderr.write("relay: this relay.pyz {}\n".format(why))
    sys.exit(1)


def _candidates(archive):
    # type: (str) -> list[str]
    """Folders for caches, best first. RELAY_CACHE is the operator's word, and the only one then."""
    chosen = os.environ.get("RELAY_CACHE")
    if chosen:
        return [chosen]
    beside = os.path.join(os.path.dirname(os.path.realpath(archive)), "cache")
    found = [
        beside if os.path.isdir(beside) else "",  # made by install.sh
        os.environ.get("CACHE_DIRECTORY", "").split(":")[0],  # systemd's CacheDirectory=
        os.environ.get("XDG_CACHE_HOME") and os.path.join(os.environ["XDG_CACHE_HOME"], "relay"),
    ]
    home = os.path.expanduser("~")
    if home not in ("~", "/", "/nonexistent"):
        found.append(os.path.join(home, ".cache", "relay"))
    found.append(os.path.join(tempfile.gettempdir(), "relay-{}".format(os.getuid())))
    return [folder for folder in found if folder]


def _unpacked(packed, archive, name):
    # type: (zipfile.ZipFile, str, str) -> str
    """The folder with the files; unpacked by this call if they are not there."""
    failures = []
    for base in _candidates(archive):
        try:
            os.makedirs(base, mode=0o700, exist_ok=True)
            _check_owner(base)
            folder = os.path.join(base, name)
            if not os.path.isdir(folder):
                _unpack(packed, base, folder)
            _check_owner(folder)
            _delete_stale(base, name)
            return folder
        except (OSError, ValueError) as error:
            failures.append("{}: {}".format(base, getattr(error, "strerror", None) or error))
    _fail("finds no folder to unpack into ({}); set RELAY_CACHE".format("; ".join(failures)))
    raise AssertionError


def _check_owner(folder):
    # type: (str) -> None
    """Raises ValueError: another user could change the code there before it runs."""
    found = os.stat(folder)
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError("other users can write there")


def _unpack(packed, base, folder):
    # type: (zipfile.ZipFile, str, str) -> None
    work = tempfile.mkdtemp(prefix=".unpacking-", dir=base)
    try:
        tag = "{}{}".format(*sys.version_info[:2])
        for entry in packed.infolist():
            match = _OTHER_PYTHON.search(entry.filename)
            if entry.filename.startswith("lib/") and (match is None or match.group(1) == tag):
                target = os.path.join(work, entry.filename[4:])
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with packed.open(entry) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
        _delete_unloadable(work)
        os.chmod(work, 0o755)
        try:
            os.rename(work, folder)
        except OSError:
            if not os.path.isdir(folder):  # not unpacked by another process meanwhile
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _delete_unloadable(work):
    # type: (str) -> None
    """Where relay's compiled modules do not load (an older C library, a lesser processor), delete
    them: the same modules are there uncompiled."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import relay__mypyc"
    if any(_COMPILED.match(name) for name in os.listdir(work)):
        with open(os.devnull, "wb") as nowhere:
            loads = subprocess.call([sys.executable, "-c", code, work], stderr=nowhere) == 0  # noqa: S603
        if not loads:
            for folder, _, names in os.walk(work):
                for name in names:
                    path = os.path.join(folder, name)
                    if _COMPILED.match(os.path.relpath(path, work)):
                        os.remove(path)


def _delete_stale(base, name):
    # type: (str, str) -> None
    """Mark this build as in use, and delete others that have not been for long."""
    try:
        os.utime(os.path.join(base, name))
    except OSError:  # unpacked by root, used by the service's user
        return
    for other in os.listdir(base):
        path = os.path.join(base, other)
        if other != name and re.match(r"relay-|\.unpacking-", other) and os.path.isdir(path):
            if time.time() - os.stat(path).st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[0])
