"""The ledger of a node: limits that several machines share are held in leases, others in parts.

`reserve` takes from the node's leases (`SharedLimits`) in one synchronous step. Where they have no
room it raises `NoLeaseError`, and `claim` waits for more; `grant` hands it to the next `reserve`.
The windows in `KeyState` are a mirror: of the part of each window that no other node holds.

Decides which limits are shared:
- windows, an account's balance, and limits of more than a minute that refill smoothly, which are
  windows here. The owner of these windows is PostgreSQL;
- smooth limits of up to a minute, and concurrency, protect against floods: each node has an equal
  part, at least 1.

The latest use of each lease goes to the journal with the entries of its requests (`changes`), so
that the next process can report it (`report_earlier`). Must not know requests or SQL.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from relay.cluster.reservations import NodeReservation, NoLeaseError
from relay.cluster.shares import (
    LeaseRows,
    NodeCounters,
    Parts,
    SharedKey,
    give_all_back,
    refusal,
    show_window,
    smooth_amount,
)  # fmt: skip
from relay.cluster.waiting import LedgerAwayError, LimitReachedError
from relay.cluster.windows import Held, upstream_owner
from relay.errors import OVERLOADED, RelayError
from relay.quota import exceeded
from relay.quota.bucket import Bucket, Mark, TokenBucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.further import FurtherReservation
from relay.quota.holdings import SharedChange, Use
from relay.quota.ledger import Ledger, LimitView
from relay.quota.plans import Plan
from relay.quota.state import UPSTREAM, Balance, KeyState, LimitCounters, Reservation, Row

if TYPE_CHECKING:
    from relay.cluster.limits import SharedLimits
    from relay.cluster.views import Views

AWAY: Final = "The ledger that this relay shares with others is away. Try again in a moment."
_FORGET_FROM: Final = 1_000  # keys without state


class ClusterLedger(Ledger):
    """See the module."""

    def __init__(self, limits: "SharedLimits") -> None:
        super().__init__()
        self.limits = limits
        self.lease_rows = LeaseRows(limits)
        self._parts = Parts(limits.nodes)
        self._keys: dict[str, SharedKey] = {}
        self._granted: tuple[SharedKey, Held] | None = None
        # The address of an upstream, by the key of its limits: part of the name that nodes share.
        self.address_of: Callable[[str], str] | None = None
        # Called when an upstream's own limits have no lease: it claims, and wakes the pool.
        self.on_upstream: Callable[[NoLeaseError], None] | None = None
        self.views: Views | None = None  # the use on all nodes, for people
        # Carries out a change of windows for all nodes.
        self.on_change: Callable[[SharedChange], Awaitable[None]] | None = None
        limits.on_nodes = lambda nodes: self._parts.divide(self._counters.values(), nodes)
        limits.call_back = self._call_back

    # --- one request ---

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        """See `Ledger.reserve`.

        Raises:
            NoLeaseError: the leases have no room. Nothing was taken.
            QuotaExceeded: it is not admitted, and nothing was taken.
        """
        moment = int(now * 1000)
        key_state = self.key_state(account, key, plan, now)
        shared = self._shared_of(key_state)
        counters, balance = key_state.counters, key_state.balance
        if not self._has_place(key_state) or (
            balance is not None and balance.amount < max(cost, 1)
        ):
            counters.must_check = True
            raise self._obstacle(shared, key_state, moment, (tokens, cost))
        amounts: list[tuple[Bucket, int, Mark]] = []
        for limit, bucket in shared.smooth:
            amount = smooth_amount(limit, bucket, tokens)
            if not bucket.take(amount, moment):
                give_all_back(amounts, moment)
                counters.must_check = True
                raise self._obstacle(shared, key_state, moment, (tokens, cost))
            amounts.append((bucket, amount, bucket.mark))
        held = self._hold(shared, tokens, cost)
        if held is None and shared.limits:
            give_all_back(amounts, moment)
            missing = NoLeaseError(shared, key_state, tokens, cost)
            if self.on_upstream is not None and key.startswith(UPSTREAM):
                self.on_upstream(missing)
            raise missing
        if balance is not None:
            balance.held += cost
        reservation = NodeReservation(key_state, counters, [], [], balance, cost)
        reservation.shared, reservation.held = shared, held
        reservation.missing, reservation.more = 0, None
        self._count(reservation, amounts)
        if held is not None:
            self._note(shared, held, moment)
        return reservation

    def _count(self, reservation: NodeReservation, amounts: list[tuple[Bucket, int, Mark]]) -> None:
        """Count it among the requests in flight, with the amounts of its smooth limits."""
        shared, counters = reservation.shared, reservation.counters
        reservation.key_state.in_flight += 1
        counters.in_flight += 1
        self.mark_changed(counters)
        further: list[FurtherReservation] = []
        for owner in reservation.key_state.further:
            owner.in_flight += 1
            self.mark_changed(owner)
            further.append(FurtherReservation(owner, []))
        for (limit, _), taken, place in zip(shared.smooth, amounts, shared.places, strict=True):
            if place > 0:
                further[place - 1].taken.append((limit, *taken))
            elif limit.kind == "tokens":
                reservation.tokens.append(taken)
        reservation.further = further

    def _hold(self, shared: SharedKey, tokens: int, cost: int) -> Held | None:
        """Take from the leases, or take what was granted to this request."""
        granted, self._granted = self._granted, None
        if granted is not None:
            if granted[0] is shared:
                return granted[1]
            granted[1].undo(self.limits.clock())
        if not shared.limits:
            return None
        return self.limits.try_reserve(shared.account, shared.key, shared.limits, tokens, cost)

    def hold_more(self, reservation: Reservation, cost: int) -> None:
        """See `Ledger.hold_more`: as far as the lease has it, `hold_missing` claims the rest."""
        balance = reservation.balance
        if balance is None or cost <= reservation.cost:
            return
        more = cost - reservation.cost
        if isinstance(reservation, NodeReservation) and reservation.held is not None:
            taken = reservation.held.hold_more(more, self.limits.clock())
            reservation.missing = more - taken
            balance.held += taken
            reservation.cost += taken

    async def hold_missing(self, reservation: Reservation) -> None:
        """Hold the rest of a `hold_more`, or as much of it as the balance has."""
        if not isinstance(reservation, NodeReservation):
            return
        balance, missing = reservation.balance, reservation.missing
        reservation.missing = 0
        shared = reservation.shared
        if balance is None or not missing:
            return
        limits = shared.balance_only
        for _ in range(2):
            try:
                held = await self.limits.reserve(
                    shared.account, shared.key + "+", limits, 0, missing
                )
            except LimitReachedError:
                [state] = self.limits.view(shared.account, shared.key + "+", limits)
                missing = min(missing, state.remaining)
                if missing <= 0:
                    return
                continue
            except LedgerAwayError:
                return
            if not reservation.open:  # it ended meanwhile
                held.undo(self.limits.clock())
                return
            reservation.more = held
            balance.held += missing
            reservation.cost += missing
            return

    def settle(
        self,
        reservation: Reservation,
        now: float,
        tokens: int | None = None,
        cost: int | None = None,
    ) -> bool:
        """See `Ledger.settle`."""
        if not super().settle(reservation, now, tokens, cost):
            return False
        if isinstance(reservation, NodeReservation):
            moment, held, more = self.limits.clock(), reservation.held, reservation.more
            if more is not None:
                if cost is None:
                    cost = reservation.cost
                more.undo(moment)
            if held is not None:
                held.settle(moment, tokens, cost)
                for one in held.taken:  # the next request lets the windows show it
                    self.lease_rows.touch(one[0])
        return True

    def refund(self, reservation: Reservation, now: float) -> bool:
        """See `Ledger.refund`."""
        if not super().refund(reservation, now):
            return False
        if isinstance(reservation, NodeReservation):
            moment, held, more = self.limits.clock(), reservation.held, reservation.more
            if more is not None:
                more.undo(moment)
            if held is not None:
                held.refund(moment)
                self._note(reservation.shared, held, int(now * 1000))
        return True

    def end_leases(self, reservation: Reservation, use: Use) -> None:
        """See `Ledger.end_leases`."""
        if isinstance(reservation, NodeReservation) and reservation.held is not None:
            held, now = reservation.held, self.limits.clock()
            if use is None:
                held.refund(now)
            else:
                held.settle(now, *use)
            self._note(reservation.shared, held, int(time.time() * 1000))

    def lend(self, reservation: Reservation) -> None:
        """See `Ledger.lend`."""
        if isinstance(reservation, NodeReservation) and reservation.held is not None:
            reservation.held.lend(reservation.key_state.account, 1)

    def end_loan(self, reservation: Reservation) -> None:
        """See `Ledger.end_loan`."""
        if isinstance(reservation, NodeReservation) and reservation.held is not None:
            reservation.held.lend(reservation.key_state.account, -1)
            for one in reservation.held.taken:
                self.lease_rows.touch(one[0])

    def give_up(self, reservation: Reservation, now: float) -> bool:
        """See `Ledger.give_up`."""
        if isinstance(reservation, NodeReservation) and reservation.held is not None:
            reservation.held.undo(self.limits.clock())
        return self.refund(reservation, now)

    def check(
        self, account: str, key: str, plan: Plan, now: float, *, counting: bool = False
    ) -> None:
        """See `Ledger.check`. Raises NoLeaseError: a claim decides."""
        if counting:
            super().check(account, key, plan, now, counting=True)
            return
        moment = int(now * 1000)
        key_state = self.key_state(account, key, plan, now)
        shared, balance = self._shared_of(key_state), key_state.balance
        if (
            not self._has_place(key_state)
            or (balance is not None and balance.amount < 1)
            or not all(
                bucket.has_room(smooth_amount(one, bucket, 0), moment)
                for one, bucket in shared.smooth
            )
        ):
            raise self._obstacle(shared, key_state, moment, (0, 0))
        if not self.limits.can_take(account, shared.key, shared.limits):
            raise NoLeaseError(shared, key_state, 0, 0)
        key_state.counters.must_check = False

    def count_refusal(self, key_state: KeyState, now: float) -> None:
        """See `Ledger.count_refusal`; of windows, as far as the lease has room."""
        moment, counters = int(now * 1000), key_state.counters
        counters.must_check = True
        for bucket in counters.short_buckets:
            if isinstance(bucket, TokenBucket) and bucket.take(1, moment):
                self.mark_changed(counters)
        shared = self._shared_of(key_state)
        windows = self.limits.windows_of(shared.account, shared.key, shared.limits)
        for limit, window in zip(shared.limits, windows, strict=True):
            counts = limit.scope in ("key", "account") and limit.counts_when_refunded
            if counts and window.leased.take(1, self.limits.clock()):
                self.lease_rows.touch(window)

    # --- claims ---

    async def claim(self, missing: NoLeaseError) -> Held:
        """Wait for room for a request; `grant` hands it to `reserve`.

        Raises:
            QuotaExceeded: a limit has no room on any node.
            RelayError: 503, the engine is away, and `on_outage` is "refuse" or the part is used.
        """
        shared, key_state = missing.shared, missing.key_state
        try:
            return await self.limits.reserve(
                shared.account, shared.key, shared.limits, missing.tokens, missing.cost
            )
        except LimitReachedError as error:
            key_state.counters.must_check = True
            moment = int(time.time() * 1000)
            self.show(shared, moment)
            wanted = error, missing.cost
            found = refusal(self.limits, shared, key_state.balance, wanted, moment)
            raise found or missing from None
        except LedgerAwayError:
            key_state.counters.must_check = True
            raise RelayError(OVERLOADED, AWAY) from None

    def grant(self, missing: NoLeaseError, held: Held) -> None:
        """Let the next `reserve`, in the same step of the loop, have what was claimed."""
        self._granted = (missing.shared, held)

    def end_grant(self) -> None:
        """Give back what that `reserve` did not take."""
        granted, self._granted = self._granted, None
        if granted is not None:
            granted[1].undo(self.limits.clock())

    # --- what is shown ---

    def view(self, account: str, key: str, plan: Plan, now: float) -> list[LimitView]:
        """See `Ledger.view`: of windows, what no other node holds, unless `refresh` knows more."""
        key_state, moment = self.key_state(account, key, plan, now), int(now * 1000)
        shared = self._shared_of(key_state)
        self.show(shared, moment)
        if self.views is not None:
            self.views.show(key_state.counters, self._name_of(key_state.counters.owner), moment)
        return super().view(account, key, plan, now)

    async def refresh(
        self, owners: Sequence[tuple[Plan, str]], now: float, account: str = ""
    ) -> None:
        """See `Ledger.refresh`."""
        moment, found = int(now * 1000), []
        for plan, owner in owners:
            counters = self.counters_of("account" if plan.by_account else "key", owner)
            if counters.plan is None:
                counters.adopt(plan, moment)
            found.append((counters, self._name_of(counters.owner)))
        if self.views is not None:
            await self.views.refresh(found, account)
            for counters, name in found:
                self.views.show(counters, name, int(time.time() * 1000))

    def amount(self, balance: Balance) -> int:
        """See `Ledger.amount`."""
        charged = None if self.views is None else self.views.charged(balance.account)
        return balance.amount if charged is None else balance.credited - charged + balance.held

    def _note(self, shared: SharedKey, held: Held, moment: int) -> None:
        """The use of leases has changed."""
        now, rows, counters = self.limits.clock(), self.lease_rows, shared.counters
        for mirror, one in zip(shared.mirrors, held.taken, strict=True):
            window = one[0]
            rows.touch(window)
            if mirror is not None:
                show_window(mirror, window, now, moment)
                if mirror.used >= mirror.size:
                    counters.must_check = True

    def show(self, shared: SharedKey, moment: int) -> None:
        """Let the limits of a key stand as this node knows them; `moment`: ms."""
        now = self.limits.clock()
        windows = self.limits.windows_of(shared.account, shared.key, shared.limits)
        for mirror, window in zip(shared.mirrors, windows, strict=True):
            if mirror is not None:
                show_window(mirror, window, now, moment)

    def _obstacle(
        self, shared: SharedKey, key_state: KeyState, moment: int, wanted: tuple[int, int]
    ) -> QuotaExceeded:
        self.show(shared, moment)
        return exceeded.obstacle_error(key_state, moment, *wanted)

    # --- keys ---

    def _shared_of(self, key_state: KeyState) -> SharedKey:
        """The shared limits of a key, as they are now."""
        key = key_state.key
        name, shared = self._name_of(key), self._keys.get(key)
        if shared is None or shared.key != name or not shared.is_current(key_state):
            shared = self._keys[key] = SharedKey(key_state, name, int(time.time() * 1000))
        return shared

    def _name_of(self, owner: str) -> str:
        """The name that nodes have for a key or an account, or for an upstream."""
        if self.address_of is not None and owner.startswith(UPSTREAM):
            return upstream_owner(owner, self.address_of(owner))
        return owner

    async def adjust_shared(self, change: SharedChange) -> None:
        """See `Holdings.adjust_shared`. Leases that are out may still be used."""
        if self.on_change is not None:
            await self.on_change(change)
            self._keys.clear()  # their use before they were shared may be forgotten

    def counters_of(self, scope: str, owner: str) -> LimitCounters:
        """See `Holdings.counters_of`."""
        counters = self._counters.get((scope, owner))
        if counters is None:
            counters = self._counters[scope, owner] = NodeCounters(scope, owner, self._parts)
        return counters

    def _has_place(self, key_state: KeyState) -> bool:
        """Whether another request at once is within this node's part."""
        for plan in (key_state.plan, *[one.plan for one in key_state.further]):
            most = 0 if plan is None else plan.max_concurrency
            if most and self._parts.of(most) <= key_state.in_flight:
                return False
        return True

    async def _call_back(self, account: str) -> None:
        """Another node needs what workers hold of an account, and no request has used."""
        if self.call_back is not None:
            await self.call_back(account)

    def sweep(self, now: float, max_owners: int = 200) -> list[tuple[str, str]]:
        """See `Holdings.sweep`."""
        deleted = super().sweep(now, max_owners)
        if len(self._keys) > 2 * len(self._key_states) + _FORGET_FROM:
            for key in [key for key in self._keys if key not in self._key_states]:
                del self._keys[key]
        return deleted

    # --- persistence ---

    def changes(self) -> list[Row]:
        """See `Holdings.changes`; with the use of leases."""
        return super().changes() + self.lease_rows.take()

    def go_on(self, *, alive: bool) -> None:
        """See `Holdings.go_on`: the leases of a process that has ended are reported."""
        if alive:
            self.lease_rows.drop_earlier()
        else:
            self.lease_rows.report_earlier()

    def restore(self, rows: Iterable[Row], *, written: bool = True) -> None:
        """See `Holdings.restore`; the leases in them are an earlier process's."""
        super().restore(self.lease_rows.split(rows), written=written)
