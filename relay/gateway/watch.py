"""What an operator watches: the requests in flight, and the latest that did not go well.

Kept in memory for pages, whether there is a log or not. Decides how many failures are kept. Must
not know who looks.
"""

from collections import deque
from typing import Final

from relay.gateway.access_record import AccessRecord, access_record
from relay.gateway.context import RequestContext

_MAX_FAILURES: Final = 200


class Watch:
    """See the module. `running` has the requests in flight, `failures` the latest last."""

    __slots__ = ("failures", "running")

    def __init__(self) -> None:
        self.running: set[RequestContext] = set()
        self.failures: deque[AccessRecord] = deque(maxlen=_MAX_FAILURES)

    def failed(self, ctx: RequestContext, outcome: str, us: int) -> None:
        """A request of the API has ended other than well, or on its way an upstream failed it."""
        if ctx.dialect is not None:
            self.failures.append(access_record(ctx, outcome, us))
