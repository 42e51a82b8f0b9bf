"""One request on its way through the gateway: the facts known of it, filled in step by step.

Decisions read these values; the log line is derived from them once, at the end
(`gateway.access_record`). No key, no prompt and no answer is kept here.
"""

import time
from enum import Enum
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.gateway.admission import UNMETERED, Admission
from relay.gateway.catalog import Catalog
from relay.net.exchange import Exchange
from relay.quota.exceeded import QuotaExceeded
from relay.quota.rate_limit_fields import lines
from relay.quota.state import KeyState
from relay.store.keys import LiveKey
from relay.translate.messages.usage import Usage

if TYPE_CHECKING:
    from relay.gateway.dialect import Dialect, InboundRequest


class Outcome(Enum):
    """How a request ended; the value is the word in the log."""

    UNFINISHED = ""
    COMPLETE = "whole"
    REFUSED = "refused"
    CUT = "cut"
    CALLER_LEFT = "caller left"
    FAILED = "failed"


class RequestContext:
    """Filled in in the order of `gateway.relay`. Durations are microseconds.

    `started_at` is epoch seconds. `ready_at` is monotonic seconds: the body was complete, the
    relay began to work. `wait_us` is the wait for a free upstream, `relay_us` the relay's own
    share before the upstream, `upstream_us` the upstream's until its head. `first_us` is the time
    from the request's head to the first content of a stream. `passed_over` are the upstreams that
    could not be chosen, `tried` those that failed the request, with reasons.
    """

    __slots__ = (
        "admission",
        "agent",
        "caller",
        "catalog",
        "checked",
        "choice",
        "dialect",
        "exchange",
        "first_us",
        "heavy",
        "id",
        "inbound",
        "key_state",
        "model",
        "outcome",
        "passed_over",
        "path",
        "reading_key",
        "ready_at",
        "reason",
        "relay_us",
        "reported",
        "served_model",
        "started_at",
        "tried",
        "upstream",
        "upstream_id",
        "upstream_us",
        "upstream_words",
        "wait_us",
    )

    def __init__(self, exchange: Exchange, catalog: Catalog) -> None:
        self.exchange = exchange
        self.catalog = catalog  # the settings that it is served by, whatever replaces them
        self.id = exchange.id.decode()
        self.started_at = time.time()
        self.path = exchange.request.path.decode()
        self.outcome = Outcome.UNFINISHED
        self.reason = ""  # of an outcome that has one
        self.caller: LiveKey | None = None
        self.key_state: KeyState | None = None  # the quota that the caller's plan has left
        self.agent = ""  # the helper of an agent, by its client's name for it
        self.checked = False  # the caller's key may have something left, so its body is read
        self.ready_at = 0.0
        self.reading_key = ""  # the key, while it counts as a large request that is read
        self.heavy = False  # too large to be worked on between two events of the loop
        self.model = ""
        self.dialect: Dialect | None = None  # of a request that is relayed
        self.inbound: InboundRequest | None = None  # the request, once its dialect has read it
        self.admission: Admission = UNMETERED
        self.upstream = ""
        self.choice = ""
        self.passed_over = ""
        self.tried = ""
        self.served_model = ""  # model named by the upstream, if it differs from the one sent
        self.upstream_id = ""
        self.upstream_words = b""  # what the latest upstream to fail it said; in no log
        self.reported: Usage | None = None  # usage reported by the answer
        self.wait_us = 0
        self.first_us = 0
        self.relay_us = 0
        self.upstream_us = 0

    @property
    def account(self) -> str:
        """The caller's account; empty if it is not known."""
        return "" if self.caller is None else self.caller.user_id

    def limit_fields(self, error: RelayError | None = None) -> bytes:
        """The field lines of every answer: which pages may read it, and, for a known caller, the
        quota left."""
        cors = self.catalog.cors
        allowed = cors.constant or cors.fields(self.exchange.request.headers)
        key_state = self.key_state
        if key_state is None:
            return allowed
        now = time.time()
        shown = allowed + lines(key_state, now, error if isinstance(error, QuotaExceeded) else None)
        if self.inbound is not None:
            return shown + self.inbound.limit_fields(key_state, now)
        return shown if self.dialect is None else shown + self.dialect.limit_fields(key_state, now)

    def end(self, outcome: Outcome, reason: str = "") -> None:
        """Note how the request ended."""
        self.outcome = outcome
        self.reason = reason

    @property
    def outcome_text(self) -> str:
        """`whole`, `refused: …`, `cut: …`, `caller left` or `failed`: the log's word."""
        word: str = self.outcome._value_  # `value` costs two calls
        return f"{word}: {self.reason}" if self.reason else word
