"""What a node's workers hold and have not used comes back to the other nodes."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

from relay.app import App
from relay.cluster.windows import SharedLimit
from relay.quota.holdings import LEASE
from relay.store.batch import read
from relay.store.records import AdmissionRow
from relay.workers.admissions import AdmissionService, OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.link_journal import LinkJournal
from relay.workers.slots import Slot, SlotLedger, Traffic
from relay.workers.traffic import Grant, Wish
from tests.cluster.nodes import HOUR, burst, running_node
from tests.cluster.postgres import Postgres
from tests.durability.metered import opened
from tests.fakes.live import RelayWith
from tests.fakes.until import until

PLANS = [{"id": "free", "limits": [{"requests": 40, "per": "5h"}]}]
FORTY = (SharedLimit("key", "requests", 5 * HOUR, 40),)
ONE = Wish("usr_1", "key_1", "free", 100, 0, True, 0, 100, 0)


class Worker:
    """A worker of a relay: its slots, and the link to the owner."""

    def __init__(self, app: App, link: Link, owners: Link) -> None:
        traffic = Traffic()
        self.ledger = SlotLedger(traffic)
        self._journal = LinkJournal(traffic)
        self._journal.send_over(link)
        self._plan = app.catalog.plan("free")
        self.answers = True
        link.answer("recall", self._recall)
        self.lender = Lender(app, owners, lambda: 2)
        admissions = OwnerAdmissions(app.metering, lambda: [self.lender])
        app.metering.admissions, app.ledger.call_back = admissions, admissions.recall
        self._service = AdmissionService(app.metering, admissions)

    async def _recall(self, account: str) -> None:
        if self.answers:
            self.ledger.recall(account)

    async def take(self, count: int) -> None:
        """Get so many slots ahead of need."""
        slots = self.ledger.slots_of("usr_1", "key_1", self._plan)
        for _ in range(count):
            grant: Grant = await self._service.grant(self.lender, ONE)
            assert grant.refusal is None
            self.ledger.add(slots, [Slot(grant.slots[0], 100, 0, time.monotonic() + 30)], None)

    def use(self, count: int) -> None:
        """Admit requests from slots."""
        for number in range(count):
            self.ledger.reserve("usr_1", "key_1", self._plan, time.time(), 100)
            row = AdmissionRow(
                f"req_{number}", time.time(), "key_1", "usr_1", "m", "messages", 100, 0
            )
            self._journal.open(row)

    async def close(self) -> None:
        await self._journal.close()


@contextlib.asynccontextmanager
async def working(app: App) -> AsyncIterator[Worker]:
    mine, theirs = socket.socketpair()
    owners, link = await Link.open(mine), await Link.open(theirs)
    worker = Worker(app, link, owners)
    owners.start()
    link.start()
    try:
        yield worker
    finally:
        await worker.close()
        worker.lender.end()
        link.close()
        owners.close()
        await asyncio.sleep(0)


def leases_used(folder: Path) -> set[int]:
    """The latest use of each lease in a relay's database."""
    with opened(folder) as connection:
        rows = [tuple(row) for row in connection.execute("SELECT owner, scope, used FROM bucket")]
        for _, batch in read(connection):
            rows += [(row[1], row[0], row[6]) for row in batch.buckets]
    found = {owner: used for owner, scope, used in rows if scope == LEASE}
    return set(found.values())


async def test_another_node_gets_unused_slots(
    relay_with: RelayWith, postgres: Postgres, database: str
) -> None:
    url = postgres.url(database)
    relay = await relay_with(plan=PLANS, ledger={"url": url, "node": "a"})
    async with working(relay.app) as worker, running_node(url, "b") as other:
        await worker.take(40)
        worker.use(5)
        await until(lambda: worker.lender.running == 5)
        assert worker.lender.unused == 35
        # One of them waits for the recall, the others with it.
        assert await burst(other.limits, FORTY, 40, "key_1") == {"admitted": 35, "refused": 5}
        assert worker.lender.unused == 0
        assert worker.lender.running == 5


async def test_unused_slots_are_no_use_of_a_lease(
    relay_with: RelayWith, postgres: Postgres, database: str
) -> None:
    """After a crash the rest of a lease is free, as the journal has it."""
    url = postgres.url(database)
    relay = await relay_with(plan=PLANS, ledger={"url": url, "node": "a"})
    async with working(relay.app) as worker:
        await worker.take(20)
        worker.use(3)
        await until(lambda: worker.lender.running == 3)

        await until(lambda: leases_used(Path(relay.settings.database.path).parent) == {3})


async def test_slots_that_do_not_come_back_count_as_used(
    relay_with: RelayWith, postgres: Postgres, database: str
) -> None:
    url = postgres.url(database)
    relay = await relay_with(plan=PLANS, ledger={"url": url, "node": "a"})
    async with working(relay.app) as worker, running_node(url, "b") as other:
        await worker.take(30)
        worker.answers = False
        assert await burst(other.limits, FORTY, 40, "key_1") == {"admitted": 10, "refused": 30}
        worker.use(30)
        await until(lambda: worker.lender.running == 30)
