"""Everything of an install in one file, and an install from such a file.

Decides the parts of an install: relay.toml, the database, the files that relay.toml names, and
the folders beside the database. The file is a tar archive whose first member lists the others;
with a passphrase it is encrypted. Nothing is written over: the new install's folder is empty.
"""

import asyncio
import hashlib
import io
import os
import secrets
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Final, cast

import msgspec

from relay import __version__, config
from relay.store.backup import backup
from relay.store.restore import Contents, discard, prepare
from relay.transfer import TransferError, references
from relay.transfer.sealed import MAGIC, SealedReader, SealedWriter

_FORMAT: Final = 1
_DATABASE: Final = "relay.db"
_SETTINGS: Final = "relay.toml"
_SECRETS: Final = "secrets"
_BESIDE: Final = (".certificates", ".acme")  # folders beside the database, after its name
_MAX_MANIFEST_OCTETS: Final = 4 * 1024 * 1024
_BLOCK_OCTETS: Final = 1024 * 1024


class Member(msgspec.Struct, frozen=True):
    """A file of the install, by its name in the new folder."""

    name: str
    octets: int
    sha256: str
    original: str = ""  # its name in the old relay.toml; "": not named there


class Manifest(msgspec.Struct, frozen=True):
    """The contents of an archive."""

    format: int
    relay: str  # the version that wrote it
    created: float  # epoch seconds
    folder: str  # of the old install
    database: str  # its name in the old relay.toml
    environment: list[str]  # variables that relay.toml names; they are not in the archive
    members: list[Member]


def export_install(
    settings_file: Path, target: Path, passphrase: str | None, now: float
) -> Manifest:
    """Write the install of `settings_file` to `target`, which must not exist; mode 0600.

    A server may run meanwhile.

    Raises:
        TransferError: a file of the install cannot be read, or the archive cannot be written.
        ConfigError, StoreError: the settings or the database cannot be used.
    """
    settings = config.load(settings_file)
    text = settings_file.read_bytes()
    tree = tomllib.loads(text.decode())
    if os.path.lexists(target):
        raise TransferError(f"{target} exists; choose another name, or move it away")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    snapshot = partial.with_name(partial.name + ".db")
    try:
        backup(settings.database.path, snapshot)
        found = _files_of_install(settings_file, settings, tree)
        found = {_SETTINGS: (settings_file, ""), **found, _DATABASE: (snapshot, "")}
        manifest = Manifest(
            format=_FORMAT,
            relay=__version__,
            created=now,
            folder=str(settings_file.resolve().parent),
            database=tree.get("database", {}).get("path", _DATABASE),
            environment=references.environment(tree),
            members=[_member(name, file, original) for name, (file, original) in found.items()],
        )
        with open(partial, "xb", opener=_private) as file:
            _write(file, passphrase, manifest, [file for file, _ in found.values()])
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, target)
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else str(target)
        raise TransferError(f"{name}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
        snapshot.unlink(missing_ok=True)
    return manifest


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _files_of_install(
    settings_file: Path, settings: config.Settings, tree: dict[str, Any]
) -> dict[str, tuple[Path, str]]:
    """Name in the new folder → the file, and its name in relay.toml."""
    folder = settings_file.resolve().parent
    found: dict[str, tuple[Path, str]] = {}
    names: dict[str, str] = {}
    for setting, original in references.files(tree).items():
        file = folder / original
        if original in names:
            continue
        if not file.is_file():
            raise TransferError(f"{setting}: there is no file {file}")
        name = f"{_SECRETS}/{file.name}"
        while name in found:  # another file of the same name
            name = f"{_SECRETS}/{secrets.token_hex(2)}-{file.name}"
        names[original] = name
        found[name] = (file, original)
    for suffix in _BESIDE:
        beside = Path(settings.database.path + suffix)
        for file in sorted(beside.rglob("*")) if beside.is_dir() else ():
            if file.is_file():
                inner = file.relative_to(beside).as_posix()
                found[f"{_DATABASE}{suffix}/{inner}"] = (file, "")
    return found


def _member(name: str, file: Path, original: str) -> Member:
    digest = hashlib.sha256()
    octets = 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK_OCTETS):
            digest.update(block)
            octets += len(block)
    return Member(name, octets, digest.hexdigest(), original)


