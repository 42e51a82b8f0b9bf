"""One admitted request: the quota held for it, its place in the journal, and how it is settled.

`gateway.relay` closes the admission in the ledger at its end, so that the header fields of an error
show the quota that is left after it. `end_row` writes the settlement to the journal once the
answer's status is known.

A request is charged if its answer came with status 200, or if its caller left after an upstream had
received it. The log and the journal name the rule that set the charge:
`reported`  the answer was complete and reported its usage: charge that usage;
`partial`   the answer was cut, by either side, or could not be passed on: charge the usage
            reported until then, and estimate the rest from the length of text and prompt;
`left`      the caller left before the answer began: charge the prompt, estimated by its length;
`reserved`  the answer counts but reported no usage: charge the amount that was held;
`refunded`  the request was refused or failed, or its answer did not come or was empty: charge
            nothing, except in request limits of up to an hour.

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
    """Quota held, from admission to settlement. This class holds none, as for count_tokens.

    `tokens` is the estimate that was held. `settled_tokens` is the count that replaced it; None if
    nothing replaced it. `rule` names how it was settled; "" if nothing was held.
    """

    __slots__ = ()

    tokens = 0
    settled_tokens: int | None = None
    rule: Rule | Literal[""] = ""

    def count(self, usage: Usage) -> None:
        """The answer counts, with this usage."""

    def count_unkept(self, usage: Usage) -> None:
        """Charge a complete answer that may yet fail to reach its caller.

        If it has stated its usage, a later `refund` does not undo the charge.
        """

    def leave(self) -> None:
        """The caller left after an upstream received the request: charge it, even unanswered."""

    async def durable(self) -> None:
        """Wait until the admission is on disk; it nearly always is already.

        Raises:
            RelayError: 503, it cannot be written, so the answer must not end as complete.
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

    @property
    def row(self) -> AdmissionRow:
        """The admission as the journal has it."""
        return self._row

    @property
    def reservation(self) -> Reservation:
        """What is held."""
        return self._reservation

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
        bill = self._bill  # limits count no cache reads
        self.settled_tokens = (bill.input or 0) + (bill.output or 0) + (bill.cache_write or 0)
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
