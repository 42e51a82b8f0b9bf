"""Admission where several processes share a ledger.

`OwnerAdmissions` admits in the owner: a request that finds nothing left has the slots called back
that workers have not used, and tries again. `WorkerAdmissions` admits in a worker: from a slot, or
with one that it asks for. So a request is refused only if nothing is left anywhere.

Decides when slots are called back and how long that may take. Must not know limits.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Final

import msgspec

from relay.errors import OVERLOADED, RelayError
from relay.gateway.admission import UNMETERED, Admission, MeteredAdmission
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.metering import Elsewhere, Metering
from relay.gateway.remote_errors import by_value, error_of
from relay.handover.borrow import Borrower
from relay.net.runner import Waiter
from relay.pool import clock as pool_clock
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import Plan
from relay.store.keys import LiveKey
from relay.store.records import AdmissionRow, Settlement
from relay.translate.messages.features import Features
from relay.workers.lending import Lender, refused, wish_of
from relay.workers.link import Link
from relay.workers.slots import UPSTREAM, KeySlots, NoSlotError, Slot, SlotLedger, SlotReservation
from relay.workers.traffic import Grant, Wish

_RECALL_SECONDS: Final = 1.0  # a worker that answers later is stuck
_ASK_AGAIN_SECONDS: Final = 0.5  # for slots of an upstream, after a refusal that names no time
_TRIES: Final = 8
_GONE: Final = "The relay's main process is gone. Send it again."


class OwnerAdmissions:
    """See the module. `lenders` gives those of the live workers."""

    def __init__(self, metering: Metering, lenders: Callable[[], Iterable[Lender]]) -> None:
        self._metering = metering
        self._lenders = lenders
        self._recalls: dict[str, asyncio.Task[None]] = {}  # by account
        self.recalled = 0

    @property
    def admits_again(self) -> bool:
        """See `Elsewhere`."""
        return True

    async def check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool
    ) -> None:
        """See `Metering.check`."""
        for _ in range(_TRIES):
            try:
                self._metering.check(ctx, caller, plan, counting=counting)
            except QuotaExceeded as error:
                refusal = error
            else:
                return
            if (leases := self._metering.leases) is not None:
                try:
                    await leases.has_room(refusal)
                except QuotaExceeded as error:
                    refusal = error
                else:
                    return
            if counting or not await self.recall(caller.user_id):
                break
            if (other := self._elsewhere()) is not None:
                await other.check(ctx, caller, plan, counting=counting)
                return
        raise refusal

    async def admit(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission:
        """See `Metering.admit`."""
        for _ in range(_TRIES):
            try:
                admission = self._metering.admit(ctx, caller, plan, inbound, features)
            except QuotaExceeded as error:
                refusal = error
            else:
                return await self._completed(admission)
            if (leases := self._metering.leases) is not None:
                try:
                    with await leases.claimed(refusal):
                        admission = self._metering.admit(ctx, caller, plan, inbound, features)
                except QuotaExceeded as error:
                    refusal = error
                else:
                    return await self._completed(admission)
            if not await self.recall(caller.user_id):
                break
            if (other := self._elsewhere()) is not None:
                return await other.admit(ctx, caller, plan, inbound, features)
        raise refusal

    def _elsewhere(self) -> Elsewhere | None:
        """The one that admits in place of this: the relay has begun to hand over meanwhile."""
        elsewhere = self._metering.elsewhere
        return None if elsewhere is self else elsewhere

    async def _completed(self, admission: Admission) -> Admission:
        if (leases := self._metering.leases) is not None:
            await leases.complete(admission)
        return admission

    async def recall(self, account: str) -> bool:
        """Call back the slots of an account that no request has used; returns whether there were
        any. A worker that did not answer in time is not asked again until it sends something."""
        lenders = [one for one in self._lenders() if not one.is_late and one.has_unused(account)]
        if not lenders:
            return False
        recall = self._recalls.get(account)
        if recall is None:
            recall = asyncio.get_running_loop().create_task(self._recall_from(lenders, account))
            self._recalls[account] = recall
        await asyncio.shield(recall)
        return True

    async def recall_limits(self, upstreams: list[str]) -> bool:
        """Call back what no request has used of upstreams' own limits, by their names in the
        ledger; returns whether there was any."""
        has_come = False
        for upstream in upstreams:
            has_come = await self.recall(upstream) or has_come
        return has_come

    async def _recall_from(self, lenders: list[Lender], account: str) -> None:
        self.recalled += 1
        tasks = [asyncio.ensure_future(one.recall(account)) for one in lenders]
        try:
            await asyncio.wait(tasks, timeout=_RECALL_SECONDS)
        finally:
            del self._recalls[account]
            for lender, task in zip(lenders, tasks, strict=True):
                lender.is_late = not task.done()
                task.cancel()


class Desk:
    """Answers the questions of workers, in the owner."""

    def __init__(self, metering: Metering, admissions: OwnerAdmissions) -> None:
        self._metering = metering
        self._admissions = admissions

    def serve(self, lender: Lender) -> None:
        """Answer those of one worker."""

        async def slots(*values: Any) -> Grant:
            return await self.grant(lender, wish_of(list(values)))

        async def check(*values: Any) -> object:
            return await self._check(lender, *values)

        async def admit(*values: Any) -> object:
            return await self._admit(lender, *values)

        lender.link.answer("slots", slots)
        lender.link.answer("check", check)
        lender.link.answer("admit", admit)

    async def grant(self, lender: Lender, wish: Wish) -> Grant:
        """Slots for a worker, or the refusal of the request that waits."""
        refusal: RelayError | None = None
        for _ in range(_TRIES):
            try:
                is_here = self._metering.elsewhere is self._admissions
                if lender.link.closed or not (is_here or wish.key.startswith(UPSTREAM)):
                    raise RelayError(OVERLOADED, _GONE)
                return lender.grant(wish)
            except QuotaExceeded as error:
                refusal = error
            except RelayError as error:
                return refused(error, [])
            if (leases := self._metering.leases) is not None:
                try:
                    with await leases.claimed(refusal):
                        return lender.grant(wish)
                except QuotaExceeded as error:
                    refusal = error
                except RelayError as error:
                    return refused(error, [])
            if not wish.waits or not await self._admissions.recall(wish.account):
                break
        assert refusal is not None
        return refused(refusal, lender.rows(wish))

    async def _check(
        self, lender: Lender, account: str, key: str, plan: str, counting: bool
    ) -> object:
        """None, or why the next request of a key cannot be admitted, and its limits."""
        for _ in range(_TRIES):
            try:
                lender.check(account, key, plan, counting=counting)
            except QuotaExceeded as error:
                refusal = error
            except RelayError as error:
                return by_value(error)
            else:
                return None
            if (leases := self._metering.leases) is not None:
                try:
                    await leases.has_room(refusal)
                except QuotaExceeded as error:
                    refusal = error
                except RelayError as error:
                    return by_value(error)
                else:
                    return None
            if counting or not await self._admissions.recall(account):
                break
        return by_value(refusal)

    async def _admit(self, lender: Lender, values: list[Any], plan: str, wish: int) -> object:
        """Admit a request of a worker in its row's name, while or after this process hands over.
        Returns the slot, or the refusal."""
        row = msgspec.convert(values, AdmissionRow)
        try:
            elsewhere = self._metering.elsewhere
            if isinstance(elsewhere, Borrower):
                await elsewhere.decided()
                elsewhere = self._metering.elsewhere
            if isinstance(elsewhere, Borrower):
                reservation = await elsewhere.admit_row(lender.plan(plan), row, wish)
                number = lender.admitted(reservation, row)
            else:
                number = await self._admit_here(lender, row, plan, wish)
        except RelayError as error:
            return by_value(error)
        if lender.link.closed:
            lender.withdraw(number, left_row(row))
        return number

    async def _admit_here(self, lender: Lender, row: AdmissionRow, plan: str, wish: int) -> int:
        """The hand-over has failed meanwhile. Raises RelayError: the request is refused."""
        while True:
            try:
                return await lender.admit_row(row, plan, wish)
            except QuotaExceeded as error:
                refusal = error
            if not await self._admissions.recall(row.user_id):
                raise refusal


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
        self.is_frozen = False  # the owner hands over: each request is admitted there
        ledger.wish = self._ask_ahead

    @property
    def admits_again(self) -> bool:
        """See `Elsewhere`."""
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
        raise RelayError(OVERLOADED, _GONE)

    # --- slots ---

    async def _ask(self, ctx: RequestContext, wanted: NoSlotError) -> None:
        """Have a slot for a request that waits; it is the next one to be taken.

        Raises:
            RelayError: the owner refuses the request.
        """
        slots = self._ledger.slots_of(wanted.account, wanted.key, wanted.plan)
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
                    waiter.set_exception(RelayError(OVERLOADED, _GONE))

        self._link.question(on_reply, "slots", *_values(wish))
        refusal = await waiter
        if refusal is not None:
            if ctx.key_state is not None:
                ctx.key_state.counters.must_check = True
            raise refusal

    def _ask_ahead(self, slots: KeySlots) -> None:
        """Ask for slots that nobody waits for, or only the pool's queue."""
        sent = monotonic()
        slots.questions += 1
        wish = Wish(
            slots.account, slots.key, slots.plan.id, slots.tokens, slots.cost, slots.is_upstream,
            slots.ahead(), slots.tokens, slots.cost,
        )  # fmt: skip

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
                waiter.set_result(value if is_answer else by_value(RelayError(OVERLOADED, _GONE)))
            elif is_answer and isinstance(value, int):  # its caller has left
                self._ledger.withdraw(value, left_row(row))

        self._link.question(on_reply, "admit", msgspec.to_builtins(row), plan.id, quote.wish)
        answer = await waiter
        if not isinstance(answer, int):
            raise error_of(answer)
        self._ledger.quoted(reservation, answer)
        ctx.admission = admission
        return admission


def left_row(row: AdmissionRow) -> Settlement:
    """The end of a request whose caller left before it was admitted."""
    return Settlement(
        row.id, None, None, None, None, None, None, None, 0, None, None,
        "caller left", "refunded",
    )  # fmt: skip


def _resumes(waiter: Waiter[Any]) -> Callable[[bool, Any], None]:
    def on_reply(is_answer: bool, value: Any) -> None:
        if not waiter.done:
            waiter.set_result(value if is_answer else by_value(RelayError(OVERLOADED, _GONE)))

    return on_reply


def _values(wish: Wish) -> list[object]:
    return list(msgspec.structs.astuple(wish))
