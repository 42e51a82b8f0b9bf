"""What is known of one request, filled in while it runs: its access log line.

No key, no prompt and no answer ever comes in here, so none can come out.
"""

import time

import msgspec

from relay.clock import rfc3339
from relay.net.exchange import Exchange
from relay.translate.messages.usage import Usage


class AccessRecord(msgspec.Struct, omit_defaults=True):
    """One request; what is unknown stays at its default and is left out of the line.

    Times are microseconds: `us` from the request's head to the last octet, `wait_us` what was
    waited for an upstream to be free, `relay_us` the relay's own share before the upstream,
    `upstream_us` the upstream's until its head.
    `rule` is how it was settled, see gateway.metering.
    `outcome`: `whole`, `refused: …`, `cut: …`, `caller left` or `failed`.
    `choice` is how the upstream was chosen: it is the `only` one, the `session` is with it, it
    was its `turn`; `passed` are those that could not be, and why; `tried` those that failed it.
    `agent` is the helper of an agent that asks, as its client calls it (Codex CLI: `review`,
    `compact` and others).
    `served` is the model that the upstream names, where that is not the one it was sent.
    """

    time: str
    id: str
    peer: str
    method: str
    path: str
    status: int = 0
    outcome: str = ""
    rule: str = ""
    user: str = ""
    key: str = ""
    agent: str = ""
    model: str = ""
    upstream: str = ""
    choice: str = ""
    passed: str = ""
    tried: str = ""
    served: str = ""
    upstream_id: str = ""
    stop: str | None = None
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    us: int = 0
    wait_us: int = 0
    relay_us: int = 0
    upstream_us: int = 0

    def used(self, usage: Usage) -> None:
        """Take over what an answer used."""
        self.input = usage.input
        self.output = usage.output
        self.cache_read = usage.cache_read
        self.cache_write = usage.cache_write
        self.stop = usage.stop_reason


def record(exchange: Exchange) -> AccessRecord:
    """The beginning of a record."""
    request = exchange.request
    return AccessRecord(
        rfc3339(time.time()),
        exchange.id.decode(),
        exchange.peer,
        request.method.decode(),
        request.path.decode(),
    )
