"""Which upstreams serve a model, and under which name.

Decides the targets of each model. Must not know the state of an upstream.
"""

from typing import Final

from relay import config
from relay.errors import MODEL_NOT_FOUND, OVERLOADED, RelayError
from relay.pool.upstream import Upstream
from relay.translate.request.builder import TargetModel


class Target:
    """A model at an upstream. Immutable.

    `name` is the upstream's name for the model. `model` is the same if the request must be
    changed to it, None if the request has it already. `fields` is the field line that shows the
    caller the name. `target_model`: the model's capabilities there, for translated requests.
    `shows_asked_name`: the answer shows the requested name in place of the upstream's.
    """

    __slots__ = ("fields", "model", "name", "shows_asked_name", "target_model", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        target_model: TargetModel,
        model: str | None,
        shows_asked_name: bool,
    ) -> None:
        self.upstream = upstream
        self.name = target_model.name
        self.model = model
        self.fields = f"x-relay-model: {target_model.name}\r\n".encode()
        self.target_model = target_model
        self.shows_asked_name = shows_asked_name and model is not None


class Route:
    """The targets of a model, by priority. Immutable."""

    __slots__ = ("targets",)

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self.targets = targets


_NO_UPSTREAM: Final = "This relay has no upstream yet; its operator adds one to relay.toml."
_NO_UPSTREAM_FOR: Final = (
    "No upstream of this relay serves {model}; its operator adds a route to it in relay.toml."
)


class Routes:
    """Every model name that a request may have, with its route.

    The names that a pattern or the suffix [1m] leads to share one route a model.
    """

    def __init__(
        self,
        models: list[config.ModelSettings],
        upstreams: list[Upstream],
        names: config.ModelNames,
    ) -> None:
        self._names = names
        self._routes: dict[str, Route] = {}  # by the names that are known
        self._others: dict[str, Route] = {}  # of all further names, by the model's id
        self._unserved: dict[str, str] = {}  # ids without an upstream, with the error text
        by_name = {upstream.name: upstream for upstream in upstreams}
        for model in models:
            if model.routes is not None:
                pairs = [(by_name[one.upstream], one) for one in model.routes]
            else:
                pairs = [
                    (upstream, config.RouteSettings(upstream=upstream.name))
                    for upstream in upstreams
                    if config.serves(upstream.vendor, model.id)
                ]
            pairs.sort(key=lambda pair: pair[0].priority)
            if not pairs:
                message = _NO_UPSTREAM_FOR if upstreams else _NO_UPSTREAM
                self._unserved[model.id] = message.format(model=model.id)
                continue
            self._others[model.id] = _route(model, pairs, None)
            # A further name that an upstream has for the model is sent there as it is.
            sent = {route.model or model.id for _, route in pairs}
            further = [name for name in sent if names.model_id(name) == model.id]
            for requested in (*config.exact_names(model), *further):
                self._routes[requested] = _route(model, pairs, requested)
        self._remembered = config.Remembered(self._routes)
        self._known = ", ".join(model.id for model in models) or "none yet"

    @property
    def any(self) -> bool:
        """Whether any model has an upstream."""
        return bool(self._routes)

    def find(self, model: str) -> Route:
        """The route of a requested model.

        Raises:
            RelayError: 404, with the available names; 503, no upstream serves it.
        """
        route = self._routes.get(model)
        return self._find_further(model) if route is None else route

    def _find_further(self, model: str) -> Route:
        """The route of a name that is not known yet. Raises RelayError: see `find`."""
        id = self._names.model_id(model)
        route = self._others.get(id)
        if route is None:
            if id in self._unserved:
                raise RelayError(OVERLOADED, self._unserved[id])
            raise RelayError(
                MODEL_NOT_FOUND,
                f"Unknown model {model[:128]!r}. Available: {self._known}.",
                param="model",
            )
        return self._remembered.add(model, route)


def _route(
    model: config.ModelSettings,
    pairs: list[tuple[Upstream, config.RouteSettings]],
    requested: str | None,
) -> Route:
    """The route of a requested name; None: of names that no upstream has for the model."""
    return Route(tuple([_target(one, route, model, requested) for one, route in pairs]))


def _target(
    upstream: Upstream,
    route: config.RouteSettings,
    model: config.ModelSettings,
    requested: str | None,
) -> Target:
    name = route.model or model.id
    accepts = config.accepts_of(model, route, name)
    target_model = TargetModel(name, model.max_output_tokens, upstream.vendor.thinking, accepts)
    return Target(
        upstream, target_model, name if name != requested else None, model.answer_model == "asked"
    )
