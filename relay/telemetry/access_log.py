"""The access log: one JSON line a request, written in batches by a thread of its own.

Decides when lines are written, and when they are dropped. Must not know what is in them: a line is
plain data when it comes here, without keys, prompts or answers. If the reader of standard output
stalls, lines are dropped and counted, so that memory stays bounded.
"""

import logging
import queue
import threading
import time
from typing import Final

import msgspec

from relay.telemetry.output import write_all

_log = logging.getLogger("relay.telemetry")
_encode: Final = msgspec.json.Encoder().encode
_MAX_BATCHES: Final = 64  # waiting to be written; at four a second, 16 s of a stalled reader
_CLOSE_TIMEOUT_SECONDS: Final = 1.0


class AccessLog:
    """Collects lines; `flush` hands them to the writing thread.

    `dropped` counts the lines that could not be written. The first drop is logged with its reason.
    """

    def __init__(self, fd: int = 1) -> None:
        self.dropped = 0
        self._fd = fd
        self._lines: list[bytes] = []
        self._batches: queue.Queue[bytes | None] = queue.Queue(_MAX_BATCHES)
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def line(self, entry: msgspec.Struct) -> None:
        """Add a line."""
        self._lines.append(_encode(entry))

    def flush(self) -> None:
        """Hand over the lines collected so far. Called at every tick of the deadlines."""
        if self._lines:
            self._lines.append(b"")
            batch = b"\n".join(self._lines)
            try:
                self._batches.put_nowait(batch)
            except queue.Full:
                self._drop(len(self._lines) - 1, "its reader stalls")
            self._lines.clear()

    def drain(self, timeout: float) -> bool:
        """Flush, and block until every line is written or dropped; False if `timeout` seconds
        were not enough."""
        self.flush()
        deadline = time.monotonic() + timeout
        with self._batches.all_tasks_done:
            while self._batches.unfinished_tasks:
                if not self._batches.all_tasks_done.wait(deadline - time.monotonic()):
                    return False
        return True

    def close(self) -> None:
        """Write the rest; waits a second at most for each of two steps."""
        self.flush()
        try:
            self._batches.put(None, timeout=_CLOSE_TIMEOUT_SECONDS)
        except queue.Full:
            return
        self._thread.join(timeout=_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        for batch in iter(self._batches.get, None):
            try:
                write_all(self._fd, batch)
            except OSError as error:
                self._drop(batch.count(b"\n"), error.strerror or "it cannot be written")
            self._batches.task_done()
        self._batches.task_done()  # of the None that ends it

    def _drop(self, lines: int, reason: str) -> None:
        if not self.dropped:
            _log.warning("lines of the access log are lost: %s", reason)
        self.dropped += lines
