"""Models with their routes and aliases, and plans, as they are in force."""

from dataclasses import dataclass

from starlette.responses import Response

from relay.config import ModelSettings
from relay.errors import RelayError
from relay.pool.routes import Target
from relay.store.people import count_by_plan
from relay.web.pages import Access, Pages
from relay.web.visit import Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/models", show, Access.ADMIN)


@dataclass(frozen=True, slots=True)
class Served:
    """A model and the upstreams that serve it, in the order of their priority."""

    model: ModelSettings
    targets: tuple[Target, ...]


async def show(visit: Visit) -> Response:
    """All of them."""
    catalog = visit.parts.catalog()
    served = []
    for model in visit.settings.model:
        try:
            targets = catalog.route(model.id).targets
        except RelayError:  # no upstream serves it
            targets = ()
        served.append(Served(model, targets))
    return visit.render(
        "admin/models.html",
        models=served,
        plans=[catalog.plan(plan.id) for plan in visit.settings.plan],
        plan_settings={plan.id: plan for plan in visit.settings.plan},
        people=await count_by_plan(visit.database),
    )
