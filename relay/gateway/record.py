"""What is known of one request, collected while it runs, for its answer's fields and the log."""

import time
from typing import Any

from relay.clock import rfc3339
from relay.net.exchange import Exchange
from relay.store.queries import LiveKey
from relay.translate.usage import Usage
from relay.wire.events import Response


class Record:
    """One request. `outcome` says how it ended: `whole`, `refused: …`, `cut: …`, `caller left`."""

    __slots__ = (
        "_exchange",
        "_intake",
        "_sent",
        "answered_at",
        "caller",
        "model",
        "outcome",
        "upstream",
        "upstream_id",
        "usage",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._intake = self._sent = self.answered_at = 0.0
        self.caller: LiveKey | None = None
        self.model = ""
        self.upstream = ""
        self.upstream_id = b""
        self.usage: Usage | None = None
        self.outcome = ""

    def taken_in(self) -> None:
        """The request is here, body and all."""
        self._intake = time.monotonic()

    def sent(self) -> None:
        """The request is about to go upstream."""
        self._sent = time.monotonic()

    def answered(self, response: Response) -> None:
        """The head of the upstream's answer is here."""
        self.answered_at = time.monotonic()
        self.upstream_id = response.headers.get(b"request-id", b"")

    def timing(self) -> bytes:
        """The value of `server-timing`, in milliseconds (W3C Server Timing)."""
        return b"relay;dur=%.2f, upstream;dur=%.2f" % (
            (self._sent - self._intake) * 1000,
            (self.answered_at - self._sent) * 1000,
        )

    def entry(self) -> dict[str, Any]:
        """The line of the access log: no key, no prompt, no answer."""
        exchange = self._exchange
        now = time.monotonic()
        entry: dict[str, Any] = {
            "time": rfc3339(time.time()),
            "id": exchange.id.decode(),
            "peer": exchange.peer,
            "method": exchange.request.method.decode(),
            "path": exchange.request.path.decode(),
            "status": exchange.status,
            "outcome": self.outcome,
            "ms": round((now - exchange.arrived) * 1000, 2),
        }
        caller = self.caller
        if caller is not None:
            entry["user"] = caller.email
            entry["key"] = caller.key_id
        if self.model:
            entry["model"] = self.model
        if self._sent:
            entry["upstream"] = self.upstream
            entry["relay_ms"] = round((self._sent - self._intake) * 1000, 3)
        if self.answered_at:
            entry["head_ms"] = round((self.answered_at - self._sent) * 1000, 2)
            entry["upstream_id"] = self.upstream_id.decode("latin-1")
        usage = self.usage
        if usage is not None:
            entry["input"] = usage.input
            entry["output"] = usage.output
            entry["cache_read"] = usage.cache_read
            entry["cache_write"] = usage.cache_write
            entry["stop"] = usage.stop_reason
        return entry
