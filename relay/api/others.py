"""The processes of this relay beside the one that shows figures: what it asks of them.

`relay.workers.figures` answers. Must not know how processes speak with each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from relay.api.figures import Figures
from relay.api.live import RunningRequests
from relay.api.request_facts import Match
from relay.gateway.watch import Failure


@dataclass(frozen=True, slots=True)
class OtherFigures:
    """Figures of other processes, by their number. `ended`: of all that have ended, together.
    `silent` are those that did not answer in time; their figures are the last that they gave.
    `restarts`: how often one ended and was replaced."""

    running: dict[int, Figures]
    ended: Figures
    silent: frozenset[int]
    restarts: int


class Others(Protocol):
    """The other processes. Each call waits for a second at most; a process that does not answer
    is left out, unless its figures are known."""

    async def figures(self) -> OtherFigures: ...

    async def running(self) -> Iterable[RunningRequests]: ...

    async def failures(self) -> Iterable[list[Failure]]: ...

    async def matches(self, prefix: str) -> list[Match]:
        """The requests in memory whose ids begin like this."""
        ...
