"""Requests of a process that has handed over: the process that took its place admits them.

A request may arrive on an open connection, or finish its upload, after the limits have moved. It is
admitted by the new ledger, served here, and settled there.

Decides how an admission is asked for. Must not know how it is decided.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from relay.errors import OVERLOADED, Kind, RelayError
from relay.gateway.admission import UNMETERED, UNWRITTEN, Admission, MeteredAdmission
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.metering import Admissions, Metering
from relay.net.runner import Waiter
from relay.quota.exceeded import QuotaExceeded
from relay.quota.held import HeldQuota
from relay.quota.holdings import Use
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import Reservation
from relay.quota.transfer import RemoteReservation, describe
from relay.store.journal import Journal
from relay.store.keys import LiveKey
from relay.store.records import AdmissionRow, Charge, Settlement
from relay.translate.messages.features import Features

Send = Callable[..., None]
_GONE: Final = "The relay was replaced while this request came. Send it again."


class _AskingLedger(Ledger):
    """Reserves nothing itself: notes what is to be reserved elsewhere."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.wish = 0

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        key_state = self._ledger.key_state(account, key, plan, now)
        balance = self._ledger.balance(account) if plan.prepaid else None
        self.wish = 0
        return RemoteReservation(key_state, key_state.counters, [], [], balance, cost)

    def hold_more(self, reservation: Reservation, cost: int) -> None:
        self.wish = cost

    def settle(
        self,
        reservation: Reservation,
        now: float,
        tokens: int | None = None,
        cost: int | None = None,
    ) -> bool:
        return self._ledger.settle(reservation, now, tokens, cost)

    def refund(self, reservation: Reservation, now: float) -> bool:
        return self._ledger.refund(reservation, now)


