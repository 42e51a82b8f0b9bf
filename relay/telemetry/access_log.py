"""The access log: one JSON line a request, written in batches off the loop's thread.

A line is plain data by the time it comes here: no key, no prompt, no answer. If whoever
reads standard output stalls, lines are dropped and counted rather than held without bound.
"""

import logging
import os
import queue
import threading
from typing import Final

import msgspec

_log = logging.getLogger("relay.telemetry")
_encode = msgspec.json.Encoder().encode
_BATCHES: Final = 64  # waiting to be written; at four a second, 16 s of a stalled reader


class AccessLog:
    """Collects lines; `flush` (called each tick) hands them to the writing thread.

    `dropped` counts what could not be written; the first time, the operator is told why.
    """

    def __init__(self, fd: int = 1) -> None:
        self.dropped = 0
        self._fd = fd
        self._lines: list[bytes] = []
        self._batches: queue.Queue[bytes | None] = queue.Queue(_BATCHES)
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def line(self, entry: msgspec.Struct) -> None:
        """Add a line."""
        self._lines.append(_encode(entry))

    def flush(self) -> None:
        """Hand over what has been collected."""
        if self._lines:
            self._lines.append(b"")
            batch = b"\n".join(self._lines)
            try:
                self._batches.put_nowait(batch)
            except queue.Full:
                self._drop(len(self._lines) - 1, "its reader stalls")
            self._lines.clear()

    def close(self) -> None:
        """Write what is left; waits a second at most."""
        self.flush()
        try:
            self._batches.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=1)

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                view = memoryview(batch)
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                self._drop(batch.count(b"\n"), error.strerror or "it cannot be written")

    def _drop(self, lines: int, reason: str) -> None:
        if not self.dropped:
            _log.warning("lines of the access log are lost: %s", reason)
        self.dropped += lines
