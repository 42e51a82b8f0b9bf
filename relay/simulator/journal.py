"""The journal of the simulator: the latest requests as they came, and totals.

Tests read it to prove which requests a relay sends. Its memory is bounded: of a large body only
the digest is kept; a small one is digested for a report.
"""

import hashlib
from collections import deque
from typing import Any, Final

from relay.wire.events import Request

_MAX_ENTRIES: Final = 256
_MAX_BODY: Final = 16 * 1024  # octets of a body that is kept


class Entry:
    """One request."""

    __slots__ = ("_body", "_digest", "aborted", "body_bytes", "request", "status")

    def __init__(self, request: Request, body: bytes) -> None:
        self.request = request
        self.body_bytes = len(body)
        large = self.body_bytes > _MAX_BODY
        self._body = b"" if large else body
        self._digest = hashlib.sha256(body).hexdigest() if large else ""
        self.aborted = False  # the peer left before the answer was complete
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
            "body_sha256": self._digest or hashlib.sha256(self._body).hexdigest(),
            "body_bytes": self.body_bytes,
            "status": self.status,
            "aborted": self.aborted,
        }


class Journal:
    """The newest entries and the sums over all."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Drop all entries and sums."""
        self._entries: deque[Entry] = deque(maxlen=_MAX_ENTRIES)
        self.requests = 0
        self.refused = 0
        self.aborted = 0
        self.completed = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cache_creation_input_tokens = 0
        self.cache_read_input_tokens = 0
        self.most_in_flight = self.in_flight

    def add(self, request: Request, body: bytes) -> Entry:
        """Add an entry for a request; it is in flight until `end`."""
        self.requests += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        entry = Entry(request, body)
        self._entries.append(entry)
        return entry

    def end(self, entry: Entry, status: int) -> None:
        """The answer to a request has ended."""
        entry.status = status
        self.in_flight -= 1

    def report(self) -> dict[str, Any]:
        """Entries and sums as JSON has them; tokens are those of complete answers."""
        return {
            "requests": [entry.report() for entry in self._entries],
            "totals": {
                "requests": self.requests,
                "refused": self.refused,
                "aborted": self.aborted,
                "whole": self.completed,
                "most_in_flight": self.most_in_flight,
                "input_tokens": self.input_tokens,
                "output_tokens": self.output_tokens,
                "cache_creation_input_tokens": self.cache_creation_input_tokens,
                "cache_read_input_tokens": self.cache_read_input_tokens,
            },
        }
