"""Admission in the owner, beside workers that hold slots of its ledger.

A request that finds nothing left has the slots called back that no request has used, and tries
again; so does a question of a worker. So a request is refused only if nothing is left anywhere.

Decides when slots are called back and how long that may take. Must not know limits.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from relay.errors import OVERLOADED, RelayError
from relay.gateway.admission import Admission
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.metering import Admissions, Metering
from relay.gateway.remote_errors import by_value
from relay.handover.borrow import Borrower
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import Plan
from relay.quota.state import UPSTREAM
from relay.store.keys import LiveKey
from relay.store.records import AdmissionRow, Settlement
from relay.translate.messages.features import Features
from relay.workers.lending import Lender, refused, wish_of
from relay.workers.room import RefusedWorkers
from relay.workers.traffic import Grant, Wish

_RECALL_SECONDS: Final = 0.25  # a worker that answers later keeps its slots for now
_TRIES: Final = 8
GONE: Final = "The relay's main process is gone. Send it again."


class OwnerAdmissions:
    """See the module. `lenders` gives those of the live workers."""

    def __init__(self, metering: Metering, lenders: Callable[[], Iterable[Lender]]) -> None:
        self._metering = metering
        self._lenders = lenders
        self._recalls: dict[str, asyncio.Task[None]] = {}  # by account

    @property
    def admits_again(self) -> bool:
        """See `Admissions`."""
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
            if (other := self._other()) is not None:
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
            if (other := self._other()) is not None:
                return await other.admit(ctx, caller, plan, inbound, features)
        raise refusal

    def _other(self) -> Admissions | None:
        """The one that admits in place of this: the relay has begun to hand over meanwhile."""
        other = self._metering.admissions
        return None if other is self else other

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
        tasks = [asyncio.ensure_future(one.recall(account)) for one in lenders]
        try:
            await asyncio.wait(tasks, timeout=_RECALL_SECONDS)
        finally:
            del self._recalls[account]
            for lender, task in zip(lenders, tasks, strict=True):
                lender.is_late = not task.done()
                task.cancel()


class AdmissionService:
    """Answers the questions of workers, in the owner."""

    def __init__(self, metering: Metering, admissions: OwnerAdmissions) -> None:
        self._metering = metering
        self._admissions = admissions
        self._refused = RefusedWorkers()

    def serve(self, lender: Lender) -> None:
        """Answer those of one worker."""

        async def slots(*values: Any) -> Grant:
            return await self.grant(lender, wish_of(list(values)))

        async def ahead(*wishes: list[Any]) -> list[Grant]:
            grants = []
            for one in wishes:
                grants.append(await self.grant(lender, wish_of(one)))
            return grants

        async def check(*values: Any) -> object:
            return await self._check(lender, *values)

        async def admit(*values: Any) -> object:
            return await self._admit(lender, *values)

        lender.link.answer("slots", slots)
        lender.link.answer("ahead", ahead)
        lender.link.answer("check", check)
        lender.link.answer("admit", admit)

    async def grant(self, lender: Lender, wish: Wish) -> Grant:
        """Slots for a worker, or the refusal of the request that waits."""
        refusal: RelayError | None = None
        for _ in range(_TRIES):
            try:
                is_here = self._metering.admissions is self._admissions
                if lender.link.closed or not (is_here or wish.key.startswith(UPSTREAM)):
                    raise RelayError(OVERLOADED, GONE)
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
        self._refused.note(lender, wish)
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
            other = self._metering.admissions
            if isinstance(other, Borrower):
                await other.decided()
                other = self._metering.admissions
            if isinstance(other, Borrower):
                reservation = await other.admit_row(lender.plan(plan), row, wish)
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


def left_row(row: AdmissionRow) -> Settlement:
    """The end of a request whose caller left before it was admitted."""
    return Settlement(
        row.id, None, None, None, None, None, None, None, 0, None, None,
        "caller left", "refunded",
    )  # fmt: skip
