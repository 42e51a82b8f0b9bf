"""A node's windows of shared limits, and the amounts that one request holds in them.

Decides how a limit's window is named, and how an amount is settled. Must not know when a request
is admitted or a claim is sent.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from relay.quota.bucket import FixedWindow, Mark, calendar_period
from relay.quota.plans import CALENDAR, HOUR, Kind, Refill
from relay.quota.share.leased_window import LeasedWindow

if TYPE_CHECKING:
    from relay.cluster.waiting import Draw

# The period of a balance, a window without an end: a hundred thousand years of milliseconds.
ENDLESS: Final = 2**52


class SharedLimit(NamedTuple):
    """At most `size` requests, tokens or micro-dollars in `per` seconds, for the owner."""

    scope: str  # "key" or "own": of the key; "account" or "spending": of the account
    kind: Kind
    per: int  # seconds; 0: without an end, and `size` is the sum of all credits
    size: int
    refill: Refill = "window"  # or a unit of the calendar, in UTC
    until: int = 0  # no window that opens before this moment (epoch ms) outlasts it; 0: any may
    seed: int = 0  # the use before the limit was shared, as far as this node knows
    seed_ends: int = 0  # until then, epoch ms

    def length(self, now: int) -> int:
        """How long a window is (ms) that opens now, epoch ms."""
        if self.refill in CALENDAR:
            return calendar_period(self.refill, now)[1] - now
        per = self.per * 1000 or ENDLESS
        return min(per, self.until - now) if now < self.until else per

    def amount(self, tokens: int, cost: int) -> int:
        """The part of it that a request takes: at most its size, as in `relay.quota.ledger`."""
        if self.kind == "requests":
            return 1
        if self.per == 0:
            return max(1, cost)  # a balance of nothing pays for nothing
        return min(tokens if self.kind == "tokens" else cost, self.size)

    @property
    def counts_when_refunded(self) -> bool:
        """Whether a refunded request still counts: in limits of up to an hour."""
        return self.kind == "requests" and 0 < self.per <= HOUR


class NodeWindow:
    """One window, and the state of its claims."""

    __slots__ = (
        "account",
        "answered",
        "claimed",
        "draws",
        "held",
        "is_urgent",
        "lease",
        "leased",
        "limit",
        "name",
        "per",
        "recalled",
        "reported",
        "size",
        "users",
    )

    def __init__(self, name: str, limit: SharedLimit, lease: str) -> None:
        self.name = name
        self.limit = limit
        self.size = limit.size
        self.per = limit.per * 1000 or ENDLESS  # milliseconds
        self.lease = lease
        self.leased = LeasedWindow(lease, limit.size)
        if limit.per == 0:
            self.leased.free = max(0, limit.size - limit.seed)
        self.reported = 0  # the use that the engine knows
        self.claimed = 0  # the number of the claim that is under way; 0: none is
        self.is_urgent = False  # a request waits for that one
        self.answered = -1  # when the last claim for a request was sent that was answered, ms
        self.recalled = False  # another node asked for the rest while a claim was under way
        self.account = ""  # whose slots workers hold, if they do
        self.held = 0  # by so many requests
        self.users = 0  # keys that draw from it
        self.draws: set[Draw] = set()  # those with requests that wait for it

    def is_settled(self, now: int) -> bool:
        """Whether the engine knows all of its use, or needs not know it any more."""
        return self.leased.spent == self.reported or not self.leased.reset_in(now)


def window_name(limit: SharedLimit, account: str, key: str) -> str:
    """The name that all nodes have for the window of a limit."""
    owner = account if limit.scope in ("account", "spending") else key
    return owner_window_name(limit.scope, owner, limit.kind, limit.per)


def owner_window_name(scope: str, owner: str, kind: str, per: int) -> str:
    """As `window_name`, of a limit of this owner; `per`: seconds."""
    return f"{scope}/{owner}/{kind}/{per}"


def upstream_owner(key: str, address: str) -> str:
    """The owner of an upstream's own limits: nodes share those of the same name and address."""
    return f"{key} {address}"


class LocalAmount(NamedTuple):
    """An amount that was taken from the node's own share, while the engine was away."""

    window: FixedWindow
    mark: Mark


class LeaseUse(NamedTuple):
    """The use of a lease, to be kept on the node's disk: the latest of each lease and window is
    reported at the next start, and what the lease had left is free again."""

    window: str
    size: int
    per: int  # milliseconds
    lease: str
    epoch: int
    used: int  # in all, by this lease in this epoch


Taken: TypeAlias = tuple[NodeWindow, SharedLimit, int, int, LocalAmount | None]


class Held:
    """The amounts of one request: by window, with its limit, the amount, the epoch, and the local
    share that it came from, if it did."""

    __slots__ = ("open", "taken")

    def __init__(self, taken: list[Taken]) -> None:
        self.taken = taken
        self.open = True
        for one in taken:
            one[0].held += 1

    def uses(self) -> list[LeaseUse]:
        """The present use of the leases, for the node's journal: at admission, and again once it
        is closed."""
        return [
            LeaseUse(it.name, it.size, it.per, it.lease, epoch, it.leased.spent)
            for it, _, _, epoch, _ in self.taken
            if epoch == it.leased.epoch
        ]

    def settle(self, now: int, tokens: int | None, cost: int | None) -> bool:
        """Replace the estimates by the use; None keeps one. Returns False if it was closed."""
        if not self.open:
            return False
        self.open = False
        for window, limit, amount, epoch, local in self.taken:
            window.held -= 1
            used = tokens if limit.kind == "tokens" else cost
            if limit.kind == "requests" or used is None:
                continue
            if limit.per and tokens is None:  # as `FurtherReservation.settle`
                continue
            _correct(window, (amount, used), epoch, local, now)
        return True

    def undo(self, now: int) -> None:
        """Give everything back: no request took it."""
        if self.open:
            self.open = False
            for window, _, amount, epoch, local in self.taken:
                window.held -= 1
                _correct(window, (amount, 0), epoch, local, now)

    def lend(self, account: str, sign: int) -> None:
        """It is lent to a worker as a slot, 1, or is not any more, -1."""
        for window, _, amount, epoch, _ in self.taken:
            window.account = account
            window.leased.lend(sign * amount, epoch)

    def hold_more(self, amount: int, now: int) -> int:
        """Hold more of the balance, as far as the lease has it; returns how much."""
        for place, (window, limit, held, epoch, local) in enumerate(self.taken):
            if limit.per == 0 and epoch == window.leased.epoch:
                more = min(amount, window.leased.left(now))
                if more > 0 and window.leased.take(more, now):
                    self.taken[place] = (window, limit, held + more, epoch, local)
                    return more
        return 0

    def refund(self, now: int) -> bool:
        """Give back all but requests in limits of up to an hour; returns as `settle` does."""
        if not self.open:
            return False
        self.open = False
        for window, limit, amount, epoch, local in self.taken:
            window.held -= 1
            if not limit.counts_when_refunded:
                _correct(window, (amount, 0), epoch, local, now)
        return True


def _correct(
    window: NodeWindow, change: tuple[int, int], epoch: int, local: LocalAmount | None, now: int
) -> None:
    amount, used = change
    if used < amount:
        window.leased.give_back(amount - used, epoch)
        if local is not None:
            local.window.give_back(amount - used, local.mark, now)
    elif used > amount:
        window.leased.charge(used - amount, epoch)
        if local is not None:
            local.window.charge(used - amount, local.mark, now)
