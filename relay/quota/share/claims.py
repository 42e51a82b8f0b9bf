"""The messages between a node and the owner of a window.

Both have totals, not differences: a message that comes twice, late or never changes no count. All
amounts belong to one window of the limit, its epoch, and are counted from that window's start.
"""

from typing import NamedTuple


class Claim(NamedTuple):
    """A node's use of its lease, the rest that it keeps, and its wish for more.

    Until the grant of this claim comes in, the node uses no more than `ceiling`.
    """

    lease: str  # the node and its start; a node that starts again has another lease
    number: int  # counts the claims of a lease; the owner passes over older ones
    epoch: int  # the window that the totals belong to; 0: the node knows none
    used: int  # by requests that were admitted, less refunds; settled tokens may exceed `ceiling`
    ceiling: int  # the part of the earlier grant that the node keeps
    want: int  # how much more it could use
    need: int  # how much more the request that waits needs; 0: nobody waits
    ends_in: int = 0  # milliseconds that are left of the window, as far as the node knows


class Grant(NamedTuple):
    """How much a node may use in all."""

    number: int  # of the claim
    epoch: int
    ceiling: int  # at least the claim's if the epoch is the claim's
    ends_in: int  # milliseconds; 0: the window is closed
    expires_in: int  # milliseconds after which the lease counts as used if no claim comes
    size: int  # of the window
    free: int  # the part that no node holds
    elsewhere: int  # the unused part of other nodes, by their last claims
