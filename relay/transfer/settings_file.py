"""relay.toml as a file that an administrator's page changes.

Decides how it is replaced: complete or not at all, with its owner and mode, and only while it is as
it was read. Blocks, so it runs on a thread.
"""

import os
import tempfile
import threading
from pathlib import Path
from typing import Final

from relay.transfer import TransferError

_replacing: Final = threading.Lock()  # two pages must not both find the text of before


class ChangedMeanwhileError(TransferError):
    """The file is not what it was when the change was prepared."""


class NotWritableError(TransferError):
    """The relay may not replace the file."""


def read(path: Path) -> str:
    """The text of the file. Raises TransferError: it cannot be read."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise TransferError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TransferError(f"{path} is not UTF-8") from None


def is_writable(path: Path) -> bool:
    """Whether `replace` would probably do."""
    target = path.resolve()
    return os.access(target, os.W_OK) and os.access(target.parent, os.W_OK | os.X_OK)


def replace(path: Path, text: str, before: str) -> None:
    """Write the file anew.

    Raises:
        ChangedMeanwhileError: its text is no longer `before`.
        NotWritableError: see there.
    """
    target = path.resolve()  # a link stays one
    with _replacing:
        if read(target) != before:
            raise ChangedMeanwhileError(f"{path} has changed meanwhile")
        try:
            _replace(target, text)
        except OSError as error:
            raise NotWritableError(f"{path}: {error.strerror}") from None


def _replace(target: Path, text: str) -> None:
    present = target.stat()
    descriptor, name = tempfile.mkstemp(prefix=".relay-toml-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            if (present.st_uid, present.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), present.st_uid, present.st_gid)
            os.fchmod(file.fileno(), present.st_mode & 0o777)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
