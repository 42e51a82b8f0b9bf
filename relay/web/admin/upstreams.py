"""The upstreams: their state as it changes, pauses, and a test with the raw answer."""

import asyncio
import time
from typing import Any, Final, Literal

from starlette.responses import Response

from relay.errors import RelayError
from relay.net.runner import CoroutineRunner
from relay.pool.trial import Trial, try_out
from relay.pool.upstream import Upstream
from relay.store import pauses
from relay.web.admin.audited import note
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

Action = Literal["pause", "resume", "clear"]
_ACTIONS: Final = ("pause", "resume", "clear")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/upstreams", show, Access.ADMIN)
    pages.get("/admin/parts/upstreams", part, Access.ADMIN)
    pages.post("/admin/upstreams/{name}/test", test, Access.ADMIN)
    pages.post("/admin/upstreams/{name}/{action}", act, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them."""
    has_file = visit.parts.operations().reloading is not None
    return visit.render("admin/upstreams.html", has_file=has_file, **await _values(visit))


async def part(visit: Visit) -> Response:
    """Their rows alone."""
    return visit.render("admin/parts/upstream_rows.html", **await _values(visit))


async def _values(visit: Visit) -> dict[str, Any]:
    operations = visit.parts.operations()
    total = (await operations.monitor.figures()).total
    sticky = operations.upstreams.settings.sticky != "off"
    return {
        "rows": await operations.monitor.rows(total),
        "sessions": operations.bindings.counts(time.monotonic()) if sticky else {},
        "rates": await visit.site.pulse.rates(total),
        "waiting": total.waiting,
        "plans": {one.name: one.limits for one in visit.settings.upstream},
    }


def _find(visit: Visit) -> Upstream:
    found = visit.parts.operations().upstreams.named(visit.request.path_params["name"])
    if found is None:
        visit.refuse(404, "not_found")
    return found


async def act(visit: Visit) -> Response:
    """Pause, resume or clear: at once, and over a restart."""
    action = visit.request.path_params["action"]
    if action not in _ACTIONS:
        visit.refuse(404, "not_found")
    upstream = _find(visit)
    health, database = upstream.health, visit.acting
    if action == "pause":
        health.pause()
        await pauses.pause(database, upstream.name, visit.now)
        answer = visit.redirect("/admin/upstreams", done="upstream_pause")
    elif action == "resume":
        health.resume()
        await pauses.resume(database, upstream.name)
        answer = visit.redirect("/admin/upstreams", done="upstream_resume")
    else:
        before = health.describe("", visit.parts.operations().upstreams.now())
        upstream.clear()
        await note(visit, "upstream.clear", upstream.name, {"outage": before}, {"outage": ""})
        answer = visit.redirect("/admin/upstreams", done="upstream_clear")
    visit.parts.operations().upstreams.wake()
    return answer


async def test(visit: Visit) -> Response:
    """Send a small request and show what came back."""
    upstream = _find(visit)
    model = visit.form.get("model", "").strip()[:128] or _any_model(visit, upstream)
    trial = await _try(visit, upstream, model)
    await note(visit, "upstream.test", upstream.name, None, {"model": model, "ok": trial.ok})
    return visit.render("admin/upstream_test.html", upstream=upstream, model=model, trial=trial)


async def _try(visit: Visit, upstream: Upstream, model: str) -> Trial:
    """Run a trial where connections run: in the relay's own runner."""
    deadlines = visit.parts.operations().deadlines
    result: asyncio.Future[Trial] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            trial = await try_out(upstream, model, deadlines)
        except RelayError as error:
            trial = Trial(0, "", error.message, 0)
        except asyncio.CancelledError:
            trial = Trial(0, "", "cancelled", 0)
        if not result.done():
            result.set_result(trial)

    runner = CoroutineRunner(run())
    runner.step()
    try:
        return await result
    except asyncio.CancelledError:
        runner.cancel()
        raise


def _any_model(visit: Visit, upstream: Upstream) -> str:
    """The upstream's name for a model that is routed to it; else its first one of all."""
    catalog = visit.parts.catalog()
    for model in visit.settings.model:
        try:
            targets = catalog.route(model.id).targets
        except RelayError:
            continue
        for target in targets:
            if target.upstream is upstream:
                return target.name
    return visit.settings.model[0].id if visit.settings.model else "none"
