"""The ledger of a worker: requests are admitted from slots, in one synchronous step.

A slot is a reservation in the owner's ledger, made ahead for a key, of so many tokens and
micro-dollars. `reserve` takes one that is large enough. `settle` and `refund` close it, and the
owner closes the reservation with the use. The buckets here are a mirror of the owner's, which the
header fields of answers show: as they stood at the last grant, and changed since by the requests of
this process.

Decides when to ask for slots ahead of need, and how many. Must not know the link: `Traffic` holds
what is to be sent, and `wish` asks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from relay.errors import OVERLOADED
from relay.quota.bucket import FixedWindow
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import UPSTREAM, KeyState, Reservation, Row
from relay.store.records import AdmissionRow, Charge, Settlement

_SPAN_SECONDS: Final = 4.0  # over which the demand of a key is counted
_AHEAD_SECONDS: Final = 30.0  # of that demand that is asked for
MOST: Final = 64  # slots at a time
_LOW: Final = 4  # asks when a quarter of the last grant is left
_IDLE_SECONDS: Final = 20.0  # slots that nobody has used for so long go back
_SHRINK: Final = 8  # of the room of slots, for each that needed less


class NoSlotError(QuotaExceeded):
    """The key has no slot that is large enough; the owner may have one."""

    def __init__(self, account: str, key: str, plan: Plan, tokens: int, cost: int) -> None:
        super().__init__(OVERLOADED, "No slot is here yet. Try again in a moment.", retry_after=1)
        self.account = account
        self.key = key
        self.plan = plan
        self.tokens = tokens
        self.cost = cost


class Slot:
    """One reservation at the owner; `dies` is when it may no longer be used, monotonic."""

    __slots__ = ("cost", "dies", "number", "tokens")

    def __init__(self, number: int, tokens: int, cost: int, dies: float) -> None:
        self.number = number
        self.tokens = tokens
        self.cost = cost
        self.dies = dies


class KeySlots:
    """The slots of one key, and its demand."""

    __slots__ = (
        "account",
        "asked",
        "blocked_until",
        "cost",
        "earlier",
        "gained",
        "is_upstream",
        "key",
        "last",
        "plan",
        "questions",
        "recent",
        "slots",
        "span",
        "tokens",
    )

    def __init__(self, account: str, key: str, plan: Plan) -> None:
        self.account = account
        self.key = key
        self.plan = plan
        self.is_upstream = key.startswith(UPSTREAM)  # with limits of its own
        self.slots: deque[Slot] = deque()  # the first dies first
        self.asked = False  # a question ahead of need is under way
        self.questions = 0  # under way
        self.gained = 1  # by the last grant
        self.blocked_until = 0.0  # upstreams: the owner has none before, by the pool's clock
        # The room that each slot is to have: that of the requests that came.
        self.tokens = 0
        self.cost = 0
        # Requests in the present span of time, and in the one before.
        self.span = 0
        self.recent = 0
        self.earlier = 0
        self.last = 0.0  # when a request came

    def note(self, now: float, tokens: int, cost: int) -> None:
        """A request comes."""
        span = int(now / _SPAN_SECONDS)
        if span != self.span:
            self.earlier = self.recent if span == self.span + 1 else 0
            self.recent = 0
            self.span = span
        self.recent += 1
        self.last = now
        self.tokens = max(tokens, self.tokens - self.tokens // _SHRINK)
        self.cost = max(cost, self.cost - self.cost // _SHRINK)

    def ahead(self) -> int:
        """How many slots the requests of the next moments may need."""
        return max(1, min(MOST, int(self._demand() * _AHEAD_SECONDS)))

    def lasts(self, seconds: float) -> bool:
        """Whether those that are here will do for so long."""
        return len(self.slots) >= self._demand() * seconds

    def _demand(self) -> float:
        return max(self.recent, self.earlier) / _SPAN_SECONDS


class SlotReservation(Reservation):
    """A slot in use."""

    __slots__ = ("estimate", "slot")

    slot: int
    estimate: int  # tokens; the slot may hold more


class Quote:
    """A request that is to be admitted elsewhere. `wish`: see `Ledger.hold_more`."""

    __slots__ = ("wish",)

    def __init__(self) -> None:
        self.wish = 0


class Traffic:
    """What requests have to send. `schedule` has it sent at the end of this turn of the loop,
    `defer` within two milliseconds, with the next that is scheduled."""

    def __init__(self) -> None:
        self.schedule: Callable[[], None] = _nothing
        self.defer: Callable[[], None] = _nothing
        self.slot = 0  # of the latest reservation, for the journal's entry that follows it
        self.quote: Quote | None = None  # the journal's entry that follows is the owner's
        self.clear()

    def clear(self) -> None:
        """It is sent: begin with empty lists."""
        self.opened: list[tuple[int, AdmissionRow]] = []
        self.taken: list[int] = []
        self.more: list[tuple[int, int]] = []
        self.closed: list[tuple[int, bool, int | None, int | None]] = []
        self.ended: list[tuple[Settlement, Charge | None]] = []
        self.returned: list[int] = []
        self.refused: list[tuple[str, str, str]] = []


def _nothing() -> None:
    pass


class SlotLedger(Ledger):
    """See the module."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic
        self._by_key: dict[str, KeySlots] = {}
        self._by_account: dict[str, dict[str, KeySlots]] = {}
        self._quote: Quote | None = None
        # Asks for slots ahead of need. `asked` stays set until the answer.
        self.wish: Callable[[KeySlots], None] | None = None

    # --- requests ---

    def reserve(
        self, account: str, key: str, plan: Plan, now: float, tokens: int = 0, cost: int = 0
    ) -> Reservation:
        """See `Ledger.reserve`. Raises NoSlotError: none is here that is large enough."""
        if self._quote is not None:
            self._quote.wish = 0
            key_state = self.key_state(account, key, plan, now)
            return self._reservation(key_state, Slot(0, tokens, cost, 0.0), now, tokens)
        slots = self.slots_of(account, key, plan)
        if slots.plan is not plan:
            self._return_all(slots)
            slots.plan = plan
            slots.blocked_until = 0.0
        moment = monotonic()
        slots.note(moment, tokens, cost)
        slot = self._taken(slots, moment, tokens, cost)
        if slot is None:
            if slots.is_upstream and not slots.asked and self.wish is not None:
                slots.asked = True  # the request waits in the pool's queue
                self.wish(slots)
            raise NoSlotError(account, key, plan, tokens, cost)
        if slots.is_upstream:  # it has no entry in the journal
            self._traffic.taken.append(slot.number)
            self._traffic.schedule()
        left = slots.slots
        if len(left) * _LOW <= slots.gained and not slots.asked and self.wish is not None:
            slots.asked = True
            self.wish(slots)
        key_state = self.key_state(account, key, plan, now)
        reservation = self._reservation(key_state, slot, now, tokens)
        self._hold(reservation)
        return reservation

    def _taken(self, slots: KeySlots, moment: float, tokens: int, cost: int) -> Slot | None:
        left = slots.slots
        while left:
            slot = left[0]
            if slot.dies <= moment:
                left.popleft()
                self._give(slot)
                continue
            if slot.tokens >= tokens and slot.cost >= cost:
                left.popleft()
                return slot
            slot = left[-1]
            if slot.tokens >= tokens and slot.cost >= cost and slot.dies > moment:
                left.pop()
                return slot
            return None
        return None

    def _reservation(
        self, key_state: KeyState, slot: Slot, now: float, tokens: int
    ) -> SlotReservation:
        counters = key_state.counters
        moment = int(now * 1000)
        for bucket in counters.request_buckets:
            bucket.charge(1, bucket.mark, moment)
        for bucket in counters.token_buckets:
            bucket.charge(tokens, bucket.mark, moment)
        balance = key_state.balance if key_state.plan.prepaid else None
        reservation = SlotReservation(key_state, counters, [], [], balance, slot.cost)
        reservation.slot = self._traffic.slot = slot.number
        reservation.estimate = tokens
        return reservation

    def _hold(self, reservation: SlotReservation) -> None:
        """Count it among the requests in flight."""
        reservation.key_state.in_flight += 1
        reservation.counters.in_flight += 1
        if reservation.balance is not None:
            reservation.balance.held += reservation.cost

    def hold_more(self, reservation: Reservation, cost: int) -> None:
        """See `Ledger.hold_more`: the owner holds it."""
        assert isinstance(reservation, SlotReservation)
        if self._quote is not None:
            self._quote.wish = cost
            return
        self._traffic.more.append((reservation.slot, cost))
        self._traffic.schedule()

    def settle(
        self,
        reservation: Reservation,
        now: float,
        tokens: int | None = None,
        cost: int | None = None,
    ) -> bool:
        """See `Ledger.settle`."""
        if not reservation.open:
            return False
        assert isinstance(reservation, SlotReservation)
        estimate = reservation.estimate
        used = estimate if tokens is None else tokens  # a slot may hold more than the estimate
        spent = reservation.cost if cost is None else cost
        self._close(reservation, spent)
        self._traffic.closed.append((reservation.slot, True, used, spent))
        slots = self._by_key.get(reservation.key_state.key)
        # It waits only while slots are left: a process that lacks what it gives back recalls these.
        # What is held of a balance has no recall.
        if slots is not None and slots.slots and reservation.balance is None:
            self._traffic.defer()
        else:
            self._traffic.schedule()
        moment = int(now * 1000)
        for bucket in reservation.counters.token_buckets:
            if used < estimate:
                bucket.give_back(estimate - used, bucket.mark, moment)
            elif used > estimate:
                bucket.charge(used - estimate, bucket.mark, moment)
        return True

    def refund(self, reservation: Reservation, now: float) -> bool:
        """See `Ledger.refund`."""
        if not reservation.open:
            return False
        assert isinstance(reservation, SlotReservation)
        self._close(reservation, 0)
        self._traffic.closed.append((reservation.slot, False, None, None))
        self._traffic.schedule()
        moment = int(now * 1000)
        for bucket in reservation.counters.refundable:
            bucket.give_back(1, bucket.mark, moment)
        for bucket in reservation.counters.token_buckets:
            bucket.give_back(reservation.estimate, bucket.mark, moment)
        return True

    def check(
        self, account: str, key: str, plan: Plan, now: float, *, counting: bool = False
    ) -> None:
        """See `Ledger.check`. Raises NoSlotError: the owner decides."""
        slots = self._by_key.get(key)
        moment = monotonic()
        if not counting and slots is not None and slots.slots and slots.slots[-1].dies > moment:
            return
        raise NoSlotError(account, key, plan, 0, 0)

    def admit_count(self, account: str, key: str, plan: Plan, now: float) -> None:
        """See `Ledger.admit_count`: the owner has done it with its check."""

    def count_refusal(self, key_state: KeyState, now: float) -> None:
        """See `Ledger.count_refusal`: the owner counts it."""
        super().count_refusal(key_state, now)
        self._traffic.refused.append((key_state.account, key_state.key, key_state.plan.id))
        self._traffic.schedule()

    def ready_at(self, account: str, key: str, plan: Plan, now: float, tokens: int) -> float:
        """See `Ledger.ready_at`: of upstreams' own limits. A slot that is not here yet may come at
        once, as far as the owner has not said that there is none."""
        slots = self._by_key.get(key)
        if slots is None or slots.plan is not plan:  # the limits are others now
            return now
        return max(now, slots.blocked_until)

    def unblock(self, key: str) -> None:
        """An upstream's own limits have room again."""
        if (slots := self._by_key.get(key)) is not None:
            slots.blocked_until = 0.0

    # --- requests that the owner admits by their rows ---

    def begin_quote(self) -> Quote:
        """Until `end_quote` nothing is taken: a reservation only has what is to be admitted."""
        self._quote = self._traffic.quote = Quote()
        return self._quote

    def end_quote(self) -> None:
        """Reserve from slots again."""
        self._quote = self._traffic.quote = None

    def quoted(self, reservation: SlotReservation, slot: int) -> None:
        """The owner has admitted it, in this slot."""
        reservation.slot = slot
        self._hold(reservation)

    def withdraw(self, slot: int, end: Settlement) -> None:
        """The caller of an admitted request has left before it could begin."""
        self._traffic.closed.append((slot, False, None, None))
        self._traffic.ended.append((end, None))
        self._traffic.schedule()

    # --- slots ---

    def slots_of(self, account: str, key: str, plan: Plan) -> KeySlots:
        """The slots of a key, created where there are none."""
        slots = self._by_key.get(key)
        if slots is None:
            slots = self._by_key[key] = KeySlots(account, key, plan)
            self._by_account.setdefault(account, {})[key] = slots
        return slots

    def add(self, slots: KeySlots, new: Sequence[Slot], first: Slot | None) -> None:
        """Slots were granted; `first` is that of the request that waits."""
        if new:
            slots.gained = len(new)
            slots.slots.extend(new)
        if first is not None:
            slots.slots.appendleft(first)

    def recall(self, account: str) -> None:
        """Give back all slots of an account that are not in use."""
        for slots in self._by_account.get(account, {}).values():
            self._return_all(slots)

    def recall_all(self) -> None:
        """Give back all slots that are not in use."""
        for slots in self._by_key.values():
            self._return_all(slots)

    def sweep_slots(self) -> None:
        """Give back slots that nobody has used for a while or that are out of date, and forget
        keys without any. Called at regular intervals."""
        self.changes()  # nobody writes them
        moment = monotonic()
        for slots in list(self._by_key.values()):
            if moment - slots.last > _IDLE_SECONDS:
                self._return_all(slots)
                if not slots.questions:
                    self._forget(slots)
                continue
            while slots.slots and slots.slots[0].dies <= moment:
                self._give(slots.slots.popleft())

    def _forget(self, slots: KeySlots) -> None:
        del self._by_key[slots.key]
        of_account = self._by_account[slots.account]
        del of_account[slots.key]
        if not of_account:
            del self._by_account[slots.account]

    def _return_all(self, slots: KeySlots) -> None:
        while slots.slots:
            self._give(slots.slots.popleft())

    def give_back(self, slots: Iterable[Slot]) -> None:
        """Give back slots that came too late to be used."""
        for slot in slots:
            self._give(slot)

    def _give(self, slot: Slot) -> None:
        self._traffic.returned.append(slot.number)
        self._traffic.schedule()

    # --- the mirror ---

    def mirror(self, slots: KeySlots, rows: Iterable[Row]) -> None:
        """Let the limits stand as they do at the owner, where unused slots count as not used."""
        key_state = self.find_key_state(slots.key)
        if key_state is None:
            return
        for scope, owner, kind, per, refill, size, used, moment in rows:
            if refill == "charged":
                if key_state.balance is not None:
                    key_state.balance.charged = used
                continue
            counters = self.find_counters(scope, owner)
            bucket = None if counters is None else counters.all_buckets.get((kind, per))
            if counters is None or bucket is None or bucket.refill != refill:
                continue
            if isinstance(bucket, FixedWindow):
                bucket.size = bucket.capacity = size  # with a bonus, if it has one
                bucket.end = moment
                bucket.used = used
            else:
                bucket.moment = moment
                bucket.used = used
