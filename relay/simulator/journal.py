"""What the simulator was asked: the last requests as they came, and totals.

Tests read it to prove what a relay sends upstream. Bodies are kept as digests only, so
that its memory is bounded.
"""

import hashlib
from collections import deque
from typing import Any, Final

from relay.wire.events import Request

_KEPT: Final = 256


class Entry:
    """One request."""

    __slots__ = ("aborted", "body_bytes", "body_sha256", "request", "status")

    def __init__(self, request: Request, body: bytes) -> None:
        self.request = request
        self.body_sha256 = hashlib.sha256(body).digest()
        self.body_bytes = len(body)
        self.aborted = False  # the peer left before the answer was whole
        self.status = 0

    def report(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        request = self.request
        return {
            "method": request.method.decode("latin-1"),
            "target": request.target.decode("latin-1"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")]
                for name, value in request.headers.items()
            ],
            "body_sha256": self.body_sha256.hex(),
            "body_bytes": self.body_bytes,
            "status": self.status,
            "aborted": self.aborted,
        }


class Journal:
    """The newest entries and the sums over all."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self.requests = 0
        self.refused = 0
        self.aborted = 0
        self.whole = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cache_creation_input_tokens = 0
        self.cache_read_input_tokens = 0

    def add(self, request: Request, body: bytes) -> Entry:
        """A request has come."""
        self.requests += 1
        entry = Entry(request, body)
        self._entries.append(entry)
        return entry

    def report(self) -> dict[str, Any]:
        """Everything as JSON has it; tokens are those of answers that were sent whole."""
        return {
            "requests": [entry.report() for entry in self._entries],
            "totals": {
                "requests": self.requests,
                "refused": self.refused,
                "aborted": self.aborted,
                "whole": self.whole,
                "input_tokens": self.input_tokens,
                "output_tokens": self.output_tokens,
                "cache_creation_input_tokens": self.cache_creation_input_tokens,
                "cache_read_input_tokens": self.cache_read_input_tokens,
            },
        }
