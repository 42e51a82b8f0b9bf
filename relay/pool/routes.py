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
    """Every model name that a request may have, with its route."""

    def __init__(self, models: list[config.ModelSettings], upstreams: list[Upstream]) -> None:
        self._routes: dict[str, Route] = {}
        self._unserved: dict[str, str] = {}  # names without an upstream, with the error text
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
            for requested in (model.id, *model.aliases):
                if pairs:
                    targets = tuple([_target(one, route, model, requested) for one, route in pairs])
                    self._routes[requested] = Route(targets)
                else:
                    message = _NO_UPSTREAM_FOR if upstreams else _NO_UPSTREAM
                    self._unserved[requested] = message.format(model=model.id)
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
        if route is None:
            if model in self._unserved:
                raise RelayError(OVERLOADED, self._unserved[model])
            raise RelayError(
                MODEL_NOT_FOUND,
                f"Unknown model {model[:128]!r}. Available: {self._known}.",
                param="model",
            )
        return route


def _target(
    upstream: Upstream, route: config.RouteSettings, model: config.ModelSettings, requested: str
) -> Target:
    name = route.model or model.id
    accepts = config.accepts_of(model, route, name)
    target_model = TargetModel(name, model.max_output_tokens, upstream.vendor.thinking, accepts)
    return Target(
        upstream, target_model, name if name != requested else None, model.answer_model == "asked"
    )
