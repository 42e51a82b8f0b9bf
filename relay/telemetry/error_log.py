"""Standard error behind a queue: lines are written by a thread of their own.

A reader that stalls (a paused terminal, `2>&1 | less`), a full disk or a closed pipe costs lines.
It never stops the loop, the start or the end of the process.

Decides when lines are dropped; their number is written once lines can be written again. Must not
know what is in them.
"""

import io
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from relay.telemetry.output import write_all

_STDERR: Final = 2
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_LINES: Final = 1024  # waiting to be written
_MAX_LINE_OCTETS: Final = 8 * 1024  # of one line, or of one traceback
_CLOSE_TIMEOUT_SECONDS: Final = 1.0


class ErrorLog:
    """The queue and its thread. `dropped` counts the lines that were not written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._overflowed = 0  # lines that found the queue full
        self._unwritten = 0  # lines that the descriptor did not take
        self._reported = 0
        # Reentrant, for a finalizer may log while a line is being added.
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="error-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._overflowed + self._unwritten

    def line(self, text: str) -> None:
        """Add a line, or several as one piece. Never waits."""
        if self._lines.qsize() >= _MAX_LINES:
            self._overflowed += 1
            return
        octets = text.encode(errors="backslashreplace")
        if len(octets) > _MAX_LINE_OCTETS:  # the end of a traceback names the error
            half = _MAX_LINE_OCTETS // 2
            octets = octets[:half] + b"\n[...]\n" + octets[-half:]
        self._lines.put(octets + b"\n")

    def close(self) -> None:
        """Write the rest; waits a second at most."""
        self._lines.put(None)
        self._thread.join(timeout=_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        for line in iter(self._lines.get, None):
            self._write(line)
        self._write(b"")

    def _write(self, line: bytes) -> None:
        dropped = self.dropped
        lost = dropped - self._reported
        note = b"%d lines of this log are lost: they could not be written\n" % lost if lost else b""
        try:
            write_all(self._descriptor, note + line)
        except OSError:
            self._unwritten += 1 if line else 0
        else:
            self._reported = dropped


class _Handler(logging.Handler):
    """Log records as lines."""

    def __init__(self, log: ErrorLog) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.line(self.format(record))
        except Exception:
            self.handleError(record)


class _Stream(io.TextIOBase):
    """`sys.stderr` for everything that prints there: warnings, errors in threads, `print`."""

    def __init__(self, log: ErrorLog) -> None:
        super().__init__()
        self._log = log
        self._part = ""  # of a line that has yet to end

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._part = (self._part + text).split("\n")
        if len(self._part) > _MAX_LINE_OCTETS:
            lines.append(self._part)
            self._part = ""
        if lines:
            self._log.line("\n".join(lines))
        return len(text)


@contextmanager
def queued_stderr(descriptor: int = _STDERR) -> Iterator[ErrorLog]:
    """Let the log and whatever prints to `sys.stderr` go through a queue."""
    log = ErrorLog(descriptor)
    previous = sys.stderr
    sys.stderr = _Stream(log)
    handler = _Handler(log)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield log
    finally:
        root.removeHandler(handler)
        sys.stderr = previous
        log.close()
