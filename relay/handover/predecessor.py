"""An old process whose requests are still running, as the process that has its limits sees it.

Closes its reservations and writes the ends of its requests as they come; admits what it asks for.
Once it has gone, what it left open is settled as after a crash: as reserved.

Decides what a message does to ledger and journal. Must not know how a hand-over begins.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from time import time
from typing import Any

import msgspec

from relay.app import App
from relay.errors import OVERLOADED, RelayError
from relay.gateway.admission import UNWRITTEN
from relay.gateway.metering import Leases
from relay.handover.borrow import refusal
from relay.handover.channel import Channel
from relay.quota.exceeded import QuotaExceeded
from relay.quota.held import HeldQuota, Share
from relay.quota.state import Reservation
from relay.quota.transfer import close, describe, hold
from relay.store.records import (
    AdmissionRow,
    Charge,
    Settlement,
    crash_charge,
    crash_settlement,
    settled_use,
)  # fmt: skip

_log = logging.getLogger("relay.handover")

Running = dict[str, AdmissionRow]  # by request id


class Predecessor:
    """One old process: its requests in flight and what they hold."""

    def __init__(self, app: App, sock: socket.socket, running: Running, share: Share) -> None:
        self._app = app
        self._socket = sock
        self.running = running
        self.share = share
        self.gone = False
        # Requests that were admitted here, by a ledger that machines share; and those that wait.
        self._reserved: dict[str, Reservation] = {}
        self._claims: set[asyncio.Task[None]] = set()
        self.on_gone: Callable[[], None] = lambda: None
        self.channel = self._attached()

    def attach(self) -> None:
        """Go on reading after `detach`."""
        self.channel = self._attached()

    def _attached(self) -> Channel:
        channel = Channel(self._socket)
        channel.on_message = self._on_message
        channel.on_end = self._on_end
        channel.start()
        return channel

    def _on_message(self, message: list[Any], _: list[int]) -> None:
        kind, *rest = message
        if kind == "close":
            self._close(msgspec.convert(rest[0], HeldQuota), rest[1])
        elif kind == "end":
            charge = None if rest[1] is None else msgspec.convert(rest[1], Charge)
            self._end(msgspec.convert(rest[0], Settlement), charge)
        elif kind == "admit":
            number, row, plan, wish = rest
            self._admit(number, msgspec.convert(row, AdmissionRow), plan, wish)

    def _close(self, held: HeldQuota, use: list[int | None] | None) -> None:
        self.share.add(held, -1)
        close(self._app.ledger, held, time(), None if use is None else (use[0], use[1]))

    def _end(self, settlement: Settlement, charge: Charge | None) -> None:
        if self.running.pop(settlement.id, None) is None:
            _log.error("request %s ended in the old process, and is unknown here", settlement.id)
            return
        reservation = self._reserved.pop(settlement.id, None)
        if reservation is not None:
            self._app.ledger.end_leases(reservation, settled_use(settlement))
        self._app.journal.settle(settlement, charge)

    async def _claim(
        self, leases: Leases, missing: QuotaExceeded, asked: tuple[int, AdmissionRow, str, int]
    ) -> None:
        """Admit a request for which the ledger that machines share has no lease here."""
        try:
            with await leases.claimed(missing):
                self._admit(*asked, is_claimed=True)
        except RelayError as error:
            self.channel.send("answer", asked[0], *refusal(error))

    def _admit(
        self, number: int, row: AdmissionRow, plan_id: str, wish: int, *, is_claimed: bool = False
    ) -> None:
        app = self._app
        try:
            if not app.journal.healthy:
                raise RelayError(OVERLOADED, UNWRITTEN)
            plan = app.catalog.plan(plan_id)
            reservation = app.ledger.reserve(
                row.user_id, row.key_id, plan, time(), row.reserved, row.billed_micro
            )
        except QuotaExceeded as error:
            if app.metering.leases is None or is_claimed:
                self.channel.send("answer", number, *refusal(error))
            else:
                work = self._claim(app.metering.leases, error, (number, row, plan_id, wish))
                task = asyncio.get_running_loop().create_task(work)
                self._claims.add(task)
                task.add_done_callback(self._claims.discard)
            return
        except RelayError as error:
            self.channel.send("answer", number, *refusal(error))
            return
        if app.metering.leases is not None:
            self._reserved[row.id] = reservation
        if wish:
            app.ledger.hold_more(reservation, wish)
        held = describe(reservation)
        self.share.add(held)
        ticket = app.journal.open(row)
        self.running[row.id] = row

        def answer(durable: bool) -> None:
            if durable:
                self.channel.send("answer", number, "admitted", held)
                return
            self._close(held, None)
            ended = msgspec.structs.replace(
                crash_settlement(row), cost_micro=0, outcome="refused", rule="refunded"
            )
            self._end(ended, None)
            self.channel.send("answer", number, *refusal(RelayError(OVERLOADED, UNWRITTEN)))

        ticket.when_durable(answer)

    def _on_end(self) -> None:
        """The process has gone: settle what it left as reserved."""
        now = time()
        app = self._app
        if self.running:
            _log.warning("the old process has gone with %d requests in flight", len(self.running))
        for row in self.running.values():
            charge = crash_charge(row, now)
            if charge is not None:
                balance = app.ledger.balance(row.user_id)
                balance.charged += charge.micro
                app.ledger.mark_changed(balance)
            app.journal.settle(crash_settlement(row), charge)
        self.running.clear()
        hold(app.ledger, self.share, -1)
        self.share = Share()
        self.gone = True
        self.on_gone()
