"""Admission on a node that shares limits with others: from its leases, or after a claim.

Decides when a request waits for a claim. Must not know limits, nor how a claim is sent.
"""

import asyncio
from types import TracebackType
from typing import Final

from relay.cluster.ledger import ClusterLedger
from relay.cluster.reservations import NoLeaseError
from relay.cluster.windows import Held
from relay.errors import RelayError
from relay.gateway.admission import Admission, MeteredAdmission
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.metering import Metering
from relay.pool.leases import Upstreams
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.store.keys import LiveKey
from relay.translate.messages.features import Features

_UPSTREAM: Final = "upstream "
_PAUSE_SECONDS: Final = (
    1.0  # until an upstream's limits are claimed again, while the ledger is away
)


class Claimed:
    """What was claimed for a request that waits: the next admission within the block has it."""

    def __init__(self, ledger: ClusterLedger, missing: NoLeaseError, held: Held) -> None:
        self._ledger = ledger
        self._missing = missing
        self._held = held

    def __enter__(self) -> None:
        self._ledger.grant(self._missing, self._held)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ledger.end_grant()


class LeasedAdmissions:
    """See the module."""

    def __init__(self, metering: Metering, ledger: Ledger) -> None:
        """`ledger` is a node's."""
        assert isinstance(ledger, ClusterLedger)
        self._metering = metering
        self._ledger = ledger

    @property
    def admits_again(self) -> bool:
        """See `Admissions`."""
        return True

    async def check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool
    ) -> None:
        """See `Metering.check`."""
        try:
            self._metering.check(ctx, caller, plan, counting=counting)
        except NoLeaseError as error:
            missing = error
        else:
            return
        await self.has_room(missing)

    async def admit(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission:
        """See `Metering.admit`."""
        try:
            admission = self._metering.admit(ctx, caller, plan, inbound, features)
        except NoLeaseError as error:
            missing = error
        else:
            await self.complete(admission)
            return admission
        claimed = await self.claimed(missing)
        with claimed:
            admission = self._metering.admit(ctx, caller, plan, inbound, features)
        await self.complete(admission)
        return admission

    # --- for those who admit by this ledger themselves ---

    async def has_room(self, missing: QuotaExceeded) -> None:
        """Return if a claim brings room for the request of `missing`, which goes to the lease.
        Raises as `ClusterLedger.claim`, or `missing` itself: it has another reason."""
        if not isinstance(missing, NoLeaseError):
            raise missing
        held = await self._ledger.claim(missing)
        held.undo(self._ledger.limits.clock())
        missing.key_state.counters.must_check = False

    async def claimed(self, missing: QuotaExceeded) -> Claimed:
        """A claim for the request of `missing`. Raises as `has_room`."""
        if not isinstance(missing, NoLeaseError):
            raise missing
        return Claimed(self._ledger, missing, await self._ledger.claim(missing))

    async def complete(self, admission: Admission) -> None:
        """Hold what the lease did not have of a balance, for a request that may cost much more
        than its estimate."""
        if isinstance(admission, MeteredAdmission):
            await self._ledger.hold_missing(admission.reservation)


def lease_upstreams(ledger: Ledger, pool: Upstreams) -> None:
    """Let upstreams' own limits be claimed where the pool finds no lease: its requests wait in the
    queue meanwhile. Nodes share them by the upstream's name and address."""
    assert isinstance(ledger, ClusterLedger)
    claims: dict[str, asyncio.Task[None]] = {}

    def address_of(key: str) -> str:
        upstream = pool.named(key.removeprefix(_UPSTREAM))
        return "" if upstream is None else upstream.setup.settings.base_url or ""

    async def claim(missing: NoLeaseError) -> None:
        is_away = False
        try:
            held = await ledger.claim(missing)
        except QuotaExceeded:
            ledger.show(missing.shared, int(pool.now() * 1000))
        except RelayError:
            is_away = True
        else:
            held.undo(ledger.limits.clock())
        if is_away:
            await asyncio.sleep(_PAUSE_SECONDS)
        del claims[missing.key_state.key]
        pool.wake()

    def on_upstream(missing: NoLeaseError) -> None:
        key = missing.key_state.key
        if key not in claims:
            claims[key] = asyncio.get_running_loop().create_task(claim(missing))

    ledger.address_of, ledger.on_upstream = address_of, on_upstream
