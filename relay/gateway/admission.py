"""One admitted request: the quota held for it, its place in the journal, and how it is settled.

Leaving `gateway.relay` closes it in the ledger, before an error's fields show the quota that is
left; `end_row` writes the journal's end of it, once the answer's status is known.

What counts is an answer with status 200. By rule, as log and journal have it:
`reported`  the answer came complete, and reported its usage;
`partial`   it was cut, by either side: the usage that it had reported until then;
`reserved`  it counts, but reported nothing: the amount that was held for it;
`refunded`  it was refused, failed, never came or brought nothing: nothing, except in limits of
            up to an hour.

Must not know how a request is answered, nor what its caller may use.
"""

from time import time
from typing import Final, Literal

from relay.errors import OVERLOADED, RelayError
from relay.net.runner import Waiter
from relay.quota.ledger import Ledger
from relay.quota.plans import Prices
from relay.quota.state import Reservation
from relay.store.batch import AdmissionRow, Charge, Rule, Settlement
from relay.store.journal import Journal, Ticket
from relay.translate.messages.usage import Usage

UNWRITTEN: Final = "The relay cannot write its journal now. Try again in a moment."
_MAX_COST_MICRO: Final = 10**12  # micro-dollars: the most that the database takes
_NOTHING: Final = Usage()


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
        "_cost",
        "_journal",
        "_ledger",
        "_prices",
        "_reservation",
        "_row",
        "_ticket",
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
        prices: Prices | None,
    ) -> None:
        """`prices`: of the model; None where it has none."""
        self._ledger = ledger
        self._journal = journal
        self._reservation = reservation
        self._row = row
        self._ticket: Ticket = journal.open(row)
        self._prices = prices
        self._usage: Usage | None = None  # None: no answer counts
        self._cost = 0  # micro-dollars
        self.tokens: int = row.reserved
        self.rule: Rule = "refunded"
        self.settled_tokens: int | None = None

    def count(self, usage: Usage) -> None:
        """See `Admission`."""
        self._usage = usage

    async def durable(self) -> None:
        """See `Admission`."""
        if self._ticket.durable:
            return
        written: Waiter[bool] = Waiter()
        self._ticket.when_durable(written.set_result)
        if not await written:
            raise RelayError(OVERLOADED, UNWRITTEN)

    def refund(self) -> None:
        """See `Admission`."""
        self._usage = None
        self._ledger.refund(self._reservation, time())

    def close(self, complete: bool) -> None:
        """See `Admission`."""
        usage = self._usage
        if usage is None:
            self.refund()
            return
        if usage.input is None and usage.output is None:
            self.rule = "reserved"
            self._cost = self._row.billed_micro
        else:
            self.rule = "reported" if complete else "partial"
            prompt, output, cache_write = (
                usage.input or 0,
                usage.output or 0,
                usage.cache_write or 0,
            )
            self.settled_tokens = prompt + output + cache_write  # limits count no cache reads
            if self._prices is not None:
                cost = self._prices.cost(prompt, output, usage.cache_read or 0, cache_write)
                self._cost = min(cost, _MAX_COST_MICRO)
        self._ledger.settle(self._reservation, time(), self.settled_tokens, self._cost)

    def end_row(self, status: int, outcome: str, upstream: str, upstream_us: int, us: int) -> None:
        """See `Admission`."""
        row, usage, rule = self._row, self._usage or _NOTHING, self.rule
        cost = self._cost
        charge = None
        if cost and row.billed_micro:
            note = "" if rule == "reported" else f"settled by rule: {rule}"
            charge = Charge(row.user_id, time(), cost, row.id, note)
        settlement = Settlement(
            row.id, status or None, usage.model, upstream or None,
            usage.input, usage.output, usage.cache_read, usage.cache_write,
            cost, upstream_us or None, us, outcome, rule,
        )  # fmt: skip
        self._journal.settle(self._ticket, row, settlement, charge)
