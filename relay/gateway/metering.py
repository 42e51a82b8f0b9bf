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

from time import time

from relay import config
from relay.errors import FORBIDDEN, OVERLOADED, RelayError
from relay.gateway.context import RequestContext
from relay.net.runner import Waiter
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan, compile_plans, compile_prices
from relay.quota.rate_limit_fields import lines
from relay.store.batch import AdmissionRow, Charge, Rule, Settlement
from relay.store.journal import Journal, Ticket
from relay.store.keys import LiveKey
from relay.translate.messages.peek import RequestSummary
from relay.translate.messages.usage import Usage

# Held against the per-minute limit for an answer that is yet to come: most are no longer, and
# what is held too much of cannot all be given back, for such a limit refills meanwhile.
_EXPECTED_OUTPUT = 1024
_OCTETS_PER_TOKEN = 4
_FETCHES = (b'"url"', b'"file_url"', b'_url":"http', b'_url": "http', b'"file_id"',
            b'"web_search', b'"web_fetch', b'"mcp_servers"')  # fmt: skip
_MOST_COST = 10**12  # micro-dollars; what the database takes

_UNWRITTEN = "The relay cannot write its journal now. Try again in a moment."


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

    def enter(self, call: RequestContext, caller: LiveKey) -> Plan:
        """Note who asks, and what their plan has left, which every answer tells.

        Raises:
            RelayError: 403, there is no such plan any more.
        """
        record = call.record
        record.user, record.key = caller.email, caller.key_id
        plan = self._plans.get(caller.plan)
        if plan is None:
            raise RelayError(
                FORBIDDEN,
                f"This account's plan, {caller.plan!r}, is no longer offered here. "
                "Ask the operator of this relay for another.",
            )
        call.holder = self._ledger.holder(caller.user_id, caller.key_id, plan, time())
        return plan

    def admit_count(self, caller: LiveKey, plan: Plan) -> None:
        """Admit a request that counts tokens, which costs nothing.

        Raises:
            QuotaExceeded: it is one too many.
        """
        self._ledger.admit_count(caller.user_id, caller.key_id, plan, time())

    def admit(
        self, call: RequestContext, caller: LiveKey, plan: Plan, asked: RequestSummary, body: bytes
    ) -> int:
        """Hold what a request may use; the tokens of it.

        Raises:
            RelayError: 429 or 402 for want of quota or money, 503 while nothing can be written.
        """
        if not self._journal.healthy:
            raise RelayError(OVERLOADED, _UNWRITTEN)
        model = self._longest[asked.model]
        tokens = len(body) // _OCTETS_PER_TOKEN
        most = model.max_output_tokens
        if isinstance(asked.max_tokens, int) and 0 < asked.max_tokens < most:
            most = asked.max_tokens
        cost = 0
        if plan.prepaid:  # about the most that it can cost, so that little is ever overdrawn
            prices, given = self._prices[asked.model], _most_input(body, model.context_window)
            # To write the prompt into a cache costs more than to have it read.
            cost = max(prices.cost(given, most), prices.cost(0, most, 0, given))
        tokens += most if most < _EXPECTED_OUTPUT else _EXPECTED_OUTPUT
        now = time()
        call.reservation = held = self._ledger.reserve(
            caller.user_id, caller.key_id, plan, now, tokens, cost
        )
        call.holder = held.holder  # the one before may have been forgotten while the body came
        call.opening = opening = AdmissionRow(
            call.record.id, now, caller.key_id, caller.user_id, asked.model,
            "messages" if call.translation is None else call.translation.name, tokens, cost,
        )  # fmt: skip
        call.ticket = self._journal.open(opening)
        return tokens

    async def on_disk(self, ticket: Ticket) -> None:
        """Wait until a reservation is on disk, as it nearly always is already.

        Raises:
            RelayError: 503, it cannot be written, so the answer must not be ended.
        """
        written: Waiter[bool] = Waiter()
        ticket.when_durable(written.set_result)
        if not await written:
            raise RelayError(OVERLOADED, _UNWRITTEN)

    def refund(self, call: RequestContext) -> None:
        """Give back what is held: there is no answer that counts."""
        call.usage = None
        if call.reservation is not None:
            self._ledger.refund(call.reservation, time())

    def settle(self, call: RequestContext) -> None:
        """Settle what is held by what the answer used, and write down how the request ended."""
        opening, ticket, reservation = call.opening, call.ticket, call.reservation
        if opening is None or ticket is None or reservation is None:
            return
        record, usage = call.record, call.usage
        now = time()
        cost = 0
        rule: Rule = "refunded"
        if usage is None:
            self._ledger.refund(reservation, now)
            usage = _NOTHING
        else:
            rule, tokens, cost = self._used(call, opening, usage)
            self._ledger.settle(reservation, now, tokens, cost)
        record.rule = rule
        charge = None
        if cost and opening.billed_micro:
            note = "" if rule == "reported" else f"settled by rule: {rule}"
            charge = Charge(opening.user_id, now, cost, opening.id, note)
        settlement = Settlement(
            record.id, record.status or None, usage.model, record.upstream or None,
            usage.input, usage.output, usage.cache_read, usage.cache_write,
            cost, record.upstream_us or None, record.us, record.outcome, rule,
        )  # fmt: skip
        self._journal.settle(ticket, opening, settlement, charge)

    def _used(
        self, call: RequestContext, opening: AdmissionRow, usage: Usage
    ) -> tuple[Rule, int | None, int]:
        """The rule, and the tokens and micro-dollars by it; tokens None: as reserved."""
        if usage.input is None and usage.output is None:
            return "reserved", None, opening.billed_micro
        prices = self._prices.get(opening.model)
        given, out = usage.input or 0, usage.output or 0
        read, written = usage.cache_read or 0, usage.cache_write or 0
        cost = 0
        if prices is not None:
            cost = min(prices.cost(given, out, read, written), _MOST_COST)
        rule: Rule = "reported" if call.record.outcome == "whole" else "partial"
        return rule, used(usage), cost

    def lines(self, call: RequestContext, error: RelayError | None = None) -> bytes:
        """The header lines that tell what is left; none for an unknown caller."""
        holder = call.holder
        if holder is None:
            return b""
        now = time()
        told = lines(holder, now, error if isinstance(error, QuotaExceeded) else None)
        return told if call.translation is None else told + call.translation.lines(holder, now)


_NOTHING = Usage()


def used(usage: Usage | None) -> int | None:
    """The tokens that limits count, if the answer has told any: not what a cache has read."""
    if usage is None or (usage.input is None and usage.output is None):
        return None
    return (usage.input or 0) + (usage.output or 0) + (usage.cache_write or 0)


def _most_input(body: bytes, context_window: int) -> int:
    """Tokens that a prompt has at most, nearly: what is fetched for it may fill the context, and
    dense scripts and digits make a token of two octets."""
    if any(word in body for word in _FETCHES):
        return context_window
    return min(len(body) // 2, context_window)
