"""One admitted request: the quota held for it, its place in the journal, and how it is settled.

Leaving `gateway.relay` closes it in the ledger, before an error's fields show the quota that is
left; `end_row` writes the journal's end of it, once the answer's status is known.

What counts is an answer with status 200, and a request whose caller left once an upstream had it.
By rule, as log and journal have it:
`reported`  the answer came complete, and reported its usage;
`partial`   it was cut, by either side, or could not be passed on: the usage that it had reported
            until then, and its text by its length;
`left`      its caller left before the answer said anything: its prompt, by its length;
`reserved`  it counts, but reported nothing: the amount that was held for it;
`refunded`  it was refused, failed, never came or brought nothing: nothing, except in limits of
            up to an hour.

Must not know how a request is answered, nor what its caller may use.
"""

from time import time
from typing import Final, Literal

from relay.errors import OVERLOADED, RelayError
from relay.gateway.charge import Bill, Tariff
from relay.net.runner import Waiter
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation
from relay.store.batch import AdmissionRow, Charge, Rule, Settlement
from relay.store.journal import Journal, Ticket
from relay.translate.messages.usage import Usage

UNWRITTEN: Final = "The relay cannot write its journal now. Try again in a moment."
_NOTHING: Final = Bill()


class Admission:
    """Quota held, from admission to settlement. This class holds none: counting is free.

    `tokens` is the estimate that was held, `settled_tokens` the count in its place (None: as
    held), `rule` how it was settled ("": nothing was held).
    """

    __slots__ = ()

    tokens = 0
    settled_tokens: int | None = None
    rule: Rule | Literal[""] = ""

    def count(self, usage: Usage) -> None:
        """The answer counts, with this usage."""

    def count_unkept(self, usage: Usage) -> None:
        """The upstream's answer came complete, but its caller may get nothing of it. If it has
        stated its usage, it counts, whatever comes."""

    def leave(self) -> None:
        """The caller left a request that an upstream has. It counts, even without an answer."""

    async def durable(self) -> None:
        """Wait until the admission is on disk; it nearly always is.

        Raises:
            RelayError: 503, it cannot be written, so the answer must not be ended.
        """

    def refund(self) -> None:
        """Give back what is held: no answer counts."""

    def close(self, complete: bool) -> None:
        """Settle in the ledger; `complete`: the answer came complete."""

    def end_row(self, status: int, outcome: str, upstream: str, upstream_us: int, us: int) -> None:
        """Write how the request ended into the journal. Durations in microseconds."""


UNMETERED: Final = Admission()


class MeteredAdmission(Admission):
    """See the module."""

    __slots__ = (
        "_bill",
        "_journal",
        "_ledger",
        "_left",
        "_reservation",
        "_row",
        "_tariff",
        "_ticket",
        "_unkept",
        "_usage",
        "rule",
        "settled_tokens",
        "tokens",
    )

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        reservation: Reservation,
        row: AdmissionRow,
        tariff: Tariff,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._reservation = reservation
        self._row = row
        self._ticket: Ticket = journal.open(row)
        self._tariff = tariff
        self._usage: Usage | None = None  # None: no answer counts
        self._unkept = False
        self._left = False
        self._bill = _NOTHING
        self.tokens: int = row.reserved
        self.rule: Rule = "refunded"
        self.settled_tokens: int | None = None

    def count(self, usage: Usage) -> None:
        """See `Admission`."""
        self._usage = usage

    def count_unkept(self, usage: Usage) -> None:
        """See `Admission`."""
        if usage.stated:
            self._usage = usage
            self._unkept = True

    def leave(self) -> None:
        """See `Admission`."""
        self._left = True

    async def durable(self) -> None:
        """See `Admission`."""
        if self._ticket.durable:
            return
        written: Waiter[bool] = Waiter()
        self._ticket.when_durable(written.set_result)
        if not await written:
            self._unkept = False  # the relay's own failure costs nothing
            raise RelayError(OVERLOADED, UNWRITTEN)

    def refund(self) -> None:
        """See `Admission`."""
        if self._unkept:
            return
        self._usage = None
        self._ledger.refund(self._reservation, time())

    def close(self, complete: bool) -> None:
        """See `Admission`."""
        usage = self._usage
        if usage is None:
            if not self._left:
                self.refund()
                return
            self.rule = "left"
            self._bill = self._tariff.prompt_only()
        elif not usage.stated and (complete or usage.passed <= 0):
            self.rule = "reserved"
            self._bill = Bill(cost=self._row.billed_micro)
            self._ledger.settle(self._reservation, time(), None, self._bill.cost)
            return
        else:
            self.rule = "reported" if complete else "partial"
            self._bill = self._tariff.of(usage, cut=not complete)
        self.settled_tokens = self._bill.limited_tokens
        self._ledger.settle(self._reservation, time(), self.settled_tokens, self._bill.cost)

    def end_row(self, status: int, outcome: str, upstream: str, upstream_us: int, us: int) -> None:
        """See `Admission`."""
        row, bill, rule = self._row, self._bill, self.rule
        cost = bill.cost
        charge = None
        if cost and row.billed_micro:
            note = "" if rule == "reported" else f"settled by rule: {rule}"
            charge = Charge(row.user_id, time(), cost, row.id, note)
        served = None if self._usage is None else self._usage.model
        settlement = Settlement(
            row.id, status or None, served, upstream or None,
            bill.input, bill.output, bill.cache_read, bill.cache_write,
            cost, upstream_us or None, us, outcome, rule,
        )  # fmt: skip
        self._journal.settle(self._ticket, row, settlement, charge)
