"""Ends a worker's refusals of an upstream's own limits, once the limits have room again.

A worker that was refused goes on refusing until the moment at which the limit resets, as the owner
said. A request that is refunded, a window that is reset or other settings can bring room before.
The owner looks ten times a second, as long as a worker waits.

Decides when the owner looks. Must not know how slots are granted.
"""

import asyncio
from typing import Final

from relay.quota.state import UPSTREAM
from relay.workers.lending import Lender
from relay.workers.traffic import Wish

ROOM: Final = "room"  # the message, with the key of the limits
_LOOK_SECONDS: Final = 0.1


class RefusedWorkers:
    """Those that wait for room, in the owner."""

    def __init__(self) -> None:
        self._wishes: dict[tuple[Lender, str], Wish] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, lender: Lender, wish: Wish) -> None:
        """A wish of a worker was refused. Only those for upstreams' own limits are of interest: the
        limits of callers are asked for with each request."""
        if wish.key.startswith(UPSTREAM):
            self._wishes[lender, wish.key] = wish
            if self._timer is None:
                self._look_later()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        for place, wish in list(self._wishes.items()):
            lender = place[0]
            if lender.link.closed:
                del self._wishes[place]
            elif lender.has_room(wish):
                del self._wishes[place]
                lender.link.send(ROOM, wish.key)
        self._timer = None
        if self._wishes:
            self._look_later()