def _write(
    file: BinaryIO, passphrase: str | None, manifest: Manifest, contents: list[Path]
) -> None:
    writer = None if passphrase is None else SealedWriter(file, passphrase)
    sink = cast(IO[bytes], writer or file)
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "manifest.json", io.BytesIO(msgspec.json.encode(manifest)), None)
        for member, path in zip(manifest.members, contents, strict=True):
            with path.open("rb") as content:
                _add(archive, member.name, content, member.octets)
    if writer is not None:
        writer.close()


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], octets: int | None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o600
    entry.size = len(content.getvalue()) if isinstance(content, io.BytesIO) else octets or 0
    archive.addfile(entry, content)


def is_sealed(archive: Path) -> bool:
    """Whether the archive needs a passphrase.

    Raises:
        TransferError: it cannot be read.
    """
    try:
        with archive.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise TransferError(f"{archive}: {error.strerror}") from None


def import_install(
    archive: Path, folder: Path, passphrase: str | None, *, dry_run: bool
) -> tuple[Manifest, Contents]:
    """Make an install in `folder`, which is empty or missing; `dry_run`: test it, keep nothing.

    Raises:
        TransferError: the archive is damaged or not one, or the folder is not empty.
        ConfigError, StoreError: its settings or its database cannot be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TransferError(f"{folder} is not empty; choose an empty folder")
    try:
        with _work_folder(None if dry_run else folder) as work:
            manifest = _extract(archive, work, passphrase)
            _rewrite_settings(work, manifest)
            settings = config.load(work / _SETTINGS)
            if Path(settings.database.path) != work / _DATABASE:
                raise TransferError("relay.toml of the export: database.path is not as it was")
            copy, contents = asyncio.run(prepare(work / _DATABASE, work / _DATABASE))
            copy.replace(work / _DATABASE)
            discard(copy)
            if not dry_run:
                _publish(work, folder)
            return manifest, contents
    except OSError as error:
        raise TransferError(f"{error.filename or folder}: {error.strerror}") from None


@contextmanager
def _work_folder(folder: Path | None) -> Iterator[Path]:
    """A folder that is removed with its contents; within `folder`, to be on its disk."""
    created = folder is not None and not folder.exists()
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".relay-move-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if created and folder is not None and not any(folder.iterdir()):
            folder.rmdir()


def _publish(work: Path, folder: Path) -> None:
    """Move everything up; relay.toml last, since a relay.toml makes an install."""
    for entry in sorted(work.iterdir(), key=lambda entry: entry.name == _SETTINGS):
        entry.rename(folder / entry.name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _extract(archive: Path, work: Path, passphrase: str | None) -> Manifest:
    not_one = TransferError(f"{archive}: is no export of an install, or is damaged")
    with archive.open("rb") as file:
        source: Any = file
        if passphrase is not None:
            file.seek(len(MAGIC))
            source = SealedReader(file, passphrase)
        try:
            with tarfile.open(fileobj=source, mode="r|") as members:
                first = members.next()
                manifest = _manifest(members, first)
                for member in manifest.members:
                    _extract_member(members, member, work)
        except (tarfile.TarError, msgspec.MsgspecError, EOFError):
            raise not_one from None
    present = {member.name for member in manifest.members}
    if not {_SETTINGS, _DATABASE} <= present:
        raise not_one
    return manifest


def _manifest(members: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Manifest:
    if entry is None or entry.name != "manifest.json" or entry.size > _MAX_MANIFEST_OCTETS:
        raise tarfile.TarError
    content = members.extractfile(entry)
    if content is None:
        raise tarfile.TarError
    octets = content.read()
    version = msgspec.json.decode(octets, type=dict[str, Any]).get("format")
    if version != _FORMAT:
        raise TransferError(
            f"this export has format {version}, and this relay reads {_FORMAT}; install the "
            "version that wrote it"
        )
    return msgspec.json.decode(octets, type=Manifest)


def _extract_member(members: tarfile.TarFile, member: Member, work: Path) -> None:
    entry = members.next()
    name = PurePosixPath(member.name)
    unsafe = name.is_absolute() or ".." in name.parts
    if entry is None or entry.name != member.name or not entry.isreg() or unsafe:
        raise tarfile.TarError
    content = members.extractfile(entry)
    if content is None:
        raise tarfile.TarError
    target = work / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(target, "xb", opener=_private) as file:
        while block := content.read(_BLOCK_OCTETS):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != member.sha256:
        raise tarfile.TarError


def _rewrite_settings(work: Path, manifest: Manifest) -> None:
    names = {member.original: member.name for member in manifest.members if member.original}
    names[manifest.database] = _DATABASE
    file = work / _SETTINGS
    try:
        text = references.renamed(file.read_bytes().decode(), names)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TransferError(f"relay.toml of the export: {error}") from None
    file.write_text(text, encoding="utf-8")
