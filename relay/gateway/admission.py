"""One admitted request: the quota held for it, its place in the journal, and how it is settled.

`gateway.relay` closes the admission in the ledger at its end, so that the header fields of an error
show the quota that is left after it. `end_row` writes the settlement to the journal once the
answer's status is known.

A request is charged if an upstream answered it with success, or if its caller left after an
upstream had received it. An answer that cannot be read or translated is a failure, as long as
nothing of it has reached the caller. The log and the journal name the rule that set the charge:
`reported`  the answer was complete and reported its usage: charge that usage;
`partial`   the answer was cut, by either side, or was of no use: charge the usage
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
from relay.gateway.charge import Tariff
from relay.net.runner import Waiter
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation
from relay.store.journal import Journal, Ticket
from relay.store.records import AdmissionRow, Charge, Rule, Settlement
from relay.translate.messages.usage import Usage

UNWRITTEN: Final = "The relay cannot write its journal now. Try again in a moment."
_NOTHING: Final = Usage()


class Admission:
    """Quota held, from admission to settlement. This class holds none, as for count_tokens.

    `tokens` is the estimate that was held. `settled_tokens` is the count that replaced it; None if
    nothing replaced it. `rule` names how it was settled; "" if nothing was held. `cost` is its
    price in micro-dollars, once it is settled.
    """

    __slots__ = ("cost", "rule", "settled_tokens", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.settled_tokens: int | None = None
        self.rule: Rule | Literal[""] = ""
        self.cost = 0  # micro-dollars

    def count(self, usage: Usage) -> None:
        """The answer counts, with this usage."""

    def count_unusable(self, usage: Usage) -> None:
        """Charge an answer that its upstream gave with success, but that is of no use.

        If it has stated its usage, a later `refund` does not undo the charge.
        """

    def leave(self) -> None:
        """The caller left after an upstream received the request: charge it, even unanswered."""

    async def durable(self) -> None:
        """Wait until the admission is on disk; it nearly always is already.

        Raises:
            RelayError: 503, it cannot be written, so the answer must not end as complete.
        """

    def refund(self) -> bool:
        """Give back what is held: no answer counts. False: one counts all the same."""
        return True

    def close(self, complete: bool) -> None:
        """Settle in the ledger; `complete`: the answer came complete."""

    def end_row(self, status: int, outcome: str, upstream: str, upstream_us: int, us: int) -> None:
        """Write how the request ended into the journal. Durations in microseconds."""


UNMETERED: Final = Admission()


class MeteredAdmission(Admission):
    """See the module."""

    __slots__ = (
        "_charged",
        "_journal",
        "_ledger",
        "_left",
        "_reservation",
        "_row",
        "_tariff",
        "_ticket",
        "_unusable",
        "_usage",
    )

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        reservation: Reservation,
        row: AdmissionRow,
        tariff: Tariff,
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._journal = journal
        self._reservation = reservation
        self._row = row
        self._ticket: Ticket = journal.open(row)
        self._tariff = tariff
        self._usage: Usage | None = None  # None: no answer counts
        self._unusable = False
        self._left = False
        self._charged = _NOTHING
        self.tokens = row.reserved
        self.rule = "refunded"

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

    def count_unusable(self, usage: Usage) -> None:
        """See `Admission`."""
        if usage.stated:
            self._usage = usage
            self._unusable = True

    def leave(self) -> None:
        """See `Admission`."""
        self._left = True

    async def durable(self) -> None:
        """See `Admission`."""
        if not self._ticket.durable:
            self._journal.hasten()
        if self._ticket.durable:
            return
        written: Waiter[bool] = Waiter()
        self._ticket.when_durable(written.set_result)
        if not await written:
            self._unusable = False  # the relay's own failure costs nothing
            raise RelayError(OVERLOADED, UNWRITTEN)

    def refund(self) -> bool:
        """See `Admission`."""
        if self._unusable:
            return False
        self._usage = None
        self._ledger.refund(self._reservation, time())
        return True

    def close(self, complete: bool) -> None:
        """See `Admission`."""
        usage = self._usage
        if usage is None:
            if not self._left:
                self.refund()
                return
            self.rule = "left"
            self._charged, self.cost = self._tariff.prompt_only()
        elif usage.input is None and not usage.stated and (complete or usage.passed <= 0):
            self.rule = "reserved"
            self.cost = self._row.billed_micro
            self._ledger.settle(self._reservation, time(), None, self.cost)
            return
        else:
            self.rule = "reported" if complete else "partial"
            self._charged, self.cost = self._tariff.of(usage, cut=not complete)
        used = self._charged  # limits count no cache reads
        self.settled_tokens = (used.input or 0) + (used.output or 0) + (used.cache_write or 0)
        self._ledger.settle(self._reservation, time(), self.settled_tokens, self.cost)

    def end_row(self, status: int, outcome: str, upstream: str, upstream_us: int, us: int) -> None:
        """See `Admission`."""
        row, used, cost, rule = self._row, self._charged, self.cost, self.rule
        assert rule  # only an admission that holds nothing has none
        charge = None
        if cost and row.billed_micro:
            note = "" if rule == "reported" else f"settled by rule: {rule}"
            charge = Charge(row.user_id, time(), cost, row.id, note)
        served = None if self._usage is None else self._usage.model
        settlement = Settlement(
            row.id, status or None, served, upstream or None,
            used.input, used.output, used.cache_read, used.cache_write,
            cost, upstream_us or None, us, outcome, rule,
        )  # fmt: skip
        self._journal.settle(settlement, charge)
