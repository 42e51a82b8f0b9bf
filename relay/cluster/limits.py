"""A node's admission to limits that several nodes share.

Decides whether a request is admitted: in one synchronous step where the node's leases have room,
else after a claim. Claims ahead of need, gives back what is idle, and at once what another node
recalls. Must not know requests, plans or SQL.

Moments are the node's monotonic clock in milliseconds: a step of the wall clock changes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Final, NamedTuple

from relay.cluster.calls import REPORT, Pulse, WindowClaim
from relay.cluster.courier import Courier, Errand, Reply
from relay.cluster.figures import Figures
from relay.cluster.outage import OnOutage, Outages
from relay.cluster.reports import Reports
from relay.cluster.waiting import (
    LONGEST_WAIT,
    PATIENCE,
    Draw,
    LedgerAwayError,
    LimitReachedError,
    Stalls,
    Waiter,
)
from relay.cluster.windows import Held, LeaseUse, NodeWindow, SharedLimit, Taken, window_name
from relay.quota.share.claims import Claim

_LAST_NUMBER: Final = 2**40  # of a claim for a lease whose process has ended
_REPORT_PAUSE: Final = 1.0  # seconds until a report that failed is sent again
_PAUSE: Final = 50  # milliseconds until the next claim, after one failed or all grants are frozen


def _monotonic() -> int:
    return int(time.monotonic() * 1000)


class LimitState(NamedTuple):
    """One limit as the node knows it."""

    remaining: int  # a lower bound
    reset_in: int  # milliseconds; 0: no window is open


class SharedLimits:
    """See the module."""

    def __init__(
        self, lease: str, courier: Courier, figures: Figures, on_outage: OnOutage,
        clock: Callable[[], int] = _monotonic,
    ) -> None:  # fmt: skip
        """`lease`: begins the names of this node's leases; it has the node and its boot."""
        self.figures = figures
        self.nodes = 1  # that are alive, at the last poll
        self.windows: dict[str, NodeWindow] = {}
        self.live: dict[str, NodeWindow] = {}  # with something unused, held or to be reported
        self.draws: dict[tuple[str, str], Draw] = {}
        self.outages = Outages(on_outage, figures)
        self.reports = Reports(self, self._note_reported)
        self.clock = clock
        self.on_nodes: Callable[[int], None] | None = None  # their number has changed
        # Calls back what was lent to workers of an account and no request has used.
        self.call_back: Callable[[str], Awaitable[None]] | None = None
        self._called_back: dict[str, asyncio.Task[None]] = {}  # by window, under way
        self._is_closed = False
        self._lease = lease
        self._courier = courier
        self._serials = count(1)
        self.stalls = Stalls()

    # --- requests ---------------------------------------------------------------------

    def try_reserve(
        self, account: str, key: str, limits: Sequence[SharedLimit], tokens: int = 0, cost: int = 0
    ) -> Held | None:
        """Admit a request if the leases have room in all limits; None: nothing was taken.
        `limits`: the same object for as long as the key has them."""
        draw = self.draws.get((account, key))
        if draw is None or draw.limits is not limits:
            draw = self._bind(account, key, limits)
        return self._take(draw, tokens, cost, self.clock())

    async def reserve(
        self, account: str, key: str, limits: Sequence[SharedLimit], tokens: int = 0, cost: int = 0
    ) -> Held:
        """Admit a request, if need be after a claim.

        Raises:
            LimitReachedError: a limit has no room on any node.
            LedgerAwayError: the engine is away.
        """
        held = self.try_reserve(account, key, limits, tokens, cost)
        if held is not None:
            return held
        draw = self.draws[account, key]
        now = self.clock()
        amounts = [limit.amount(tokens, cost) for limit in limits]
        if draw.refuses(amounts, now):
            self.figures.refused += 1
            window, limit = draw.pairs[draw.refusal[0]]
            raise LimitReachedError(limit, window.leased.reset_in(now))
        waiter = Waiter(amounts, now, tokens, cost, self.stalls.lost(now))
        draw.enqueue(waiter)
        self.serve(draw)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().refund(self.clock())
            raise

    def settle(self, held: Held, tokens: int | None = None, cost: int | None = None) -> bool:
        """Close a reservation with its use, see `Held.settle`."""
        return held.settle(self.clock(), tokens, cost)

    def refund(self, held: Held) -> bool:
        """Close a reservation that used nothing, see `Held.refund`."""
        return held.refund(self.clock())

    def view(self, account: str, key: str, limits: Sequence[SharedLimit]) -> list[LimitState]:
        """Each limit, in its order. Takes nothing."""
        now = self.clock()
        return [
            LimitState(window.leased.remaining(now), window.leased.reset_in(now))
            for window in self.windows_of(account, key, limits)
        ]

    def windows_of(self, account: str, key: str, limits: Sequence[SharedLimit]) -> list[NodeWindow]:
        """The windows of a key's limits, in their order."""
        draw = self.draws.get((account, key))
        if draw is None or draw.limits is not limits:
            draw = self._bind(account, key, limits)
        return [window for window, _ in draw.pairs]

    def can_take(self, account: str, key: str, limits: Sequence[SharedLimit]) -> bool:
        """Whether the leases have room for the smallest possible request. Takes nothing."""
        now = self.clock()
        windows = self.windows_of(account, key, limits)
        return all(
            window.leased.left(now) >= limit.amount(0, 0)
            for window, limit in zip(windows, limits, strict=True)
        )

    def _bind(self, account: str, key: str, limits: Sequence[SharedLimit]) -> Draw:
        """The draw of a key that is new, or whose limits are."""
        windows = []
        for limit in limits:
            name = window_name(limit, account, key)
            window = self.windows.get(name)
            if window is None:
                # A window that was forgotten and comes back is another lease: the engine passes
                # over claims whose numbers begin again.
                lease = f"{self._lease}/{next(self._serials)}"
                window = self.windows[name] = NodeWindow(name, limit, lease)
            window.limit = limit
            window.size = limit.size
            windows.append(window)
        before = self.draws.get((account, key))
        draw = self.draws[account, key] = Draw(limits, windows, self.clock())
        if before is not None:
            while before.queue:  # its requests go on with these limits
                waiter = before.dequeue()
                waiter.amounts = [limit.amount(waiter.tokens, waiter.cost) for limit in limits]
                draw.enqueue(waiter)
            before.forget()
        return draw

    def _take(self, draw: Draw, tokens: int, cost: int, now: int) -> Held | None:
        """Take from all windows or from none; claim ahead of need."""
        taken: list[Taken] = []
        draw.used_at = now
        for window, limit in draw.pairs:
            amount = limit.amount(tokens, cost)
            leased = window.leased
            if not leased.take(amount, now):
                for earlier, _, back, epoch, _ in taken:
                    earlier.leased.give_back(back, epoch)
                return None
            taken.append((window, limit, amount, leased.epoch, None))
        for window, _ in draw.pairs:
            if window.leased.is_low(now) and not window.claimed and not draw.queue:
                self.claim_ahead(window, now)
        self.figures.admitted += 1
        return Held(taken)

    # --- requests that wait -----------------------------------------------------------

    def serve(self, draw: Draw) -> None:
        """Admit or refuse the requests that wait, in their order, as far as that is known; claim
        for the first of the others."""
        now = self.clock()
        while draw.queue:
            waiter = draw.queue[0]
            if waiter.future.done():  # its caller has left
                draw.dequeue()
                continue
            held = self._take(draw, waiter.tokens, waiter.cost, now)
            if held is not None:
                self.figures.waited += 1
                draw.next_claim = draw.refusals = 0
                draw.dequeue().future.set_result(held)
                continue
            obstacle = draw.obstacle(waiter, now)
            if obstacle is not None:
                self._refuse(draw, *obstacle, now)
            elif self._is_away(draw, waiter, now):
                self._serve_away(draw, waiter, now)
            else:
                self._claim_for(draw, waiter, now)
                return

    def _refuse(self, draw: Draw, place: int, reset_in: int, now: int) -> None:
        self.figures.refused += 1
        waiter = draw.dequeue()
        draw.note_refusal(place, waiter.amounts[place], reset_in, now)
        waiter.future.set_exception(LimitReachedError(draw.pairs[place][1], reset_in))

    def _is_away(self, draw: Draw, waiter: Waiter, now: int) -> bool:
        """Whether the engine's answer is not to be waited for any more."""
        waited = waiter.waited(now, self.stalls)
        away_for = self._courier.away_for()
        if away_for:
            return waited >= PATIENCE or away_for * 1000 >= PATIENCE
        if waited >= LONGEST_WAIT:
            return True
        return waited >= PATIENCE and any(
            window.answered < waiter.since for window, _ in draw.lacking(waiter, now)
        )

    def _serve_away(self, draw: Draw, waiter: Waiter, now: int) -> None:
        held = self.outages.take(draw, waiter, self.nodes, now)
        draw.dequeue()
        if held is not None:
            self.figures.admitted += 1
            # Their use is to be reported once the engine is back.
            self.live.update({window.name: window for window, _ in draw.pairs})
            waiter.future.set_result(held)
            return
        self.figures.refused_away += 1
        waiter.future.set_exception(LedgerAwayError())

    def _claim_for(self, draw: Draw, waiter: Waiter, now: int) -> None:
        """Claim for a request that waits, unless a claim is under way or it is too early."""
        lacking = draw.lacking(waiter, now)
        if now >= draw.next_claim and not any(it.claimed and it.is_urgent for it, _ in lacking):
            if draw.is_recalling(now):
                draw.postpone_claim(now)
            self.send(lacking, now, urgent=True)
        waited = waiter.waited(now, self.stalls)
        wake = now - waited + (PATIENCE if waited < PATIENCE else LONGEST_WAIT)
        if now < draw.next_claim < wake:
            wake = draw.next_claim
        if draw.timer is not None:
            draw.timer.cancel()
        delay = max(1, wake - now) / 1000
        draw.timer = asyncio.get_running_loop().call_later(delay, self.serve, draw)

    # --- claims -----------------------------------------------------------------------

    def send(self, needs: Sequence[tuple[NodeWindow, int]], now: int, *, urgent: bool) -> None:
        """Claim for windows: all of their needs or none. An urgent claim makes one ahead of need
        that is under way void: the engine passes over it if it comes later, and this node over its
        answer."""
        claims = [(window, window.leased.claim(now, need)) for window, need in needs]
        self._send(claims, now, urgent)

    def release(self, window: NodeWindow, now: int, *, urgent: bool) -> None:
        """Give back what is unused."""
        window.recalled = False
        self._send([(window, window.leased.release(now))], now, urgent)

    def claim_ahead(self, window: NodeWindow, now: int) -> None:
        """Claim before a request needs it, unless the engine is away."""
        if self._courier.down_since is None:
            self.send([(window, 0)], now, urgent=False)

    def _send(self, pairs: Sequence[tuple[NodeWindow, Claim]], now: int, urgent: bool) -> None:
        for window, claim in pairs:
            self.live[window.name] = window
            window.claimed = claim.number
            window.is_urgent = urgent
        moment = _epoch_ms()
        claims = [_window_claim(window, claim, moment) for window, claim in pairs]

        def done(reply: Reply) -> None:
            self._answered(pairs, now, reply)

        self._courier.send(Errand(claims, done), urgent=urgent)

    def _answered(self, pairs: Sequence[tuple[NodeWindow, Claim]], sent: int, reply: Reply) -> None:
        heard = []
        for place, (window, claim) in enumerate(pairs):
            if claim.number != window.claimed:
                continue  # another claim was sent meanwhile
            window.claimed = 0
            if reply.grants is None:
                window.leased.lost(claim.number)
                continue
            window.leased.granted(reply.grants[place])
            window.reported = claim.used if claim.epoch == window.leased.epoch else 0
            if claim.need and not reply.frozen:
                window.answered = sent
            heard.append(window)
        if reply.grants is not None:
            self.reports.answered(heard, reply.incarnation)
        now = self.clock()
        for window, _ in pairs:
            for draw in list(window.draws):
                if reply.frozen or reply.grants is None:
                    draw.next_claim = now + _PAUSE
                self.serve(draw)
            if window.recalled and not window.claimed:
                self._yield_to_recall(window, now)

    # --- the node ---------------------------------------------------------------------

    def recalled(self, window_name: str, asker: str) -> None:
        """Another node could use what is unused here. Of two nodes that need more and ask each
        other, the one with the later name keeps what it has. `REPORT`: it only asks for the use."""
        window = self.windows.get(window_name)
        if window is None or window.lease == asker:
            return
        if asker == REPORT:
            if not window.claimed and window.leased.reset_in(self.clock()):
                self.send([(window, 0)], self.clock(), urgent=True)
            return
        self.figures.recalls += 1
        if window.draws and window.lease > asker:
            return
        if (
            window.leased.lent
            and self.call_back is not None
            and window_name not in self._called_back
        ):
            work = self._call_back(window, asker, self.call_back(window.account))
            self._called_back[window_name] = asyncio.get_running_loop().create_task(work)
        self._offer(window)

    async def _call_back(self, window: NodeWindow, asker: str, returned: Awaitable[None]) -> None:
        """Give back what workers held, too."""
        try:
            await returned
        finally:
            del self._called_back[window.name]
        if not (self._is_closed or (window.draws and window.lease > asker)):
            self._offer(window)

    def _offer(self, window: NodeWindow) -> None:
        """Let other nodes have what is unused here, once the answer to a claim is here."""
        if window.claimed:
            window.recalled = True
        else:
            self._yield_to_recall(window, self.clock())

    def _yield_to_recall(self, window: NodeWindow, now: int) -> None:
        window.recalled = False
        if window.leased.left(now):
            self.figures.recalled += 1
            self.release(window, now, urgent=True)

    def polled(self, pulse: Pulse) -> None:
        """The engine answered a poll."""
        if pulse.nodes != self.nodes:
            self.nodes = pulse.nodes
            if self.on_nodes is not None:
                self.on_nodes(pulse.nodes)
        self.reports.observe(pulse.incarnation)

    def reported(self) -> int | None:
        """The incarnation that has all of this node's use; None: nothing was used so far."""
        return self.reports.reported

    def tick(self) -> None:
        """Look after outages and idle leases. Call it ten times a second."""
        link = self._courier.urgent_link
        self.outages.observe(link.down_since is not None, link.reason, self.nodes, self.clock())
        if link.down_since is None:
            self.reports.report_again()
            self.reports.sweep()

    async def close(self) -> None:
        """Refuse those that wait, and give all leases back."""
        self._is_closed = True
        for draw in self.draws.values():
            while draw.queue:
                future = draw.dequeue().future
                if not future.done():
                    future.set_exception(LedgerAwayError())
        now = self.clock()
        for window in list(self.live.values()):
            if window.leased.left(now) or not window.is_settled(now):
                self.release(window, now, urgent=True)
        await self._courier.flush()

    def _note_reported(self, incarnation: int) -> None:
        self._courier.reported = incarnation

    def report_earlier(
        self, uses: Iterable[LeaseUse], done: Callable[[LeaseUse], None] = lambda use: None
    ) -> None:
        """Report the use of leases of an earlier boot, from its journal: their rest is free. `done`
        gets each one that the engine knows; until then it is reported again."""
        for use in uses:
            self._report_use(use, done)

    def _report_use(self, use: LeaseUse, done: Callable[[LeaseUse], None]) -> None:
        window, size, per, lease, epoch, used = use
        claim = Claim(lease, _LAST_NUMBER, epoch, used, used, 0, 0)

        def answered(reply: Reply) -> None:
            if reply.grants is not None:
                done(use)
            elif not self._is_closed:
                loop = asyncio.get_running_loop()
                loop.call_later(_REPORT_PAUSE, self._report_use, use, done)

        self._courier.send(Errand([WindowClaim(window, size, per, claim)], answered), urgent=False)


def _epoch_ms() -> int:
    return int(time.time() * 1000)


def _window_claim(window: NodeWindow, claim: Claim, now: int) -> WindowClaim:
    limit = window.limit
    is_new = not window.leased.epoch and now < limit.seed_ends
    seed, ends_in = (limit.seed, limit.seed_ends - now) if is_new else (0, 0)
    return WindowClaim(window.name, window.size, limit.length(now), claim, seed, ends_in)
