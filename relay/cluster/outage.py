"""What a node does while the engine is away and its leases have run out.

Decides how much it admits then: nothing, or its share of each window, the size divided by the
number of nodes. Says in the log when an outage begins and ends.
"""

import logging
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from relay.cluster.figures import Figures
from relay.cluster.waiting import Draw, Waiter
from relay.cluster.windows import ENDLESS, Held, LocalAmount, NodeWindow, Taken
from relay.quota.bucket import FixedWindow

_log = logging.getLogger("relay.cluster")

OnOutage: TypeAlias = Literal["refuse", "local"]

_MAX_WINDOWS: Final = 100_000  # of local shares, then those that are over are deleted


class Outages:
    """See the module."""

    def __init__(self, on_outage: OnOutage, figures: Figures) -> None:
        self.is_out = False
        self._on_outage = on_outage
        self._figures = figures
        self._shares: dict[str, FixedWindow] = {}
        self._began = 0

    def observe(self, is_down: bool, reason: str, nodes: int, now: int) -> None:
        """Note whether the engine can be reached."""
        if is_down == self.is_out:
            return
        self.is_out = is_down
        if is_down:
            self._began = now
            self._figures.outages += 1
            what = (
                f"requests beyond them get 1/{nodes} of each limit on this node, so up to twice "
                "the limits in all"
                if self._on_outage == "local"
                else "requests beyond them are refused"
            )
            _log.warning("the shared ledger is away (%s): leases go on; %s", reason, what)
            return
        # A balance begins again from what is free at that time; windows keep their use.
        for name, share in list(self._shares.items()):
            if share.per >= ENDLESS:
                del self._shares[name]
        _log.warning("the shared ledger is back after %.1f s", (now - self._began) / 1000)

    def take(self, draw: Draw, waiter: Waiter, nodes: int, now: int) -> Held | None:
        """Take from leases where they have room, and from the node's shares of the others; None:
        nothing was taken, since one has no room or shares are not used."""
        if self._on_outage != "local":
            return None
        taken: list[Taken] = []
        for (window, limit), amount in zip(draw.pairs, waiter.amounts, strict=True):
            leased = window.leased
            epoch = leased.epoch if leased.reset_in(now) else -1  # -1: of no window that is known
            local: LocalAmount | None = None
            if not leased.take(amount, now):
                share = self._share(window, nodes, now)
                if not share.take(amount, now):
                    _give_back(taken, now)
                    return None
                local = LocalAmount(share, share.mark)
                # Once the engine is back it counts this use too, if its window is still open.
                leased.charge(amount, epoch)
            taken.append((window, limit, amount, epoch, local))
        self._figures.admitted_locally += 1
        return Held(taken)

    def _share(self, window: NodeWindow, nodes: int, now: int) -> FixedWindow:
        """The node's share of a window."""
        share = self._shares.get(window.name)
        if share is None:
            if len(self._shares) >= _MAX_WINDOWS:
                self._shares = {name: it for name, it in self._shares.items() if it.end > now}
            size = window.leased.free if window.per >= ENDLESS else window.size
            share = self._shares[window.name] = FixedWindow(size // nodes, window.per)
        return share


def _give_back(taken: Sequence[Taken], now: int) -> None:
    for window, _, amount, epoch, local in taken:
        window.leased.give_back(amount, epoch)
        if local is not None:
            local.window.give_back(amount, local.mark, now)
