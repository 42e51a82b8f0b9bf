"""Which upstreams serve a model, and under which name. Decides nothing about their state."""

from typing import Final

from relay import config
from relay.errors import MODEL_NOT_FOUND, OVERLOADED, RelayError
from relay.pool.upstream import Upstream
from relay.translate.request.builder import TargetModel


class Target:
    """An upstream, and a model as it has it. Nothing of it changes.

    `name` is the upstream's name for the model; `model` the same where it has to be put into the
    request, None where it is there already. `fields` shows the caller the name that is sent.
    `fit` is what the model takes there, for requests of other dialects. `shows_asked_name`: the
    answer gets the name that was asked for in place of the upstream's.
    """

    __slots__ = ("fields", "fit", "model", "name", "shows_asked_name", "upstream")

    def __init__(
        self, upstream: Upstream, fit: TargetModel, model: str | None, shows_asked_name: bool
    ) -> None:
        self.upstream = upstream
        self.name = fit.name
        self.model = model
        self.fields = f"x-relay-model: {fit.name}\r\n".encode()
        self.fit = fit
        self.shows_asked_name = shows_asked_name and model is not None


class Route:
    """The targets of a model, by priority. Nothing of it changes."""

    __slots__ = ("targets",)

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self.targets = targets


_NO_UPSTREAM: Final = "This relay has no upstream yet; its operator adds one to relay.toml."
_NO_UPSTREAM_FOR: Final = (
    "No upstream of this relay serves {model}; its operator adds a route to it in relay.toml."
)


class Routes:
    """Every name that may be asked for, with its route."""

    def __init__(self, models: list[config.ModelSettings], upstreams: list[Upstream]) -> None:
        self._routes: dict[str, Route] = {}
        self._without: dict[str, str] = {}  # names that want an upstream, and what to say
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
            for asked in (model.id, *model.aliases):
                if pairs:
                    targets = tuple([_target(one, route, model, asked) for one, route in pairs])
                    self._routes[asked] = Route(targets)
                else:
                    told = _NO_UPSTREAM_FOR if upstreams else _NO_UPSTREAM
                    self._without[asked] = told.format(model=model.id)
        self._known = ", ".join(model.id for model in models) or "none yet"

    @property
    def any(self) -> bool:
        """Whether there is a model that could be served."""
        return bool(self._routes)

    def find(self, model: str) -> Route:
        """The route of the model that a request asks for.

        Raises:
            RelayError: 404, with the names that are served; 503, no upstream serves it.
        """
        route = self._routes.get(model)
        if route is None:
            if model in self._without:
                raise RelayError(OVERLOADED, self._without[model])
            raise RelayError(
                MODEL_NOT_FOUND,
                f"Unknown model {model[:128]!r}. Available: {self._known}.",
                param="model",
            )
        return route


def _target(
    upstream: Upstream, route: config.RouteSettings, model: config.ModelSettings, asked: str
) -> Target:
    name = route.model or model.id
    accepts = config.accepts_of(model, route, name)
    fit = TargetModel(name, model.max_output_tokens, upstream.vendor.thinking, accepts)
    return Target(upstream, fit, name if name != asked else None, model.answer_model == "asked")
