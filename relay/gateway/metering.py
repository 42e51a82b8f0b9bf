"""What a request may use: quota and money held at admission, beside the upstream's call.

Decides the estimate that is held. The ledger decides in memory, in one step, whether there is
enough; the journal puts the admission on disk meanwhile.
"""

from time import time
from typing import Final

from relay.errors import OVERLOADED, RelayError
from relay.gateway.admission import UNMETERED, UNWRITTEN, Admission, MeteredAdmission
from relay.gateway.catalog import Catalog
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.store.batch import AdmissionRow
from relay.store.journal import Journal
from relay.store.keys import LiveKey

# Held against the per-minute limit for an answer that is yet to come: most are no longer, and
# a surplus cannot all be given back, for such a limit refills meanwhile.
_EXPECTED_OUTPUT_TOKENS: Final = 1024
_OCTETS_PER_TOKEN: Final = 4
_FETCHES: Final = (b'"url"', b'"file_url"', b'_url":"http', b'_url": "http', b'"file_id"',
                   b'"web_search', b'"web_fetch', b'"mcp_servers"')  # fmt: skip


class Metering:
    """Ledger, journal, plans and prices, as the gateway uses them."""

    def __init__(self, catalog: Catalog, ledger: Ledger, journal: Journal) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._journal = journal

    def enter(self, ctx: RequestContext, caller: LiveKey) -> Plan:
        """Note the caller, and the quota of their plan, which every answer shows.

        Raises:
            RelayError: 403, the plan is no longer offered.
        """
        ctx.caller = caller
        plan = self._catalog.plan(caller.plan)
        ctx.key_state = self._ledger.key_state(caller.user_id, caller.key_id, plan, time())
        return plan

    def check(self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool) -> None:
        """Refuse a request that could not be admitted whatever it asks for. Takes nothing.

        Raises:
            RelayError: 429 or 402 for want of quota or money.
        """
        self._ledger.check(caller.user_id, caller.key_id, plan, ctx.started_at, counting=counting)
        ctx.checked = True

    def count_refusal(self, ctx: RequestContext) -> None:
        """Count a request that the relay itself refused before it was admitted.

        It takes from the limits of up to an hour alone, which protect the relay.
        """
        if ctx.key_state is not None:
            self._ledger.count_refusal(ctx.key_state, time())

    def admit(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, inbound: InboundRequest
    ) -> Admission:
        """Hold what a request may use.

        Raises:
            RelayError: 429 or 402 for want of quota or money, 503 while nothing can be written.
        """
        if inbound.counting:
            self._ledger.admit_count(caller.user_id, caller.key_id, plan, time())
            return UNMETERED
        if not self._journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        text = inbound.estimated_text()
        limits = self._catalog.limits(inbound.model)
        output = limits.max_output_tokens
        wanted = inbound.max_tokens
        if isinstance(wanted, int) and 0 < wanted < output:
            output = wanted
        cost = 0
        prices = limits.prices
        if plan.prepaid:  # about the most that it can cost, so that little is ever overdrawn
            assert prices is not None
            prompt = _longest_prompt(text, limits.context_window)
            # Writing the prompt into a cache costs more than having it read.
            cost = max(prices.cost(prompt, output), prices.cost(0, output, 0, prompt))
        expected = output if output < _EXPECTED_OUTPUT_TOKENS else _EXPECTED_OUTPUT_TOKENS
        tokens = len(text) // _OCTETS_PER_TOKEN + expected
        now = time()
        held = self._ledger.reserve(caller.user_id, caller.key_id, plan, now, tokens, cost)
        ctx.key_state = held.key_state  # the one before may have been swept while the body came
        row = AdmissionRow(
            ctx.id, now, caller.key_id, caller.user_id, inbound.model, inbound.dialect,
            tokens, cost,
        )  # fmt: skip
        ctx.admission = MeteredAdmission(self._ledger, self._journal, held, row, prices)
        return ctx.admission


def _longest_prompt(text: bytes, context_window: int) -> int:
    """Tokens that a prompt has at most, nearly: content that is fetched for it may fill the
    context, and dense scripts and digits make a token of two octets."""
    if any(word in text for word in _FETCHES):
        return context_window
    return min(len(text) // 2, context_window)
