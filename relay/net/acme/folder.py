"""What is kept of an authority: the account and the certificates, in a folder beside the database.

One folder per directory, so that certificates for trials never serve in earnest. Files are for
their owner only, and appear complete or not at all. Decides names and modes. Must not know their
contents. All functions block and raise OSError.
"""

import contextlib
import hashlib
import os
import secrets
from typing import Final
from urllib.parse import urlsplit

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class AcmeFolder:
    """The files of one authority."""

    def __init__(self, database: str, directory: str) -> None:
        digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
        name = f"{urlsplit(directory).hostname}-{digest}"
        self.path = os.path.join(os.path.realpath(database) + ".acme", name)

    @property
    def account_key(self) -> str:
        return os.path.join(self.path, "account.key")

    @property
    def account_url(self) -> str:
        return os.path.join(self.path, "account.url")

    @property
    def proof(self) -> str:
        """The answer to the challenge of the order that is under way."""
        return os.path.join(self.path, ".challenge")

    def certificate(self, domain: str) -> str:
        """The file of a domain's key and chain: one file, so that they always fit."""
        return os.path.join(self.path, f"{domain}.pem")

    def scratch(self) -> str:
        """A name for a file that is removed at once."""
        return os.path.join(self.path, f".{secrets.token_hex(8)}.new")

    def open_lock(self) -> int:
        """The descriptor of the file that an order locks."""
        self._make()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        return os.open(os.path.join(self.path, ".lock"), flags, _FILE_MODE)

    def read(self, path: str) -> bytes | None:
        """The content of one of the files; None: there is none."""
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Write one of the files: complete, on the disk, or not at all."""
        self._make()
        new = self.scratch()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(new)
            raise
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _make(self) -> None:
        os.makedirs(os.path.dirname(self.path), _FOLDER_MODE, exist_ok=True)
        os.makedirs(self.path, _FOLDER_MODE, exist_ok=True)

    def remove(self, path: str) -> None:
        """Remove one of the files, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
