"""A worker asks seldom: for several keys at once, and long before they have no slot."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from relay.quota.plans import Plan
from relay.workers.admissions import AdmissionService, OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.link_journal import LinkJournal
from relay.workers.slots import NoSlotError, Slot, SlotLedger, Traffic
from relay.workers.worker_admissions import WorkerAdmissions
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.workers.pools import CountingLink

PLANS = [{"id": "free", "limits": [{"requests": 10_000, "per": "5h"}]}]
KEYS = [f"key_{number}" for number in range(20)]


class Worker:
    """A worker, and the link on which it asks."""

    def __init__(self, link: CountingLink, ledger: SlotLedger, plan: Plan) -> None:
        self.link = link
        self.ledger = ledger
        self.plan = plan

    def give(self, key: str, count: int, dead: int = 0) -> None:
        """Slots of a key, as if the owner had granted them before; the first are over."""
        slots = self.ledger.slots_of("usr_1", key, self.plan)
        now = time.monotonic()
        dies = [now] * dead + [now + 30] * (count - dead)
        self.ledger.add(slots, [Slot(0, 100, 0, one) for one in dies], None)

    def request(self, key: str) -> None:
        """A request of a key. Raises NoSlotError."""
        self.ledger.reserve("usr_1", key, self.plan, time.time(), 100)

    def left(self, key: str) -> int:
        """The slots of a key."""
        return len(self.ledger.slots_of("usr_1", key, self.plan).slots)


@pytest.fixture
async def worker(relay_with: RelayWith) -> AsyncIterator[Worker]:
    app = (await relay_with(plan=PLANS)).app
    mine, theirs = socket.socketpair()
    owners, link = await Link.open(mine), await CountingLink.open(theirs)
    assert isinstance(link, CountingLink)
    lender = Lender(app, owners, lambda: 2)
    admissions = OwnerAdmissions(app.metering, lambda: [lender])
    app.metering.admissions = admissions
    AdmissionService(app.metering, admissions).serve(lender)
    traffic = Traffic()
    ledger, journal = SlotLedger(traffic), LinkJournal(traffic)
    journal.send_over(link)
    WorkerAdmissions(app.metering, ledger, link, lambda: None, lambda: None)
    plan = app.catalog.plan("free")
    for key in KEYS:  # a window is open: none begins without a request
        app.ledger.reserve("usr_1", key, plan, time.time(), 100)
    owners.start()
    link.start()
    try:
        yield Worker(link, ledger, plan)
    finally:
        await journal.close()
        lender.end()
        link.close()
        owners.close()
        await asyncio.sleep(0)


async def test_keys_with_few_slots_ask_together(worker: Worker) -> None:
    for key in KEYS:
        worker.give(key, 12, dead=8)
        worker.request(key)
    await until(lambda: all(worker.left(key) > 3 for key in KEYS))
    assert worker.link.sent["?"] == 1


async def test_a_key_that_needs_slots_soon_asks_at_once(worker: Worker) -> None:
    worker.give(KEYS[0], 40)
    for _ in range(40):
        worker.request(KEYS[0])
    await asyncio.sleep(0)  # all of this turn goes in one write
    assert worker.link.sent["?"] == 1
    await until(lambda: worker.left(KEYS[0]) > 0)
    with contextlib.suppress(NoSlotError):
        for _ in range(100):
            worker.request(KEYS[0])
    await until(lambda: worker.left(KEYS[0]) > 0)
    assert worker.link.sent["?"] <= 3
