"""What a request holds on a node, and the error of one that the node's leases have no room for.

Must not know when a lease is claimed.
"""

from relay.cluster.shares import SharedKey
from relay.cluster.windows import Held
from relay.errors import OVERLOADED
from relay.quota.exceeded import QuotaExceeded
from relay.quota.state import KeyState, Reservation


class NoLeaseError(QuotaExceeded):
    """The node's leases have no room for a request; a claim may bring it."""

    def __init__(self, shared: SharedKey, key_state: KeyState, tokens: int, cost: int) -> None:
        super().__init__(OVERLOADED, "No lease is here yet. Try again in a moment.", retry_after=1)
        self.shared = shared
        self.key_state = key_state
        self.tokens = tokens
        self.cost = cost


class NodeReservation(Reservation):
    """A reservation with what it holds in leases. `missing`: micro-dollars of a `hold_more` that
    the lease did not have; `more` holds them."""

    __slots__ = ("held", "missing", "more", "shared")

    shared: SharedKey
    held: Held | None
    missing: int
    more: Held | None
