"""Which upstream serves a model, and under which name."""

from typing import NamedTuple

from relay import config
from relay.errors import MODEL_NOT_FOUND, OVERLOADED, RelayError
from relay.gateway.upstreams import Upstream


class Route(NamedTuple):
    """Where a request goes. `model` is the name to send, None: as it was asked."""

    upstream: Upstream
    model: str | None


class Routes:
    """Every name that may be asked for, with its route."""

    def __init__(self, models: list[config.Model], upstreams: list[Upstream]) -> None:
        self._routes: dict[str, Route] = {}
        by_name = {upstream.name: upstream for upstream in upstreams}
        ranked = sorted(upstreams, key=lambda upstream: upstream.priority)
        for model in models:
            if model.routes is not None:
                chosen = min(model.routes, key=lambda route: by_name[route.upstream].priority)
                upstream, name = by_name[chosen.upstream], chosen.model or model.id
            elif ranked:
                upstream, name = ranked[0], model.id
            else:
                continue
            for asked in (model.id, *model.aliases):
                self._routes[asked] = Route(upstream, name if name != asked else None)
        self._known = ", ".join(model.id for model in models) or "none yet"
        names = {name for model in models for name in (model.id, *model.aliases)}
        self._without = names - self._routes.keys()  # for want of an upstream

    @property
    def any(self) -> bool:
        """Whether there is a model that could be served."""
        return bool(self._routes)

    def find(self, model: str) -> Route:
        """The route of the model that a request asks for.

        Raises:
            RelayError: 404, with the names that are served.
        """
        route = self._routes.get(model)
        if route is None:
            if model in self._without:
                raise RelayError(
                    OVERLOADED,
                    "This relay has no upstream yet; its operator adds one to relay.toml.",
                )
            raise RelayError(
                MODEL_NOT_FOUND,
                f"model: {model[:128]!r} is not served here. Served are: {self._known}.",
                param="model",
            )
        return route
