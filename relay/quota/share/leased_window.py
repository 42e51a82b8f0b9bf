"""A node's side of a window that several nodes draw from.

Decides when the node asks for more, and how much. Moments are the node's monotonic clock in
milliseconds: a step of the wall clock changes nothing.
"""

from typing import Final

from relay.quota.share.claims import Claim, Grant

_DEMAND_TIME: Final = 10_000  # milliseconds over which the demand is looked at
_AHEAD: Final = 3_000  # milliseconds of that demand that a node asks for
_LOW: Final = 5  # it asks when a fifth of what it had after the last grant is left
# It has a hundredth of the window, which can be recalled, or its demand: a twentieth at most.
_LEAST: Final = 100
_MOST: Final = 20
_MARGIN: Final = 10  # of a lease's time, a tenth is left to clocks that run at another pace


class LeasedWindow:
    """The part of a shared window that one node may use."""

    __slots__ = (
        "_asked",
        "_before",
        "_dies",
        "_ends",
        "_had",
        "_lease",
        "_number",
        "_recent",
        "_sent",
        "_slot",
        "ceiling",
        "elsewhere",
        "epoch",
        "free",
        "lent",
        "size",
        "used",
    )

    def __init__(self, lease: str, size: int) -> None:
        self._lease = lease
        self.size = size
        self.epoch = 0  # 0: no grant came yet
        self.used = 0
        self.lent = 0  # the part of it that no request has used yet
        self.ceiling = 0
        self.free = size  # the part that no node held, at the last grant
        self.elsewhere = 0  # the unused part of other nodes, at the last grant
        self._number = 0  # of the last claim
        self._asked = False  # whether its grant has yet to come
        self._sent = 0  # when it was sent
        self._ends = 0  # when the window is over
        self._dies = 0  # when the lease is
        self._had = 0  # unused, after the last grant
        # The demand: of this time slot, and of the one before it.
        self._slot = 0
        self._recent = 0
        self._before = 0

    # --- requests ---------------------------------------------------------------------

    def left(self, now: int) -> int:
        """The amount that can be taken now without a claim."""
        return max(0, self.ceiling - self.used) if now < min(self._ends, self._dies) else 0

    def take(self, amount: int, now: int) -> bool:
        """Use an amount if it remains; returns whether it did."""
        self._note(amount, now)
        if self.left(now) < amount:
            return False
        self.used += amount
        return True

    def give_back(self, amount: int, epoch: int) -> None:
        """Undo the use of an amount that was taken in the window `epoch`."""
        if epoch == self.epoch:
            self.used = max(0, self.used - amount)

    def charge(self, amount: int, epoch: int) -> None:
        """Use an amount beyond that taken in the window `epoch`, even if it does not remain."""
        if epoch == self.epoch:
            self.used += amount

    def lend(self, amount: int, epoch: int) -> None:
        """An amount that was taken in the window `epoch` is lent: no request uses it yet. If it is
        negative, one does, or it is about to be given back."""
        if epoch == self.epoch:
            self.lent = max(0, self.lent + amount)

    @property
    def spent(self) -> int:
        """The use by requests."""
        return max(0, self.used - self.lent)

    def remaining(self, now: int) -> int:
        """A lower bound of what could be taken now, of all that nobody holds."""
        return self.free + self.left(now) if now < self._ends else self.size

    def reset_in(self, now: int) -> int:
        """Milliseconds until the window is full again; 0 if none is open."""
        return max(0, self._ends - now)

    # --- claims -----------------------------------------------------------------------

    def is_low(self, now: int) -> bool:
        """Whether to ask for more ahead of need: only where requests come, and once at a time."""
        if self._asked or not self._demand(now) or now >= self._ends:
            return False
        return self._is_half_over(now) or self.left(now) * _LOW <= self._had

    def must_renew(self, now: int) -> bool:
        """Whether it ends soon while something of it is lent, which others may need."""
        return self.lent > 0 and not self._asked and now < self._ends and self._is_half_over(now)

    def _is_half_over(self, now: int) -> bool:
        return now - self._sent > (self._dies - self._sent) // 2

    def claim(self, now: int, need: int = 0) -> Claim:
        """Ask for more: for `need`, which a request waits for, or ahead of need."""
        demand = min(self._demand(now) * _AHEAD // _DEMAND_TIME, self.size // _MOST)
        target = max(1, demand, self.size // _LEAST)
        want = target + need if need else max(0, target - self.left(now))
        return self._next_claim(now, self._held(now), want, need)

    def release(self, now: int) -> Claim:
        """Give back the unused rest: it was recalled, or nobody has used it for a while."""
        self.ceiling = min(self.ceiling, self.used)
        return self._next_claim(now, self.ceiling, 0, 0)

    def granted(self, grant: Grant) -> None:
        """Take the answer to the last claim; answers to earlier ones are out of date."""
        if grant.number != self._number:
            return
        self._asked = False
        if grant.epoch != self.epoch:
            self.epoch = grant.epoch
            self.used = self.lent = self.ceiling = 0
        self.ceiling = grant.ceiling
        self._had = self.ceiling - self.used
        self.size = grant.size
        self.free = grant.free
        self.elsewhere = grant.elsewhere
        # Counted from before the claim was sent, both end here before they end at the owner.
        self._ends = self._sent + grant.ends_in
        self._dies = self._sent + grant.expires_in - grant.expires_in // _MARGIN

    def lost(self, number: int) -> None:
        """No answer to this claim came in time: another may be sent."""
        if number == self._number:
            self._asked = False

    def is_idle(self, now: int) -> bool:
        """Whether it holds what nobody has used for a while."""
        return self.left(now) > 0 and not self._demand(now) and not self._asked

    def _held(self, now: int) -> int:
        """The ceiling that it keeps; of a lease that is over, nothing but what is used."""
        if now >= self._dies:
            self.ceiling = min(self.ceiling, self.used)
        return self.ceiling

    def _next_claim(self, now: int, ceiling: int, want: int, need: int) -> Claim:
        self._number += 1
        self._asked = True
        self._sent = now
        if self.lent:  # it stays this node's, also where charges have exceeded the ceiling
            ceiling = max(ceiling, self.used)
        return Claim(
            self._lease, self._number, self.epoch, self.spent, ceiling, want, need,
            max(0, self._ends - now),
        )  # fmt: skip

    # --- demand -----------------------------------------------------------------------

    def _note(self, amount: int, now: int) -> None:
        self._turn(now)
        self._recent += amount

    def _demand(self, now: int) -> int:
        """The amount that requests wanted in the last ten to twenty seconds."""
        self._turn(now)
        return self._recent + self._before

    def _turn(self, now: int) -> None:
        slot = now // _DEMAND_TIME
        if slot != self._slot:
            self._before = self._recent if slot == self._slot + 1 else 0
            self._recent = 0
            self._slot = slot
