"""Writes to a descriptor from a thread that may wait for its reader.

Decides in what pieces. Must not know what is written, but that lines end with a line feed.
"""

import os
import select
import stat
from typing import Final

_PIECE_OCTETS: Final = select.PIPE_BUF  # what a pipe takes as one piece


class WriteError(OSError):
    """A write that failed; `written` octets are there."""

    def __init__(self, error: OSError, written: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.written = written


def write_all(descriptor: int, octets: bytes) -> None:
    """Write all of it, and wait as long as that takes. Lines stay whole where other processes
    write to the same pipe or socket, if none has more than 4 KiB.

    Raises:
        WriteError: not all could be written.
    """
    view, written = memoryview(octets), 0
    try:
        mode = os.fstat(descriptor).st_mode
        in_pieces = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        while written < len(octets):
            end = _piece_end(octets, written) if in_pieces else len(octets)
            try:
                written += os.write(descriptor, view[written:end])
            except BlockingIOError:  # another process that shares it has made it non-blocking
                poller = select.poll()  # unlike `select`, it takes any descriptor
                poller.register(descriptor, select.POLLOUT)
                poller.poll()
    except OSError as error:
        raise WriteError(error, written) from None


def _piece_end(octets: bytes, start: int) -> int:
    """Where the lines from `start` end that fit in one piece, or the first, if it does not."""
    limit = start + _PIECE_OCTETS
    if limit >= len(octets):
        return len(octets)
    end = octets.rfind(b"\n", start, limit) + 1
    return end or octets.find(b"\n", start) + 1 or len(octets)
