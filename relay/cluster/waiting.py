"""The requests that wait for a grant, by the windows that they take from.

Decides when a request has waited long enough, and how long other nodes have for a recall. Must
not know how claims are sent.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from relay.cluster.windows import Held, NodeWindow, SharedLimit

RECALL_TIME: Final = 250  # milliseconds that other nodes have to give back what is unused
# Milliseconds for which a refusal holds for all that come meanwhile: the first, doubled by each
# one that follows.
REFUSAL_TIME: Final = 250
_LONGEST_REFUSAL: Final = 1_000
PATIENCE: Final = 1_000  # milliseconds without an answer of the engine, then it is away
LONGEST_WAIT: Final = 3_000  # milliseconds that a request waits behind others
_FIRST_RETRY: Final = 12  # milliseconds after a recall, doubled each time
TICK: Final = 100  # milliseconds between two ticks of a node
_STALL: Final = 200  # milliseconds by which a tick may be late
_MORE_STALLS: Final = 1_000  # milliseconds beside the longest stall, by which a wait may be longer


class LimitReachedError(Exception):
    """A limit has no room. `reset_in`: milliseconds until it is full again."""

    def __init__(self, limit: SharedLimit, reset_in: int) -> None:
        super().__init__(f"{limit.size} {limit.kind} in {limit.per} s")
        self.limit = limit
        self.reset_in = reset_in


class LedgerAwayError(Exception):
    """The engine is away, and the node's leases have no room; try again in a moment."""


class Stalls:
    """The time for which this process did not run, since others did or it was stopped. Answers that
    came meanwhile are read after timers that have become due: this is no silence of the engine."""

    __slots__ = ("_lost", "_ticked")

    def __init__(self) -> None:
        self._lost = 0
        self._ticked = 0

    def tick(self, now: int) -> None:
        """The process runs. Call it every `TICK` milliseconds."""
        self._lost = self.lost(now)
        self._ticked = now

    def lost(self, now: int) -> int:
        """The milliseconds that were lost until now."""
        late = now - self._ticked - TICK
        return self._lost + late if self._ticked and late > _STALL else self._lost


class Waiter:
    """One request that waits. `lost`: see `Stalls`, when it came, then when last seen."""

    __slots__ = (
        "_longest_stall",
        "_lost",
        "_stalled",
        "amounts",
        "cost",
        "future",
        "since",
        "tokens",
    )

    def __init__(
        self, amounts: Sequence[int], now: int, tokens: int, cost: int, lost: int = 0
    ) -> None:
        self.amounts = amounts  # by window
        self.tokens = tokens
        self.cost = cost
        self.since = now
        self._lost = lost
        self._stalled = 0
        self._longest_stall = 0
        self.future: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

    def waited(self, now: int, stalls: Stalls) -> int:
        """The milliseconds that it has waited while this process ran. Of many stalls, as of a
        process that is always short of time, a bounded part is left out beside the longest one."""
        stall = stalls.lost(now) - self._lost
        self._lost += stall
        self._stalled += stall
        self._longest_stall = max(self._longest_stall, stall)
        return now - self.since - min(self._stalled, self._longest_stall + _MORE_STALLS)


class Draw:
    """The windows that requests of one key take from, and its requests that wait for them."""

    __slots__ = (
        "limits",
        "next_claim",
        "pairs",
        "queue",
        "recall_began",
        "recalls",
        "refusal",
        "refusals",
        "refused_until",
        "timer",
        "used_at",
    )

    def __init__(
        self, limits: Sequence[SharedLimit], windows: Sequence[NodeWindow], now: int
    ) -> None:
        self.limits = limits
        self.pairs = tuple(zip(windows, limits, strict=True))
        self.queue: deque[Waiter] = deque()
        self.next_claim = 0  # the earliest moment of the next claim
        self.recalls = 0  # claims since the last recall began
        self.recall_began = -RECALL_TIME * 2
        self.refusal = (0, 0)  # of the last request: the limit's place, and the amount
        self.refusals = 0  # in a row
        self.refused_until = 0
        self.timer: asyncio.TimerHandle | None = None
        self.used_at = now
        for window in windows:
            window.users += 1

    def forget(self) -> None:
        """Let go of the windows."""
        for window, _ in self.pairs:
            window.users -= 1
            window.draws.discard(self)
        if self.timer is not None:
            self.timer.cancel()

    def enqueue(self, waiter: Waiter) -> None:
        """Let a request wait."""
        self.queue.append(waiter)
        for window, _ in self.pairs:
            window.draws.add(self)

    def dequeue(self) -> Waiter:
        """Take the request at the head of the queue out of it."""
        waiter = self.queue.popleft()
        if not self.queue:
            for window, _ in self.pairs:
                window.draws.discard(self)
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
        return waiter

    def lacking(self, waiter: Waiter, now: int) -> list[tuple[NodeWindow, int]]:
        """The windows without room for a request, with the amount that each lacks."""
        found = []
        for (window, _), amount in zip(self.pairs, waiter.amounts, strict=True):
            left = window.leased.left(now)
            if left < amount:
                found.append((window, amount - left))
        return found

    def obstacle(self, waiter: Waiter, now: int) -> tuple[int, int] | None:
        """The place of the limit that refuses the request at the head of the queue, and the
        milliseconds until it is full again; None: the request may yet be admitted.

        A window refuses if an answer to a claim that was sent after the request came has too
        little, and no other node has anything unused, or had not given it back in time when the
        claim was sent.
        """
        found: tuple[int, int] | None = None
        for place, (window, _) in enumerate(self.pairs):
            leased = window.leased
            lacks = waiter.amounts[place] - leased.left(now)
            if lacks <= 0 or window.answered < waiter.since or leased.free >= lacks:
                continue
            if leased.elsewhere > 0 and window.answered < self._recall_end(waiter, now):
                continue
            reset_in = leased.reset_in(now)
            if found is None or reset_in > found[1]:
                found = (place, reset_in)
        return found

    def _recall_end(self, waiter: Waiter, now: int) -> int:
        """Until when other nodes may give back what is unused. Requests that came before a recall
        began wait for it together."""
        if waiter.since > self.recall_began + RECALL_TIME:
            self.recall_began = now
            self.recalls = 0
            self.postpone_claim(now)
        return self.recall_began + RECALL_TIME

    def postpone_claim(self, now: int) -> None:
        """Leave other nodes a moment to answer a recall; the last claim comes at its end."""
        pause = _FIRST_RETRY << min(self.recalls, 4)
        self.next_claim = min(now + pause, self.recall_began + RECALL_TIME)
        self.recalls += 1

    def is_recalling(self, now: int) -> bool:
        """Whether other nodes still have time to answer a recall."""
        return now < self.recall_began + RECALL_TIME

    def note_refusal(self, place: int, amount: int, reset_in: int, now: int) -> None:
        """The limit at this place has refused an amount, and refuses others like it for a while,
        until its window ends at the latest: a caller who goes on would otherwise cost a round trip
        for each of its requests."""
        self.refusal = (place, amount)
        if now >= self.refused_until:  # not one of those that were refused at once
            refusal_time = min(_LONGEST_REFUSAL, REFUSAL_TIME << self.refusals)
            self.refused_until = now + min(refusal_time, reset_in)
            self.refusals = min(self.refusals + 1, 3)

    def refuses(self, amounts: Sequence[int], now: int) -> bool:
        """Whether a request like these was refused a moment ago."""
        place, amount = self.refusal
        return now < self.refused_until and amounts[place] >= amount