class Borrower:
    """Forwards what closes and ends here, and asks for what is to be admitted."""

    def __init__(self, ledger: Ledger, journal: Journal, metering: Metering) -> None:
        self._ledger = ledger
        self._journal = journal
        self._metering = metering
        self._asking = _AskingLedger(ledger)
        self._quotes = Metering(self._asking, journal)
        self._send: Send | None = None  # None: until the other process serves
        self._ended: list[tuple[Settlement, Charge | None]] = []
        self._closed: list[tuple[HeldQuota, Use]] = []
        self._numbers = 0
        self._before: Admissions | None = None
        self._asked: dict[int, tuple[Waiter[list[Any]], AdmissionRow]] = {}
        self._decided = False  # which process serves
        self._waiting: list[Waiter[None]] = []

    def begin(self) -> None:
        """From now on this process neither admits nor writes."""
        self._ledger.on_close = self._on_close
        self._journal.on_end = self._on_end
        self._before, self._metering.admissions = self._metering.admissions, self

    def note_state(self) -> None:
        """The ledger's state is about to be sent: it has all that has closed until now."""
        self._closed.clear()

    async def give_back(self) -> None:
        """The other process has failed: this one goes on by itself."""
        await self._journal.resume()
        self._ledger.on_close = None
        self._journal.on_end = None
        self._metering.admissions = self._before
        for ended in self._ended:
            self._journal.settle(*ended)
        self._decide()

    def commit(self, send: Send) -> None:
        """The other process serves: `send` reaches it."""
        self._send = send
        self._journal.healthy, self._journal.failure = True, ""
        for held, use in self._closed:
            send("close", held, use)
        for settlement, charge in self._ended:
            send("end", settlement, charge)
        self._closed, self._ended = [], []
        self._decide()

    def _decide(self) -> None:
        self._decided = True
        for waiter in self._waiting:
            if not waiter.done:
                waiter.set_result(None)
        self._waiting.clear()

    def lose(self) -> None:
        """The other process has gone: nothing is admitted here any more."""
        self._journal.healthy, self._journal.failure = False, "another process had it, and is gone"
        for waiter, _ in list(self._asked.values()):
            waiter.set_exception(RelayError(OVERLOADED, _GONE))
        self._asked.clear()

    def answered(self, number: int, *answer: Any) -> None:
        """The answer to an admission."""
        waiter, row = self._asked.pop(number)
        if not waiter.done:
            waiter.set_result([*answer])
        elif answer[0] == "admitted" and self._send is not None:  # its caller has left
            self._send("close", msgspec.convert(answer[1], HeldQuota), None)
            settlement = Settlement(
                row.id, None, None, None, None, None, None, None, 0, None, None,
                "caller left", "refunded",
            )  # fmt: skip
            self._send("end", settlement, None)

    @property
    def admits_again(self) -> bool:
        """See `Admissions`: its first admission stands."""
        return False

    async def check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool
    ) -> None:
        """See `Metering.check`: by the limits as they stood."""
        try:
            self._metering.check(ctx, caller, plan, counting=counting)
        except QuotaExceeded as error:
            refusal = error
        else:
            return
        if self._metering.leases is None:
            raise refusal
        await self._metering.leases.has_room(refusal)

    async def admit(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission:
        """See `Metering.admit`."""
        if inbound.counting:
            return UNMETERED
        await self.decided()
        if (admissions := self._metering.admissions) is not self:  # given back
            if admissions is None:
                return self._metering.admit(ctx, caller, plan, inbound, features)
            return await admissions.admit(ctx, caller, plan, inbound, features)
        if not self._journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        admission = self._quotes.admit(ctx, caller, plan, inbound, features)
        assert isinstance(admission, MeteredAdmission)
        ctx.admission = UNMETERED  # until it is admitted
        assert isinstance(admission.reservation, RemoteReservation)
        await self._ask(plan, admission.row, admission.reservation, self._asking.wish)
        ctx.admission = admission
        return admission

    async def decided(self) -> None:
        """Wait until it is known which process serves."""
        if not self._decided:
            decided: Waiter[None] = Waiter()
            self._waiting.append(decided)
            await decided

    async def admit_row(self, plan: Plan, row: AdmissionRow, wish: int) -> Reservation:
        """Admit the request of another process, which has estimated it. After `decided`.

        Raises:
            RelayError: it is not admitted.
        """
        if not self._journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        reservation = self._asking.reserve(
            row.user_id, row.key_id, plan, row.time, row.reserved, row.billed_micro
        )
        assert isinstance(reservation, RemoteReservation)
        await self._ask(plan, row, reservation, wish)
        return reservation

    async def _ask(
        self, plan: Plan, row: AdmissionRow, reservation: RemoteReservation, wish: int
    ) -> None:
        """Raises RelayError: it is not admitted."""
        assert self._send is not None
        self._numbers += 1
        waiter: Waiter[list[Any]] = Waiter()
        self._asked[self._numbers] = waiter, row
        self._send("admit", self._numbers, row, plan.id, wish)
        kind, *answer = await waiter
        if kind == "refused":
            raise _error(*answer)
        held = reservation.held = msgspec.convert(answer[0], HeldQuota)
        reservation.cost = held.cost
        reservation.key_state.in_flight += 1
        reservation.counters.in_flight += 1
        if reservation.balance is not None:
            reservation.balance.held += held.cost

    def _on_close(self, reservation: Reservation, use: Use) -> None:
        held = describe(reservation)
        if self._send is None:
            self._closed.append((held, use))
        else:
            self._send("close", held, use)

    def _on_end(self, settlement: Settlement, charge: Charge | None) -> None:
        if self._send is None:
            self._ended.append((settlement, charge))
        else:
            self._send("end", settlement, charge)


def refusal(error: RelayError) -> list[object]:
    """An error as a message."""
    kind = error.kind
    headers = [(name.decode(), value.decode()) for name, value in error.headers]
    words = (kind.status, kind.messages_type, kind.openai_type, kind.code)
    return ["refused", *words, error.message, headers]


def _error(*message: Any) -> RelayError:
    status, messages_type, openai_type, code, text, headers = message
    kind = Kind(status, messages_type, openai_type, code)
    error = RelayError(kind, text)
    error.headers = tuple([(name.encode(), value.encode()) for name, value in headers])
    return error
