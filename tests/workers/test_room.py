"""A worker that was refused for an upstream's own limits hears when they have room again."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.app import App
from relay.pool.upstream import Upstream
from relay.quota.state import Reservation
from relay.workers.admissions import AdmissionService, OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.link_journal import LinkJournal
from relay.workers.slots import NoSlotError, SlotLedger, Traffic
from relay.workers.worker_admissions import WorkerAdmissions
from tests.fakes.live import RelayWith

OPTIONS: dict[str, Any] = {"limits": [{"requests": 1, "per": "5h"}]}


class Worker:
    """A worker whose pool has the upstream, and whose owner has used its limit."""

    def __init__(self, app: App, link: Link) -> None:
        self.app = app
        self.woken = asyncio.Event()
        self.gave_up = asyncio.Event()
        traffic = Traffic()
        self.ledger = SlotLedger(traffic)
        self.journal = LinkJournal(traffic)
        self.journal.send_over(link)
        self.admissions = WorkerAdmissions(
            app.metering, self.ledger, link, self.woken.set, self.gave_up.set
        )

    @property
    def upstream(self) -> Upstream:
        return self.app.upstreams[0]

    def reserve(self) -> Reservation:
        """A place in the upstream's limits. Raises NoSlotError."""
        owner, plan = self.upstream.ledger_name, self.upstream.limits
        assert plan is not None
        return self.ledger.reserve(owner, owner, plan, self.app.upstreams.now(), 100)

    def is_blocked(self) -> bool:
        """Whether the worker refuses by itself."""
        owner, plan = self.upstream.ledger_name, self.upstream.limits
        assert plan is not None
        now = self.app.upstreams.now()
        return self.ledger.ready_at(owner, owner, plan, now, 100) > now

    async def refused(self) -> None:
        """Ask, and be refused."""
        with contextlib.suppress(NoSlotError):
            self.reserve()
        async with asyncio.timeout(5):
            await self.gave_up.wait()
        self.woken.clear()
        assert self.is_blocked()


@pytest.fixture
async def worker(relay_with: RelayWith) -> AsyncIterator[Worker]:
    relay = await relay_with(upstream_options=OPTIONS)
    app = relay.app
    mine, theirs = socket.socketpair()
    owners, link = await Link.open(mine), await Link.open(theirs)
    lender = Lender(app, owners, lambda: 2)
    admissions = OwnerAdmissions(app.metering, lambda: [lender])
    app.metering.admissions = admissions
    AdmissionService(app.metering, admissions).serve(lender)
    owners.start()
    link.start()
    found = Worker(app, link)
    try:
        yield found
    finally:
        await found.journal.close()
        lender.end()
        link.close()
        owners.close()
        await asyncio.sleep(0)


def use_up(worker: Worker) -> Reservation:
    """A request of the owner itself takes the only place."""
    owner, plan = worker.upstream.ledger_name, worker.upstream.limits
    assert plan is not None
    return worker.app.ledger.reserve(owner, owner, plan, worker.app.upstreams.now(), 100)


async def test_a_refund_ends_the_refusals_of_a_worker(worker: Worker) -> None:
    reservation = use_up(worker)
    await worker.refused()
    worker.app.ledger.refund(reservation, worker.app.upstreams.now())
    async with asyncio.timeout(5):
        await worker.woken.wait()
    assert not worker.is_blocked()
    worker.woken.clear()
    with contextlib.suppress(NoSlotError):
        worker.reserve()  # asks
    async with asyncio.timeout(5):
        await worker.woken.wait()
    worker.reserve()


async def test_other_limits_end_the_refusals_of_a_worker(worker: Worker) -> None:
    use_up(worker)
    await worker.refused()
    worker.upstream.limits = None
    async with asyncio.timeout(5):
        await worker.woken.wait()
