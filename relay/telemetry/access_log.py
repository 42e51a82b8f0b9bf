"""The access log: one JSON line a request, written in batches by a thread of its own.

Decides when lines are written, and when they are dropped. Must not know what is in them: a line is
plain data when it comes here, without keys, prompts or answers. If the reader of standard output
stalls, lines are dropped and counted, so that memory stays bounded. A file is opened again when
its name may have gone to an older log (`reopen`, for logrotate).
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from relay.telemetry.output import WriteError, write_all

_log = logging.getLogger("relay.telemetry")
_encode: Final = msgspec.json.Encoder().encode
_MAX_BATCHES: Final = 64  # waiting to be written; at four a second, 16 s of a stalled reader
_CLOSE_TIMEOUT_SECONDS: Final = 1.0
_REOPEN: Final = b"reopen"  # in the place of a batch, which ends with a line end
_FILE_MODE: Final = 0o640

Render = Callable[[Any], bytes]
"""One record as a line, without its end."""


def open_log(path: str) -> int:
    """Open a log's file, to append; returns its descriptor. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


class AccessLog:
    """Collects lines; `flush` hands them to the writing thread.

    `dropped` counts the lines that could not be written. The first drop is logged with its reason.
    """

    def __init__(self, fd: int = 1, path: str = "", render: Render = _encode) -> None:
        """`path` is the file that `fd` was opened from; empty: none."""
        self.dropped = 0
        self._fd = fd
        self._path = path
        self._render = render
        self._lines: list[bytes] = []
        self._batches: queue.Queue[bytes | None] = queue.Queue(_MAX_BATCHES)
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    def line(self, entry: msgspec.Struct) -> None:
        """Add a line."""
        self._lines.append(self._render(entry))

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

    def reopen(self) -> None:
        """Open the file anew, after the lines so far. Without a file, no effect."""
        if self._path:
            self.flush()
            with contextlib.suppress(queue.Full):
                self._batches.put_nowait(_REOPEN)

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
        self._writer.join(timeout=_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        torn = False  # whether what was written last is a part of a line, as on a full disk
        for batch in iter(self._batches.get, None):
            if batch is _REOPEN:
                torn = not self._open_again() and torn
            else:
                torn = self._write(b"\n" + batch if torn else batch, torn)
            self._batches.task_done()
        self._batches.task_done()  # of the None that ends it
        if self._path:
            os.close(self._fd)

    def _write(self, batch: bytes, torn: bool) -> bool:
        """Write a batch, which is lost where it cannot be; returns whether a line is torn now."""
        try:
            write_all(self._fd, batch)
        except WriteError as error:
            written = error.written
            lost = batch.count(b"\n", max(written, int(torn)))  # but for the end of a torn line
            self._drop(lost, error.strerror or "it cannot be written")
            return not batch.endswith(b"\n", 0, written) if written else torn
        return False

    def _open_again(self) -> bool:
        """Open the file's path again, on the thread; returns whether it is another file now. The
        old one stays open where the new one cannot be opened."""
        try:
            opened = open_log(self._path)
        except OSError as error:
            _log.error("%s cannot be opened again: %s", self._path, error.strerror)
            return False
        old, self._fd = self._fd, opened
        is_other = not os.path.sameopenfile(old, opened)
        os.close(old)
        return is_other

    def _drop(self, lines: int, reason: str) -> None:
        if not self.dropped:
            _log.warning("lines of the access log are lost: %s", reason)
        self.dropped += lines
