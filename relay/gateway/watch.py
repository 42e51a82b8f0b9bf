"""What an operator watches: the requests in flight, and the latest that did not go well.

Kept in memory for pages, whether there is a log or not. What an upstream said about a failure is
here alone: it may repeat a part of a request, so no log and no database has it. Decides how many
failures are kept. Must not know who looks.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from relay.gateway.access_fields import AccessRecord
from relay.gateway.access_record import access_record
from relay.gateway.context import RequestContext

MAX_FAILURES: Final = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that ended other than well, or that an upstream failed on its way."""

    record: AccessRecord
    words: str  # of the upstream


class Watch:
    """See the module. `running` has the requests in flight, `failures` the latest last."""

    __slots__ = ("failures", "running")

    def __init__(self) -> None:
        self.running: set[RequestContext] = set()
        self.failures: deque[Failure] = deque(maxlen=MAX_FAILURES)

    def failed(self, ctx: RequestContext, outcome: str, us: int) -> None:
        """Keep a failure, if it is a request of the API."""
        if ctx.dialect is not None:
            words = ctx.upstream_words.decode("utf-8", "replace")
            self.failures.append(Failure(access_record(ctx, outcome, us), words))
