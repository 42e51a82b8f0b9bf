"""The owner's side of one worker's slots: reservations made ahead, and their settlement.

A slot is an ordinary reservation in the ledger, so everything that is lent is held: no sequence of
messages admits more than a limit has. A worker that dies leaves its slots here: those in use are
settled as after a crash, the others are refunded.

Decides how many slots a worker gets and for how long. Must not know how they are used.
"""

import contextlib
import logging
from collections.abc import Callable
from time import time
from typing import Any, Final

import msgspec

from relay.app import App
from relay.errors import FORBIDDEN, OVERLOADED, RelayError
from relay.gateway.admission import UNWRITTEN
from relay.gateway.remote_errors import by_value
from relay.net.runner import Waiter
from relay.quota.bucket import FixedWindow
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import Plan
from relay.quota.state import UPSTREAM, KeyState, LimitCounters, Reservation, Row
from relay.store.records import AdmissionRow, Charge, Settlement, crash_charge, crash_settlement
from relay.workers.link import Link, LinkClosedError
from relay.workers.loans import Loan, trim
from relay.workers.slots import MOST
from relay.workers.traffic import Batch, Closed, Grant, Wish, decode_batch

_LIFETIME_MS: Final = 90_000
_MAX_UNUSED: Final = 20_000  # slots of one worker, of all keys; about 1 KiB each

_log = logging.getLogger("relay.workers")


