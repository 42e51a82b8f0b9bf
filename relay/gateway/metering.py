"""What a request costs its caller: held at admission, settled by the upstream's own numbers.

The ledger decides, in memory and in one step; the journal puts it on disk beside the
upstream's call. An answer is ended only once its reservation is there (`on_disk`).

What counts: an answer with status 200. By rule, as it stands on the record:
`reported`  the answer came whole, and said what it used;
`partial`   it was cut, by either side: what it had said until then;
`reserved`  it counts, but said nothing: what was held for it;
`refunded`  it was refused, failed, never came or brought nothing: nothing, except in limits of
            up to an hour.
"""

import asyncio
import sys
import time

from relay import config
from relay.errors import FORBIDDEN, OVERLOADED, RelayError
from relay.gateway.call import Call
from relay.net.drive import Waiter
from relay.quota.headers import limit_lines, unified_lines
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan, Prices, compile_plans, compile_prices
from relay.quota.refusal import QuotaExceeded
from relay.store.journal import Journal, Opening, Rule, Settlement
from relay.translate.peek import Asked
from relay.translate.usage import JsonTap, StreamTap, Usage

# Held against the per-minute limit for an answer that is yet to come: most are no longer, and
# what is held too much of cannot all be given back, for such a limit refills meanwhile.
_EXPECTED_OUTPUT = 1024
_OCTETS_PER_TOKEN = 4

_UNWRITTEN = RelayError(
    OVERLOADED, "The relay cannot write its journal now. Try again in a moment."
)


class Metering:
    """Ledger, journal, plans and prices, as the gateway uses them."""

    def __init__(self, settings: config.Settings, ledger: Ledger, journal: Journal) -> None:
        """Raises ConfigError: a plan contradicts itself."""
        self._plans = compile_plans(settings.plan)
        self._prices = compile_prices(settings.model)
        self._longest = {
            name: model for model in settings.model for name in (model.id, *model.aliases)
        }
        self._ledger = ledger
        self._journal = journal

    def enter(self, call: Call) -> Plan:
        """Find out what the caller's plan has left, which every answer tells.

        Raises:
            RelayError: 403, there is no such plan any more.
        """
        caller = call.caller
        plan = self._plans.get(caller.plan)
        if plan is None:
            raise RelayError(
                FORBIDDEN,
                f"This account's plan, {caller.plan!r}, is no longer offered here. "
                "Ask the operator of this relay for another.",
            )
        call.holder = self._ledger.holder(caller.user_id, caller.key_id, plan, time.time())
        return plan

    def admit_count(self, call: Call, plan: Plan) -> None:
        """Admit a request that counts tokens, which costs nothing.

        Raises:
            QuotaExceeded: it is one too many.
        """
        caller = call.caller
        self._ledger.admit_count(caller.user_id, caller.key_id, plan, time.time())

    def admit(self, call: Call, plan: Plan, asked: Asked, octets: int) -> None:
        """Hold what a request with so many octets of body may use.

        Raises:
            RelayError: 429 or 402 for want of quota or money, 503 while nothing can be written.
        """
        if not self._journal.healthy:
            raise _UNWRITTEN
        caller, record = call.caller, call.record
        model = self._longest[asked.model]
        tokens = octets // _OCTETS_PER_TOKEN
        most = model.max_output_tokens
        if isinstance(asked.max_tokens, int) and 0 < asked.max_tokens < most:
            most = asked.max_tokens
        cost = 0
        if plan.prepaid:  # the most that it can cost, so that nothing is overdrawn
            prices, given = self._prices[asked.model], min(tokens, model.context_window)
            # To write the prompt into a cache costs more than to have it read.
            cost = max(prices.cost(given, most), prices.cost(0, most, 0, given))
        tokens += min(most, _EXPECTED_OUTPUT)
        now = time.time()
        call.reservation = self._ledger.reserve(
            caller.user_id, caller.key_id, plan, now, tokens, cost
        )
        call.ticket = self._journal.open(
            Opening(
                record.id,
                now,
                caller.key_id,
                caller.user_id,
                asked.model,
                "messages",
                record.path,
                tokens,
                cost,
                plan.prepaid,
            )
        )

    async def on_disk(self, call: Call) -> None:
        """Wait until the reservation is on disk, as it nearly always is already.

        Raises:
            RelayError: 503, it cannot be written, so the answer must not be ended.
        """
        ticket = call.ticket
        if ticket is None or ticket.durable:
            return
        written: Waiter[bool] = Waiter()
        ticket.when_durable(written.set_result)
        if not await written:
            raise _UNWRITTEN

    def end(self, call: Call, status: int) -> None:
        """Settle what is still held: by the answer's usage if there was one, else not at all."""
        reservation = call.reservation
        if reservation is None or not reservation.open:
            return
        record, now = call.record, time.time()
        usage: Usage | None = None
        cost = 0
        rule: Rule = "refunded"
        if status == 200 and call.tap is not None:
            usage = call.usage or call.tap.finish()
        if usage is None or _brought_nothing(call, usage):
            self._ledger.refund(reservation, now)
        else:
            rule, tokens, cost = self._used(call, usage)
            self._ledger.settle(reservation, now, tokens, cost)
        record.rule = rule
        answered, outcome = (status, record.outcome) if record.outcome else _ended(status)
        self._journal.settle(
            Settlement(
                record.id,
                now,
                answered or None,
                usage.model if usage else None,
                record.upstream or None,
                usage.input if usage else None,
                usage.output if usage else None,
                usage.cache_read if usage else None,
                usage.cache_write if usage else None,
                cost,
                record.upstream_us or None,
                int((time.monotonic() - call.exchange.arrived) * 1e6),
                outcome,
                rule,
            )
        )

    def _used(self, call: Call, usage: Usage) -> tuple[Rule, int | None, int]:
        """The rule, and the tokens and micro-dollars by it; tokens None: as reserved."""
        assert call.reservation is not None
        if usage.input is None and usage.output is None:
            return "reserved", None, call.reservation.cost
        prices: Prices | None = self._prices.get(call.record.model)
        given, out = usage.input or 0, usage.output or 0
        read, written = usage.cache_read or 0, usage.cache_write or 0
        cost = prices.cost(given, out, read, written) if prices is not None else 0
        whole = call.record.outcome == "whole"
        return "reported" if whole else "partial", given + out + written, cost

    def lines(self, call: Call, error: RelayError | None = None) -> bytes:
        """The header lines that tell what is left; none for an unknown caller."""
        holder = call.holder
        if holder is None:
            return b""
        now = time.time()
        refused = error if isinstance(error, QuotaExceeded) else None
        return limit_lines(holder, now) + unified_lines(holder, now, refused)


def _brought_nothing(call: Call, usage: Usage) -> bool:
    """Whether an answer failed before there was anything in it, though its status was 200."""
    if usage.model is not None or usage.input is not None or usage.output is not None:
        return False
    if isinstance(call.tap, StreamTap):  # no `message_start`: at once an error, or the end
        return True
    # A document is of use as a whole only. A caller who leaves it does not make it fail.
    return isinstance(call.tap, JsonTap) and call.record.outcome.startswith("cut")


def _ended(status: int) -> tuple[int, str]:
    """What a caller is told, and the outcome, of a request that had none yet when it ended."""
    failure = sys.exc_info()[1]  # on its way to whoever answers
    if isinstance(failure, RelayError):
        return status or failure.kind.status, f"refused: {failure.message}"
    if failure is None and status not in (0, 200):
        return status, f"refused: the upstream answered {status}"
    return status, "caller left" if isinstance(failure, asyncio.CancelledError) else "failed"
