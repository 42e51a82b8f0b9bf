"""The journal of a worker: its entries go to the owner, whose journal writes them.

A ticket becomes durable once the owner has its batch on disk. Decides how entries become
a batch of the link. Must not know how the owner writes.
"""

import asyncio
from collections import deque
from typing import Final

from relay.store.journal import GRACE_SECONDS, Callback, Journal, Ticket
from relay.store.records import AdmissionRow, Charge, Settlement
from relay.workers.link import Link
from relay.workers.slots import Traffic
from relay.workers.traffic import Batch, encode_batch

_CHECK_INTERVAL_SECONDS: Final = 0.5


class LinkJournal(Journal):
    """See the module. `healthy` and `failure` are the owner's, as it last said."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._ticket = Ticket()  # of the batch that fills
        self._sent: deque[tuple[int, Ticket]] = deque()  # batches that are not durable
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self.on_end = None
        self.healthy = True
        self.failure = ""
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)

    def send_over(self, link: Link) -> None:
        """Let this link carry the traffic of requests."""
        self._traffic.schedule, self._traffic.defer = link.schedule, link.schedule_later
        link.batch = self.batch
        link.on("durable", self.durable)

    def open(self, admission: AdmissionRow) -> Ticket:
        """See `Journal.open`. The ledger has reserved for it in this step of the loop."""
        traffic = self._traffic
        if traffic.quote is not None:
            return self.adopt()
        traffic.opened.append((traffic.slot, admission))
        traffic.schedule()
        return self._ticket

    def settle(self, settlement: Settlement, charge: Charge | None = None) -> Ticket:
        """See `Journal.settle`. The ledger has it sent at once if what it gives back is wanted."""
        self._traffic.ended.append((settlement, charge))
        self._traffic.defer()
        return self._ticket

    def hasten(self) -> None:
        """See `Journal.hasten`: it is on its way."""

    def batch(self) -> bytes:
        """The frame of what has come since the last call; b"": nothing has."""
        traffic = self._traffic
        self._number += 1
        batch = Batch(
            self._number, traffic.opened, traffic.taken, traffic.more, traffic.closed,
            traffic.ended, traffic.returned, traffic.refused,
        )  # fmt: skip
        if not (
            batch.opened or batch.closed or batch.ended or batch.returned or batch.taken
            or batch.more or batch.refused
        ):  # fmt: skip
            return b""
        if batch.opened:
            self._sent.append((self._number, self._ticket))
            self._ticket = Ticket()
        traffic.clear()
        return encode_batch(batch)

    def durable(self, number: int) -> None:
        """All batches up to this one are on disk."""
        sent = self._sent
        while sent and sent[0][0] <= number:
            ticket = sent.popleft()[1]
            ticket.durable = True
            while ticket.waiting:
                _notify(ticket.waiting.popleft()[1], True)

    @property
    def unwritten(self) -> int:
        """Number of batches that the owner has not written."""
        return len(self._sent)

    @property
    def batches(self) -> int:
        """Number of batches so far."""
        return self._number

    @property
    def lag_seconds(self) -> float:
        """The owner has it."""
        return 0.0

    @property
    def is_elsewhere(self) -> bool:
        """The owner writes."""
        return True

    async def close(self, patience: float = GRACE_SECONDS) -> int:
        """What is not durable will not be shown as such any more."""
        self._timer.cancel()
        self.healthy, self.failure = False, "it is closed"
        for _, ticket in self._sent:
            while ticket.waiting:
                _notify(ticket.waiting.popleft()[1], False)
        return 0

    def _check_deadlines(self) -> None:
        """At a fixed interval: release callbacks that waited too long."""
        self._timer = self._loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_deadlines)
        now = self._loop.time()
        for ticket in (*[one for _, one in self._sent], self._ticket):
            while ticket.waiting and ticket.waiting[0][0] <= now:
                _notify(ticket.waiting.popleft()[1], False)


def _notify(callback: Callback, durable: bool) -> None:
    try:
        callback(durable)
    except Exception:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "an answer could not be ended"}
        )
