"""The token of an admin listener on TCP: a file beside the database that its owner alone reads.

On a Unix socket the file system keeps others out. A TCP port is open to every user and service of
the machine, so a request there carries the token. It is new at each start.
"""

import contextlib
import os
import secrets

from relay.store.database import StoreError

_MODE = 0o600


def token_path(database: str) -> str:
    """The token's file, for the path of a database with links resolved."""
    return os.path.realpath(database) + ".admin-token"


def write_token(database: str) -> str:
    """Make a new token and write its file; returns the token.

    Raises:
        StoreError: the file cannot be written.
    """
    path = token_path(database)
    token = secrets.token_urlsafe(32)
    new = f"{path}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(new)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
        os.replace(new, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    return token


def read_token(database: str) -> str | None:
    """The token of the relay that serves from a database; None: there is none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open(token_path(database), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None