class Lender:
    """The slots of one worker. `processes` gives the number of processes that serve."""

    def __init__(self, app: App, link: Link, processes: Callable[[], int]) -> None:
        self._app = app
        self.link = link
        self._processes = processes
        self._numbers = 0
        self._lent: dict[int, Reservation] = {}
        self._unused: dict[int, Loan] = {}  # of slots that were not used yet
        self._unused_by_account: dict[str, int] = {}
        self._used: dict[Loan, int] = {}  # how many slots this batch uses, by loan
        self._running: dict[int, AdmissionRow] = {}  # by slot
        self._slots: dict[str, int] = {}  # of these, by request id
        self._costs: dict[int, int] = {}  # of slots that closed before their requests ended
        self.is_late = False  # with an answer to a recall
        link.on_batch = self.take

    @property
    def unused(self) -> int:
        """Number of slots that the worker has not used."""
        return len(self._unused)

    @property
    def running(self) -> int:
        """Number of requests that it has admitted and that have not ended."""
        return len(self._running)

    def has_unused(self, account: str) -> bool:
        """Whether the worker holds slots of an account that it has not used."""
        return account in self._unused_by_account

    # --- grants ---

    def grant(self, wish: Wish) -> Grant:
        """Slots for a key.

        Raises:
            RelayError: the request that waits is refused, see `Ledger.reserve`.
        """
        now, plan = self._now(wish.key), self.plan_of(wish)
        ledger = self._app.ledger
        if not self._app.journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        lent = []
        if wish.waits:
            lent.append(ledger.reserve(wish.account, wish.key, plan, now, wish.tokens, wish.cost))
        key_state = ledger.key_state(wish.account, wish.key, plan, now)
        moment = int(now * 1000)
        many = min(wish.slots, self._share(key_state, wish, moment))
        try:
            for _ in range(many):
                lent.append(
                    ledger.reserve(
                        wish.account, wish.key, plan, now, wish.slot_tokens, wish.slot_cost
                    )
                )
        except QuotaExceeded:  # less is left than it seemed
            pass
        numbers = self._lend(lent, wish) if lent else []
        return Grant(
            numbers, wish.slot_tokens, wish.slot_cost, _lifetime(key_state, moment),
            rows_of(key_state),
        )  # fmt: skip

    async def recall(self, account: str) -> None:
        """Have the worker give back what it has not used of an account."""
        with contextlib.suppress(LinkClosedError):
            await self.link.ask("recall", account)

    def rows(self, wish: Wish) -> list[Row]:
        """The limits of the key that a wish names."""
        try:
            plan = self.plan_of(wish)
        except RelayError:
            return []
        now = self._now(wish.key)
        return rows_of(self._app.ledger.key_state(wish.account, wish.key, plan, now))

    def has_room(self, wish: Wish) -> bool:
        """Whether a wish that was refused may be granted now, or for another reason not."""
        try:
            plan = self.plan_of(wish)
        except RelayError:
            return True
        now = self._now(wish.key)
        ready = self._app.ledger.ready_at(wish.account, wish.key, plan, now, wish.tokens)
        return ready <= now

    def check(self, account: str, key: str, plan: str, *, counting: bool) -> None:
        """See `Ledger.check`; a request that only counts tokens is counted. Raises RelayError."""
        found, now, ledger = self.plan(plan), time(), self._app.ledger
        ledger.check(account, key, found, now, counting=counting)
        if counting:
            ledger.admit_count(account, key, found, now)

    def plan(self, plan: str) -> Plan:
        """A plan by its id. Raises RelayError: it is not offered."""
        return self._app.catalog.plan(plan)

    def plan_of(self, wish: Wish) -> Plan:
        """The plan that a wish names. Raises RelayError: it is not offered here."""
        if wish.key.startswith(UPSTREAM):
            upstream = self._app.upstreams.named(wish.key[len(UPSTREAM) :])
            if upstream is None or upstream.limits is None:
                raise RelayError(FORBIDDEN, "The upstream has no limits of its own any more.")
            return upstream.limits
        return self.plan(wish.plan)

    def _now(self, key: str) -> float:
        return self._app.upstreams.now() if key.startswith(UPSTREAM) else time()

    def _lend(self, reservations: list[Reservation], wish: Wish) -> list[int]:
        """Number reservations that the worker is to have."""
        groups = [reservations]
        sizes = [wish.slot_tokens]
        if wish.waits:  # the first may hold other amounts than the rest
            groups = [reservations[:1], reservations[1:]]
            sizes = [wish.tokens, wish.slot_tokens]
        numbers = []
        for group, tokens in zip(groups, sizes, strict=True):
            if not group:
                continue
            loan = Loan(wish.account, group[0], len(group), tokens)
            for reservation in group:
                self._numbers += 1
                numbers.append(self._numbers)
                self._lent[self._numbers] = reservation
                self._unused[self._numbers] = loan
                self._app.ledger.lend(reservation)
        counts = self._unused_by_account
        counts[wish.account] = counts.get(wish.account, 0) + len(numbers)
        return numbers

    def _share(self, key_state: KeyState, wish: Wish, now: int) -> int:
        """How many slots may be lent ahead: less and less of what is left, so that others find
        some. None where no window is open and nobody waits: it would begin without a request."""
        # The more the worker has, the fewer at a time, so that all keys get some.
        room = _MAX_UNUSED - len(self._unused)
        many = min(wish.slots, -(-room * MOST // _MAX_UNUSED))
        parts = 2 * self._processes()
        for counters in (key_state.counters, *key_state.further):
            assert counters.plan is not None
            if counters.plan.max_concurrency:
                most = counters.plan.max_concurrency - key_state.in_flight
                many = min(many, most // parts)
            for limit, bucket in zip(counters.plan.limits, counters.buckets, strict=True):
                if isinstance(bucket, FixedWindow) and now >= bucket.end:
                    return 0
                size = 1
                if limit.kind != "requests":
                    size = wish.slot_tokens if limit.kind == "tokens" else wish.slot_cost
                many = min(many, bucket.remaining(now) // (max(1, size) * parts))
        balance = key_state.balance
        if balance is not None:
            left = balance.amount - balance.held
            many = min(many, left // (max(1, wish.slot_cost) * parts))
        return max(0, many)

    def admitted(self, reservation: Reservation, row: AdmissionRow) -> int:
        """A request of the worker was admitted, and is in the journal; returns its slot."""
        self._numbers += 1
        number = self._numbers
        self._lent[number] = reservation
        self._run(number, row)
        return number

    def _run(self, number: int, row: AdmissionRow) -> None:
        """A request runs in a slot. If it was admitted before, that admission has no end."""
        before = self._slots.pop(row.id, None)
        if before is not None:
            del self._running[before]
            self._costs.pop(before, None)
        self._running[number] = row
        self._slots[row.id] = number

    def withdraw(self, number: int, end: Settlement) -> None:
        """The worker of an admitted request is gone before it could begin."""
        self._close((number, False, None, None), time())
        self._end(end, None)

    async def admit_row(self, row: AdmissionRow, plan: str, wish: int) -> int:
        """Admit a request that the worker has estimated, and write it; returns its slot.

        Raises:
            RelayError: it is refused, or cannot be written.
        """
        app = self._app
        if not app.journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        reservation = app.ledger.reserve(
            row.user_id, row.key_id, self.plan(plan), time(), row.reserved, row.billed_micro
        )
        app.ledger.hold_more(reservation, wish)
        number = self.admitted(reservation, row)
        written: Waiter[bool] = Waiter()
        app.journal.open(row).when_durable(written.set_result)
        if not await written:
            self._close((number, False, None, None), time())
            lost = msgspec.structs.replace(
                crash_settlement(row), cost_micro=0, outcome="refused", rule="refunded"
            )
            self._end(lost, None)
            raise RelayError(OVERLOADED, UNWRITTEN)
        return number

    # --- their use and their return ---

    def take(self, octets: bytes) -> None:
        """One batch of the worker's traffic."""
        self.is_late = False
        batch: Batch = decode_batch(octets)
        now = time()
        try:
            self._take_slots(batch, now)
        finally:
            self._end_loans()
        for account, key, plan in batch.refused:
            self._count_refusal(account, key, plan, now)

    def _take_slots(self, batch: Batch, now: float) -> None:
        """Let requests begin and end in their slots, and take slots back."""
        if batch.opened:
            self._open(batch, int(now * 1000))
        for number in batch.taken:
            self._use(number)
        for number, cost in batch.more:
            if (reservation := self._lent.get(number)) is not None:
                self._app.ledger.hold_more(reservation, cost)
        for closed in batch.closed:
            self._close(closed, now)
        for settlement, charge in batch.ended:
            self._end(settlement, charge)
        for number in batch.returned:
            self._return(number, now)

    def _open(self, batch: Batch, now: int) -> None:
        journal = self._app.journal
        ticket = None
        by_loan: dict[Loan, list[Reservation]] = {}
        for number, row in batch.opened:
            loan, reservation = self._use(number), self._lent.get(number)
            if loan is not None and reservation is not None:
                by_loan.setdefault(loan, []).append(reservation)
            self._run(number, row)
            ticket = journal.open(row)  # all of them are of one batch there, too
        assert ticket is not None
        for loan, reservations in by_loan.items():
            loan.begin(reservations, now)
        for number, row in batch.opened:
            if (reservation := self._lent.get(number)) is not None:
                trim(reservation, row.reserved, row.billed_micro, now)

        def report(durable: bool) -> None:
            if durable:
                self.link.send("durable", batch.number)
                self.link.flush()

        ticket.when_durable(report)

    def _use(self, number: int) -> Loan | None:
        """A slot is not unused any more; returns its loan, if it was. `_end_loans` follows."""
        loan = self._unused.pop(number, None)
        if loan is None:
            return None
        counts = self._unused_by_account
        left = counts[loan.account] - 1
        if left:
            counts[loan.account] = left
        else:
            del counts[loan.account]
        self._used[loan] = self._used.get(loan, 0) + 1
        if (reservation := self._lent.get(number)) is not None:
            self._app.ledger.end_loan(reservation)
        return loan

    def _end_loans(self) -> None:
        """Slots that are not unused any more are not lent any more."""
        used, self._used = self._used, {}
        for loan, count in used.items():
            loan.use(self._app.ledger, count)

    def return_unused(self) -> None:
        """Take all slots back that the worker has not used: it will not."""
        now = time()
        for number in list(self._unused):
            self._return(number, now)
        self._end_loans()

    def _return(self, number: int, now: float) -> None:
        """A slot comes back that no request has used: it leaves no trace."""
        loan = self._use(number)
        reservation = self._lent.pop(number, None)
        if reservation is None or loan is None:
            return
        if reservation.key_state.key.startswith(UPSTREAM):
            now = self._app.upstreams.now()
        self._app.ledger.give_up(reservation, now)
        loan.withdraw(int(now * 1000))

    def _close(self, closed: Closed, now: float) -> None:
        number, is_used, tokens, cost = closed
        self._use(number)
        reservation = self._lent.pop(number, None)
        if reservation is None:
            return
        if reservation.key_state.key.startswith(UPSTREAM):
            now = self._app.upstreams.now()
        if is_used:
            self._app.ledger.settle(reservation, now, tokens, cost)
        else:
            self._app.ledger.refund(reservation, now)
        if cost and number in self._running:
            self._costs[number] = cost

    def _end(self, settlement: Settlement, charge: Charge | None) -> None:
        number = self._slots.pop(settlement.id, None)
        if number is None:
            _log.error("request %s ended in a worker, and is unknown here", settlement.id)
            return
        del self._running[number]
        self._costs.pop(number, None)
        self._app.journal.settle(settlement, charge)

    def _count_refusal(self, account: str, key: str, plan: str, now: float) -> None:
        try:
            found = self._app.catalog.plan(plan)
        except RelayError:
            return
        ledger = self._app.ledger
        ledger.count_refusal(ledger.key_state(account, key, found, now), now)

    def end(self) -> None:
        """The worker is gone: settle what it has in use as after a crash, refund the rest."""
        now, ledger, journal = time(), self._app.ledger, self._app.journal
        if self._running:
            _log.warning("a worker is gone with %d requests in flight", len(self._running))
        for number, row in self._running.items():
            charge = crash_charge(row, now)
            reservation = self._lent.pop(number, None)
            charged = self._costs.pop(number, None)
            if reservation is not None:
                cost = row.billed_micro if reservation.balance is not None else None
                ledger.settle(reservation, now, row.reserved, cost)
            elif charge is not None:  # closed already, with its cost
                charge = msgspec.structs.replace(charge, micro=charged) if charged else None
            journal.settle(crash_settlement(row), charge)
        self._running.clear()
        self._slots.clear()
        self.return_unused()
        for reservation in self._lent.values():
            ledger.settle(reservation, self._now(reservation.key_state.key))
        self._lent.clear()


def rows_of(key_state: KeyState) -> list[Row]:
    """The limits of a key as they stand."""
    rows: list[Row] = []
    owners: list[LimitCounters] = [key_state.counters, *key_state.further]
    for counters in owners:
        rows += [row for row in counters.rows() if not row[2].startswith("bonus:")]
    if key_state.balance is not None:
        rows += key_state.balance.rows()
    return rows


def refused(error: RelayError, rows: list[Row]) -> Grant:
    """The answer to a request that is not admitted."""
    return Grant([], 0, 0, 0, rows, by_value(error))


def wish_of(values: list[Any]) -> Wish:
    """A wish as it came over the link."""
    return msgspec.convert(values, Wish)


def _lifetime(key_state: KeyState, now: int) -> int:
    """For how long (ms) slots may be used: none outlasts a window that it was taken from."""
    lifetime = _LIFETIME_MS
    for counters in (key_state.counters, *key_state.further):
        for bucket in counters.buckets:
            if isinstance(bucket, FixedWindow):
                lifetime = min(lifetime, bucket.end - now)
    return max(0, lifetime)
