"""Writes to a descriptor from a thread that may wait for its reader.

Must not know what is written.
"""

import os
import select


class WriteError(OSError):
    """A write that failed; `written` octets are there."""

    def __init__(self, error: OSError, written: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.written = written


def write_all(descriptor: int, octets: bytes) -> None:
    """Write all of it, and wait as long as that takes.

    Raises:
        WriteError: not all could be written.
    """
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # another process that shares it has made it non-blocking
            select.select([], [descriptor], [])
        except OSError as error:
            raise WriteError(error, len(octets) - len(rest)) from None
