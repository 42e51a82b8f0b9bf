"""Reserves quota and money for a request at its admission.

Decides the estimate that is reserved. The ledger decides in memory, in one step, whether the caller
has enough. The journal writes the admission to disk while the upstream works.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from time import time
from typing import Final, Protocol

from relay.errors import INVALID_REQUEST, OVERLOADED, RelayError
from relay.gateway.admission import UNMETERED, UNWRITTEN, Admission, MeteredAdmission
from relay.gateway.catalog import ModelLimits
from relay.gateway.charge import Tariff
from relay.gateway.context import RequestContext
from relay.gateway.dialect import InboundRequest
from relay.gateway.key_rules import check_address
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.prices import rounded_up
from relay.quota.state import KeyState
from relay.store.journal import Journal
from relay.store.keys import LiveKey
from relay.store.records import AdmissionRow
from relay.translate.messages.features import Features

# The most output tokens reserved in token limits for an answer: few answers are longer. A higher
# estimate would cost the caller, because a limit that refills meanwhile gets only part of it back.
_EXPECTED_OUTPUT_TOKENS: Final = 1024
_OCTETS_PER_TOKEN: Final = 4
# For prepaid plans: the most tokens of one image, and the number of rounds for which a request that
# may fill the context several times reserves money, if the balance has it. A server-tool loop ends
# after ten rounds.
_MAX_IMAGE_TOKENS: Final = 5_000
_MAX_ROUNDS: Final = 10
_LONG_CONTEXT: Final = 1_000_000


class Admissions(Protocol):
    """Admits requests where another process has a say, as `Metering` does where none has.

    `admits_again`: a request whose plan changes while it waits is admitted under the new one.
    """

    @property
    def admits_again(self) -> bool: ...

    async def check(
        self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool
    ) -> None: ...

    async def admit(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission: ...


class Leases(Protocol):
    """Brings room for requests to a ledger that machines share (relay.gateway.leased_admissions).

    `missing` is the refusal of a request for which the ledger has none. Each raises a RelayError:
    the request is refused in earnest, or was for another reason.
    """

    async def has_room(self, missing: QuotaExceeded) -> None: ...

    async def claimed(self, missing: QuotaExceeded) -> AbstractContextManager[None]: ...

    async def complete(self, admission: Admission) -> None: ...


class Metering:
    """Ledger and journal, as the gateway uses them."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self._ledger = ledger
        self._journal = journal
        # Admits requests where other processes share the ledger (relay.workers), or where one has
        # it and the journal (relay.handover).
        self.admissions: Admissions | None = None
        self.leases: Leases | None = None  # None: the ledger is this relay's own

    def enter(self, ctx: RequestContext, caller: LiveKey) -> KeyState:
        """Note the caller and their quota, which header fields of every answer show.

        Raises:
            RelayError: 403, the plan is no longer offered, or the key not for this address.
        """
        ctx.caller = caller
        now = time()
        plan = ctx.catalog.plan(caller.plan if caller.plan_until is None else caller.plan_at(now))
        if caller.rules is not None:
            check_address(caller.rules, ctx.exchange.peer)
        ctx.key_state = key_state = self._ledger.key_state(caller.user_id, caller.key_id, plan, now)
        return key_state

    def admit_count(self, caller: LiveKey, plan: Plan) -> None:
        """Admit a request that only counts tokens, before anything is loaded for it.

        Raises:
            RelayError: 429, the key counts too often.
        """
        self._ledger.admit_count(caller.user_id, caller.key_id, plan, time())

    def check(self, ctx: RequestContext, caller: LiveKey, plan: Plan, *, counting: bool) -> None:
        """Refuse a caller whose next request cannot be admitted, however small. Takes nothing.

        Raises:
            RelayError: 429 or 402 for want of quota or money.
        """
        self._ledger.check(caller.user_id, caller.key_id, plan, ctx.started_at, counting=counting)

    def count_refusal(self, ctx: RequestContext) -> None:
        """Count a request that the relay itself refused before it was admitted.

        It takes from the limits of up to an hour alone, which protect the relay.
        """
        if ctx.key_state is not None:
            self._ledger.count_refusal(ctx.key_state, time())

    def admit(
        self,
        ctx: RequestContext,
        caller: LiveKey,
        plan: Plan,
        inbound: InboundRequest,
        features: Features | None = None,
    ) -> Admission:
        """Reserve what a request may use. A request that only counts tokens reserves nothing.

        Raises:
            RelayError: 429 or 402, quota or money is missing; 503, the journal cannot write; 400,
                the plan excludes a feature that the request uses.
        """
        if inbound.counting:
            return UNMETERED
        if not self._journal.healthy:
            raise RelayError(OVERLOADED, UNWRITTEN)
        text = inbound.estimated_text()
        limits = ctx.catalog.limits(inbound.model)
        output = limits.max_output_tokens
        requested_output = inbound.max_tokens
        if isinstance(requested_output, int) and 0 < requested_output < output:
            output = requested_output
        counts_money = plan.prepaid or (ctx.key_state is not None and ctx.key_state.counts_money)
        if counts_money or plan.excluded:
            features = features or features_of(ctx, inbound)
            _refuse_excluded(plan, features)
        cost = wish = 0
        if counts_money and features is not None and limits.prices is not None:
            cost, wish = most_expensive(text, features, limits, output)
        expected = output if output < _EXPECTED_OUTPUT_TOKENS else _EXPECTED_OUTPUT_TOKENS
        prompt = len(text) // _OCTETS_PER_TOKEN
        tokens = prompt + expected
        now = time()
        reservation = self._ledger.reserve(caller.user_id, caller.key_id, plan, now, tokens, cost)
        if wish and plan.prepaid:
            self._ledger.hold_more(reservation, wish)
        # The earlier state may be swept while the body arrives.
        ctx.key_state = reservation.key_state
        row = AdmissionRow(
            ctx.id, now, caller.key_id, caller.user_id, limits.name, inbound.dialect,
            tokens, cost if plan.prepaid else 0,
        )  # fmt: skip
        tariff = Tariff(ctx.catalog.prices, limits.name, limits.prices, prompt, output)
        ctx.admission = MeteredAdmission(self._ledger, self._journal, reservation, row, tariff)
        return ctx.admission


