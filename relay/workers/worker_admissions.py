"""Admission in a worker: from a slot, or with one that the owner grants.

While the owner hands over, and after it has, each request is admitted there by its row. Decides
when the owner is asked. Must not know limits.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import msgspec

from relay.errors import OVERLOADED, RelayError
from relay.gateway.admission import UNMETERED, Admission, MeteredAdmission
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.metering import Metering
from relay.gateway.remote_errors import by_value, error_of
from relay.net.runner import Waiter
from relay.pool import clock as pool_clock
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import Plan
from relay.store.keys import LiveKey
from relay.translate.messages.features import Features
from relay.workers.admissions import GONE, left_row
from relay.workers.link import Link
from relay.workers.room import ROOM
from relay.workers.slots import KeySlots, NoSlotError, Slot, SlotLedger, SlotReservation
from relay.workers.traffic import Grant, Wish

_ASK_AGAIN_SECONDS: Final = 0.5  # for slots of an upstream, after a refusal that names no time
_GATHER_SECONDS: Final = 0.25  # so long wishes wait for others, if they are early enough
_LASTS_SECONDS: Final = 2.0  # for which slots are here still: early enough
_MOST_WISHES: Final = 32  # in one question: some milliseconds of the owner's loop
_TRIES: Final = 8


class WorkerAdmissions:
    """See the module."""

    def __init__(
        self,
        metering: Metering,
        ledger: SlotLedger,
        link: Link,
        wake: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """`wake` is called when slots of an upstream's own limits have come, `give_up` when there
        are none for a while."""
        self._metering = metering
        self._ledger = ledger
        self._link = link
        self._wake = wake
        self._give_up = give_up
        self._gathered: list[KeySlots] = []  # that ask together
        self._loop = asyncio.get_running_loop()
        self.is_frozen = False  # the owner hands over: each request is admitted there
        ledger.wish = self._ask_ahead
        link.on(ROOM, self._note_room)

    @property
    def admits_again(self) -> bool:
        """See `Admissions`."""
        return True

    async def check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool
    ) -> None:
        """See `Metering.check`: the owner decides, if no slot is here."""
        try:
            self._metering.check(ctx, caller, plan, counting=counting)
        except NoSlotError:
            pass
        else:
            return
        waiter: Waiter[Any] = Waiter()
        self._link.question(
            _resumes(waiter), "check", caller.user_id, caller.key_id, plan.id, counting
        )
        refusal = await waiter
        key_state = ctx.key_state
        if key_state is not None:
            key_state.counters.must_check = refusal is not None
        if refusal is not None:
            raise error_of(refusal)

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
        for _ in range(_TRIES):
            if self.is_frozen:
                return await self._admit_there(ctx, caller, plan, inbound, features)
            try:
                return self._metering.admit(ctx, caller, plan, inbound, features)
            except NoSlotError as missing:
                wanted = missing
            try:
                await self._ask(ctx, wanted)
            except RelayError as error:
                if not (self.is_frozen and error.kind is OVERLOADED):
                    raise
        raise RelayError(OVERLOADED, GONE)

    # --- slots ---

    async def _ask(self, ctx: RequestContext, wanted: NoSlotError) -> None:
        """Have a slot for a request that waits; it is the next one to be taken.

        Raises:
            RelayError: the owner refuses the request.
        """
        slots = self._ledger.slots_of(wanted.account, wanted.key, wanted.plan)
        if slots in self._gathered:  # more requests came than before
            self._ask_gathered()
        sent = monotonic()
        ahead = 0 if slots.asked else slots.ahead()
        wish = Wish(
            wanted.account, wanted.key, wanted.plan.id, wanted.tokens, wanted.cost, True,
            ahead, slots.tokens, slots.cost,
        )  # fmt: skip
        slots.questions += 1
        if ahead:
            slots.asked = True
        waiter: Waiter[RelayError | None] = Waiter()

        def on_reply(is_answer: bool, value: Any) -> None:
            slots.questions -= 1
            if ahead:
                slots.asked = False
            refusal = self._take(slots, wish, sent, value) if is_answer else None
            if not waiter.done:  # else its caller has left, and the slots are for others
                if is_answer:
                    waiter.set_result(refusal)
                else:
                    waiter.set_exception(RelayError(OVERLOADED, GONE))

        self._link.question(on_reply, "slots", *_values(wish))
        refusal = await waiter
        if refusal is not None:
            if ctx.key_state is not None:
                ctx.key_state.counters.must_check = True
            raise refusal

    def _ask_ahead(self, slots: KeySlots) -> None:
        """Ask for slots that nobody waits for, or only the pool's queue; for those of several keys
        together, where there is time."""
        slots.questions += 1
        if not slots.is_upstream and slots.lasts(_LASTS_SECONDS):
            self._gathered.append(slots)
            if len(self._gathered) == 1:
                self._loop.call_later(_GATHER_SECONDS, self._ask_gathered)
            elif len(self._gathered) == _MOST_WISHES:
                self._ask_gathered()
            return
        sent = monotonic()
        wish = _wish_ahead(slots)

        def on_reply(is_answer: bool, value: Any) -> None:
            slots.asked = False
            slots.questions -= 1
            refusal = self._take(slots, wish, sent, value) if is_answer else None
            if slots.is_upstream:
                resets_at = refusal.resets_at if isinstance(refusal, QuotaExceeded) else None
                slots.blocked_until = resets_at or 0.0
                if resets_at:
                    self._give_up()
                elif refusal is not None or not is_answer:
                    slots.blocked_until = pool_clock.now() + _ASK_AGAIN_SECONDS
                self._wake()  # another upstream may serve what waits

        self._link.question(on_reply, "slots", *_values(wish))

    def _ask_gathered(self) -> None:
        """Ask for the slots of several keys."""
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        sent = monotonic()
        wishes = [_wish_ahead(one) for one in gathered]

        def on_reply(is_answer: bool, value: Any) -> None:
            for place, slots in enumerate(gathered):
                slots.asked = False
                slots.questions -= 1
                if is_answer:
                    self._take(slots, wishes[place], sent, value[place])

        self._link.question(on_reply, "ahead", *[_values(one) for one in wishes])

    def _note_room(self, key: str) -> None:
        """An upstream's own limits, which had no room, have some."""
        self._ledger.unblock(key)
        self._wake()

    def _take(
        self, slots: KeySlots, wish: Wish, sent: float, value: list[Any]
    ) -> RelayError | None:
        """Take what was granted; returns the refusal, if there is one."""
        grant = msgspec.convert(value, Grant)
        dies = sent + grant.lifetime / 1000
        numbers = list(grant.slots)
        first = None
        if wish.waits and numbers:
            first = Slot(numbers.pop(0), wish.tokens, wish.cost, dies)
        granted = [Slot(one, grant.slot_tokens, grant.slot_cost, dies) for one in numbers]
        is_usable = slots.is_upstream or not self.is_frozen
        if slots.plan.id == wish.plan and is_usable:
            self._ledger.add(slots, granted, first)
            if grant.rows and not slots.is_upstream:
                self._ledger.mirror(slots, grant.rows)
        else:
            self._ledger.give_back(granted if first is None else [first, *granted])
        return None if grant.refusal is None else error_of(grant.refusal)

    # --- while the owner hands over, and after it has ---

    def freeze(self) -> None:
        """Give all slots back, and admit nothing from slots until `thaw`."""
        self.is_frozen = True
        self._ledger.recall_all()

    def thaw(self) -> None:
        """The owner goes on."""
        self.is_frozen = False

    async def _admit_there(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission:
        """Have one request admitted by the owner, or by the process that it hands over to."""
        before = ctx.admission  # of the plan that it had while it waited, maybe
        quote = self._ledger.begin_quote()
        try:
            admission = self._metering.admit(ctx, caller, plan, inbound, features)
        finally:
            self._ledger.end_quote()
        assert isinstance(admission, MeteredAdmission)
        reservation = admission.reservation
        assert isinstance(reservation, SlotReservation)
        ctx.admission = before  # until it is admitted
        row = admission.row
        waiter: Waiter[Any] = Waiter()

        def on_reply(is_answer: bool, value: Any) -> None:
            if not waiter.done:
                waiter.set_result(value if is_answer else by_value(RelayError(OVERLOADED, GONE)))
            elif is_answer and isinstance(value, int):  # its caller has left
                self._ledger.withdraw(value, left_row(row))

        self._link.question(on_reply, "admit", msgspec.to_builtins(row), plan.id, quote.wish)
        answer = await waiter
        if not isinstance(answer, int):
            raise error_of(answer)
        self._ledger.quoted(reservation, answer)
        ctx.admission = admission
        return admission


def _resumes(waiter: Waiter[Any]) -> Callable[[bool, Any], None]:
    def on_reply(is_answer: bool, value: Any) -> None:
        if not waiter.done:
            waiter.set_result(value if is_answer else by_value(RelayError(OVERLOADED, GONE)))

    return on_reply


def _wish_ahead(slots: KeySlots) -> Wish:
    return Wish(
        slots.account, slots.key, slots.plan.id, slots.tokens, slots.cost, slots.is_upstream,
        slots.ahead(), slots.tokens, slots.cost,
    )  # fmt: skip


def _values(wish: Wish) -> list[object]:
    return list(msgspec.structs.astuple(wish))
