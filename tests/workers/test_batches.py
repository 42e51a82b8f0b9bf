"""The end of a request waits for the next admission, but not for long, and delays nobody."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from relay.app import App
from relay.quota.state import Reservation
from relay.store.records import AdmissionRow, Settlement
from relay.workers import link as link_module
from relay.workers.admissions import OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.link_journal import LinkJournal
from relay.workers.slots import Slot, SlotLedger, Traffic
from relay.workers.traffic import Batch, Wish, decode_batch
from tests.fakes.live import RelayWith
from tests.fakes.until import until

PLANS = [{"id": "tokens", "limits": [{"tokens": 10_000, "per": "5h"}]}]


class Worker:
    """A worker with slots of one key, and the batches that its owner has had from it."""

    def __init__(self, app: App, link: Link, owners: Link) -> None:
        self.app = app
        traffic = Traffic()
        self.ledger, self.journal = SlotLedger(traffic), LinkJournal(traffic)
        self.journal.send_over(link)
        link.answer("recall", self._recall)
        self.lender = Lender(app, owners, lambda: 1)
        self.batches: list[Batch] = []
        owners.on_batch = self._take
        self.plan = app.catalog.plan("tokens")

    async def _recall(self, account: str) -> None:
        self.ledger.recall(account)

    def _take(self, octets: bytes) -> None:
        self.batches.append(decode_batch(octets))
        self.lender.take(octets)

    def have(self, slots: int) -> None:
        """Have so many slots of 100 tokens."""
        wish = Wish("usr_1", "key_1", "tokens", 100, 0, True, slots - 1, 100, 0)
        numbers = self.lender.grant(wish).slots
        granted = [Slot(one, 100, 0, time.monotonic() + 30) for one in numbers]
        self.ledger.add(self.ledger.slots_of("usr_1", "key_1", self.plan), granted, None)

    def begin(self, number: int) -> Reservation:
        """A request is admitted."""
        now = time.time()
        reservation = self.ledger.reserve("usr_1", "key_1", self.plan, now, 100)
        row = AdmissionRow(f"req_{number}", now, "key_1", "usr_1", "m", "messages", 100, 0)
        self.journal.open(row)
        return reservation

    def end(self, number: int, reservation: Reservation) -> None:
        """It ends, with 10 tokens in place of 100."""
        self.ledger.settle(reservation, time.time(), 10)
        self.journal.settle(Settlement(
            f"req_{number}", 200, None, "sim", 5, 5, 0, 0, 0, 1, 1, "whole", "reported"
        ))  # fmt: skip

    @property
    def left(self) -> int:
        """Tokens that are left at the owner."""
        state = self.app.ledger.key_state("usr_1", "key_1", self.plan, time.time())
        return state.counters.buckets[0].remaining(int(time.time() * 1000))


@pytest.fixture
async def worker(relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    monkeypatch.setattr(link_module, "_LATER_SECONDS", 3600.0)
    app = (await relay_with(plan=PLANS)).app
    mine, theirs = socket.socketpair()
    owners, link = await Link.open(mine), await Link.open(theirs)
    made = Worker(app, link, owners)
    owners.start()
    link.start()
    try:
        yield made
    finally:
        await made.journal.close()
        made.lender.end()
        link.close()
        owners.close()
        await asyncio.sleep(0)


async def test_an_end_goes_with_the_next_admission(worker: Worker) -> None:
    worker.have(3)
    first = worker.begin(1)
    await until(lambda: worker.lender.running == 1)
    worker.end(1, first)
    for _ in range(5):
        await asyncio.sleep(0)
    assert worker.lender.running == 1
    worker.begin(2)
    await until(lambda: len(worker.batches) == 2)
    [opened], [ended] = worker.batches[1].opened, worker.batches[1].ended
    assert (opened[1].id, ended[0].id) == ("req_2", "req_1")


async def test_an_end_goes_at_once_with_the_last_slot(worker: Worker) -> None:
    """Nobody would call back what it gives back."""
    worker.have(1)
    first = worker.begin(1)
    await until(lambda: worker.lender.running == 1)
    worker.end(1, first)
    await until(lambda: worker.lender.running == 0)
    assert worker.left == 9_990


async def test_a_recall_brings_the_ends_that_wait(worker: Worker) -> None:
    worker.have(3)
    first = worker.begin(1)
    await until(lambda: worker.lender.running == 1)
    worker.end(1, first)
    await asyncio.sleep(0)
    assert worker.left == 9_700
    admissions = OwnerAdmissions(worker.app.metering, lambda: [worker.lender])
    assert await admissions.recall("usr_1")
    assert (worker.left, worker.lender.running) == (9_990, 0)


async def test_an_end_does_not_wait_for_long(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LATER_SECONDS", 0.001)
    worker.have(2)
    first = worker.begin(1)
    await until(lambda: worker.lender.running == 1)
    worker.end(1, first)
    await until(lambda: worker.lender.running == 0)
