"""Writes to a descriptor from a thread that may wait for its reader.

Must not know what is written.
"""

import os
import select


def write_all(descriptor: int, octets: bytes) -> None:
    """Write all of it, and wait as long as that takes. Raises OSError."""
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # another process that shares it has made it non-blocking
            select.select([], [descriptor], [])