def features_of(ctx: RequestContext, inbound: InboundRequest) -> Features:
    """The features of a request that cost more than its text."""
    betas = ctx.exchange.request.headers.get(b"anthropic-beta", b"")
    return Features(inbound.estimated_text(), betas, translated=inbound.reads_answers)


def _refuse_excluded(plan: Plan, features: Features) -> None:
    """Raises RelayError: 400, the request uses something that its plan excludes."""
    for feature, field in features.used.items():
        if feature in plan.excluded:
            raise RelayError(
                INVALID_REQUEST,
                f"{field}: this account's plan does not include {feature}. Leave it out, or ask "
                "the operator of this relay for another plan.",
                param=field,
            )


def most_expensive(
    text: bytes, features: Features, limits: ModelLimits, output: int
) -> tuple[int, int]:
    """The micro-dollars to reserve for a prepaid request: the least, and the wish.

    The least is about the highest cost of the request, so a balance is overdrawn by little at most.
    The wish is the amount to reserve if the balance has it, for a request that may cost more than
    the least; else 0. A token has two octets in dense scripts and digits, and one in some scripts.
    """
    prices, window = limits.prices, limits.context_window
    assert prices is not None
    if "long_context" in features.used:
        window = max(window, _LONG_CONTEXT)
    prompt = window
    if not features.fills_context:
        images = features.images * _MAX_IMAGE_TOKENS
        prompt = min(len(text) // 2 + images, window)
    used = features.used
    speed = geography = tier = None
    if used or features.escaped:
        speed = "fast" if "fast" in used or features.escaped else None
        geography = _dearest(prices.geography, "inference_geo" in used or features.escaped)
        tier = _dearest(prices.tier, "service_tier" in used or features.escaped)

    def cost(prompt: int) -> int:
        # Writing the prompt into a cache costs more than having it read.
        hour = prompt if "1h_cache" in used or features.escaped else 0
        units = max(prices.units(prompt, output), prices.units(0, output, 0, prompt, hour))
        return rounded_up(prices.in_mode(units, speed, geography, tier))

    if features.repeated:
        searches = max(prices.web_search, prices.web_fetch, prices.code_execution)
        return cost(prompt), _MAX_ROUNDS * (cost(prompt) + rounded_up(searches))
    if text.isascii():
        return cost(prompt), 0
    return cost(prompt), cost(min(len(text), window))


def _dearest(factors: Mapping[str, int], asked: bool) -> str | None:
    """The mode with the highest factor, if a mode is asked for."""
    return max(factors, key=lambda mode: factors[mode], default=None) if asked else None
