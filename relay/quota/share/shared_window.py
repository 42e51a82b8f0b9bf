"""The owner's side of a window that nodes draw from by leases.

Decides how much a node gets, and when the lease of a silent node counts as used. Moments are the
owner's clock in milliseconds. A window opens with the first claim of a request that waits, and
closes when it ends, or when nothing of it is used or held.
"""

from collections.abc import Sequence
from typing import Final

from relay.quota.share.claims import Claim, Grant

LEASE_TIME: Final = 10_000  # milliseconds
_GRACE: Final = 2_000  # milliseconds after which an expired lease counts as used


class Lease:
    """The use of one node, and its ceiling."""

    __slots__ = ("ceiling", "expires", "is_lost", "number", "used")

    def __init__(self) -> None:
        self.number = 0
        self.used = 0
        self.ceiling = 0
        self.expires = 0
        self.is_lost = False  # its node was silent for too long

    @property
    def total(self) -> int:
        """The part of the window that the lease takes."""
        return max(self.used, self.ceiling)


class SharedWindow:
    """A window of `size` in `per` milliseconds."""

    __slots__ = ("end", "epoch", "leases", "per", "size")

    def __init__(self, size: int, per: int, epoch: int = 1, end: int = 0) -> None:
        self.size = size
        self.per = per
        self.epoch = epoch  # of the present window, or of the next where none is open
        self.end = end  # 0: no window is open
        self.leases: dict[str, Lease] = {}

    def resize(self, size: int) -> None:
        """Change the size from now on. Leases that were granted stand."""
        self.size = size

    @property
    def free(self) -> int:
        """The part that no node holds; negative where leases exceed a smaller size, or tokens were
        settled beyond it."""
        return self.size - sum([lease.total for lease in self.leases.values()])

    @property
    def used(self) -> int:
        """The use by the nodes' last claims; all of a lease whose node is silent."""
        return sum([it.total if it.is_lost else it.used for it in self.leases.values()])

    def idle_beside(self, lease: str) -> int:
        """The part that other nodes hold and have not used."""
        others = [it for name, it in self.leases.items() if name != lease and not it.is_lost]
        return sum([max(0, it.ceiling - it.used) for it in others])

    def advance(self, now: int) -> None:
        """End a window that is over, and count leases of silent nodes as used."""
        if not self.end:
            return
        if self.end - now > self.per:  # the clock was stepped back since it opened
            self.end = now + self.per
        if now >= self.end:
            self._close()
            return
        for lease in self.leases.values():
            # After a step back of the clock no lease may outlast its time from now.
            lease.expires = min(lease.expires, now + LEASE_TIME)
            if now >= lease.expires + _GRACE:
                lease.is_lost = True

    def _close(self) -> None:
        """The next window has another epoch. Leases stay, empty, while their nodes report: the
        number of the last claim tells later ones from those that were late."""
        self.end = 0
        self.epoch += 1
        self.leases = {name: it for name, it in self.leases.items() if not it.is_lost}
        for lease in self.leases.values():
            lease.used = lease.ceiling = 0

    def report(self, claim: Claim, now: int) -> bool:
        """Take a claim's totals; returns whether it is the latest of its lease."""
        lease = self.leases.get(claim.lease)
        if lease is not None and claim.number <= lease.number:
            return False
        if claim.epoch > self.epoch or (claim.epoch == self.epoch and not self.end):
            self._restore(claim, now)
        if self.end and (lease is not None or claim.epoch == self.epoch):
            # A node that does not know this window yet has not used it, nor will by earlier grants.
            knows = claim.epoch == self.epoch
            lease = self._lease(claim, now)
            lease.used = claim.used if knows else 0
            lease.ceiling = claim.ceiling if knows else 0
            if not any(it.total for it in self.leases.values()):
                self._close()
        return True

    def _restore(self, claim: Claim, now: int) -> None:
        """Go on from the nodes' totals: the owner has lost the opening of the claim's window."""
        self.epoch = claim.epoch
        self.end = now + min(self.per, claim.ends_in)
        if not claim.ends_in:
            self._close()

    def _lease(self, claim: Claim, now: int) -> Lease:
        """The lease that a claim is the latest of."""
        lease = self.leases.get(claim.lease)
        if lease is None:
            lease = self.leases[claim.lease] = Lease()
        lease.number = claim.number
        lease.expires = now + LEASE_TIME
        lease.is_lost = False
        return lease

    def can_supply(self, claim: Claim) -> bool:
        """Whether the request that waits can be admitted."""
        return claim.need <= max(0, self.free)

    def extend(self, claim: Claim, now: int, nodes: int) -> None:
        """Let a claim that was reported have more. A request that waits opens the window."""
        if claim.need and not self.end:
            self.end = now + self.per
        if self.end:
            self._lease(claim, now).ceiling += self._share(claim, nodes)

    def _share(self, claim: Claim, nodes: int) -> int:
        """How much more a node gets: less and less of what is free, so that others find some."""
        free = self.free
        if free < max(claim.need, 1):
            return 0
        return min(max(claim.want, claim.need), max(claim.need, free // (2 * nodes), 1))

    def answer(self, claim: Claim, now: int) -> Grant:
        """The grant of a claim, as the lease stands."""
        lease = self.leases.get(claim.lease)
        return Grant(
            number=claim.number,
            epoch=self.epoch,
            ceiling=0 if lease is None else lease.ceiling,
            ends_in=max(0, self.end - now),
            expires_in=LEASE_TIME,
            size=self.size,
            free=max(0, self.free),
            elsewhere=self.idle_beside(claim.lease),
        )


def acquire(claims: Sequence[tuple[SharedWindow, Claim]], now: int, nodes: int) -> list[Grant]:
    """Answer the claims of one request on all windows that it counts in.

    If one of them cannot supply its need, none gives more: no request is counted in one window and
    refused in another.
    """
    latest = []
    for window, claim in claims:
        window.advance(now)
        if window.report(claim, now):
            latest.append((window, claim))
    if all(window.can_supply(claim) for window, claim in claims):
        for window, claim in latest:
            window.extend(claim, now, nodes)
    return [window.answer(claim, now) for window, claim in claims]
