"""Models, routes, plans, prices and the pool's settings: one value, replaced on every reload.

Decides what a model's or a plan's name stands for. Each request keeps the catalog that it began
with (`RequestContext.catalog`).
"""

from dataclasses import dataclass

import msgspec

from relay import config
from relay.errors import FORBIDDEN, RelayError
from relay.gateway.cors import Cors
from relay.pool.routes import Route, Routes
from relay.pool.upstream import Upstream
from relay.quota.plans import Plan, compile_changed, compile_plans
from relay.quota.prices import PriceList, Prices


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The longest that a model's prompt and answer may be, in tokens, and its prices if it has
    any. `name` is the one that usage is kept under: an id or alias of relay.toml."""

    name: str
    context_window: int
    max_output_tokens: int
    prices: Prices | None


class Catalog:
    """See the module. Immutable but for the further names that it remembers."""

    __slots__ = (
        "_limits",
        "_names",
        "_plans",
        "_remembered",
        "_routes",
        "_settings",
        "body_limit",
        "cors",
        "pool",
        "prices",
    )

    def __init__(
        self,
        settings: config.Settings,
        upstreams: list[Upstream],
        before: "Catalog | None" = None,
    ) -> None:
        """`before` is the catalog that this one replaces.

        Raises:
            ConfigError: a plan contradicts itself.
        """
        self._names = config.ModelNames(settings.model)
        self._routes = Routes(settings.model, upstreams, self._names)
        self._settings = _capped(settings)
        if before is None:
            self._plans = compile_plans(self._settings)
        else:
            self._plans = compile_changed(self._settings, before._settings, before._plans)
        self.pool = settings.pool
        self.body_limit = settings.server.limits.body  # octets, after decompression
        self.cors = Cors(settings.server.cors_origins)
        self.prices = PriceList(settings.model)
        self._limits = {
            name: ModelLimits(
                name, model.context_window, model.max_output_tokens, self.prices.of(name)
            )
            for model in settings.model
            for name in config.exact_names(model)
        }
        self._remembered = config.Remembered(self._limits)

    def successors(self, before: "Catalog") -> dict[Plan, Plan]:
        """The plans of `before` that have changed, each with the one in its place."""
        pairs = [(old, self._plans.get(id)) for id, old in before._plans.items()]
        return {old: new for old, new in pairs if new is not None and new is not old}

    @property
    def serves_any(self) -> bool:
        """Whether there is a model that could be served."""
        return self._routes.any

    def route(self, model: str) -> Route:
        """The route of the model that a request asks for.

        Raises:
            RelayError: 404 with the models that are available; 503, no upstream serves it.
        """
        return self._routes.find(model)

    def model_id(self, model: str) -> str:
        """The id of the model that a name means; "" if there is none."""
        return self._names.model_id(model)

    def entry(self, model: str) -> str:
        """The id, alias or pattern of relay.toml by which a name is found; "" if there is none."""
        return self._names.entry(model)

    def limits(self, model: str) -> ModelLimits:
        """The limits of a model that has a route."""
        try:  # costs a known name nothing
            return self._limits[model]
        except KeyError:
            entry = self._names.entry(model)
            limits = self._limits.get(entry) or self._limits[self._names.model_id(model)]
            return self._remembered.add(model, limits)

    def plan(self, plan_id: str) -> Plan:
        """An account's plan.

        Raises:
            RelayError: 403, it is no longer offered.
        """
        plan = self._plans.get(plan_id)
        if plan is None:
            raise RelayError(
                FORBIDDEN,
                f"This account's plan, {plan_id!r}, is no longer offered here. "
                "Ask the operator of this relay for another.",
            )
        return plan


def _capped(settings: config.Settings) -> list[config.PlanSettings]:
    """The plans, each with at most `server.limits.in_flight_per_key` requests at once."""
    cap = settings.server.limits.in_flight_per_key
    if not cap:
        return settings.plan
    return [
        msgspec.structs.replace(plan, max_concurrency=min(plan.max_concurrency or cap, cap))
        for plan in settings.plan
    ]
