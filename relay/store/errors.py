"""Failures of the database, for all modules of the store.

Decides the text that an operator reads when the file cannot be used.
"""

import sqlite3
from pathlib import Path
from typing import Final

LOCK_TIMEOUT_SECONDS: Final = 10.0  # for another process's transaction to end


class StoreError(Exception):
    """The database cannot be used; the message is one line for the operator."""


class BusyError(StoreError):
    """Another connection is writing; try again in a moment."""


def failure_of(error: sqlite3.Error) -> type[StoreError]:
    """The kind of failure that an error is."""
    return BusyError if is_busy(error) else StoreError


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is writing."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


_REASONS: Final = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database, or is damaged; restore a backup",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore a backup",
    sqlite3.SQLITE_READONLY: "cannot be written; the file and its folder must be writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; the file and its folder must be writable",
    sqlite3.SQLITE_BUSY: f"another process has held it locked for {LOCK_TIMEOUT_SECONDS:.0f} s",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
}


def describe_error(path: Path, error: sqlite3.Error) -> str:
    """SQLite's error as a line for the operator."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # of an extended code, the primary one
    return f"database {path}: {_REASONS.get(code) or error}"
