"""The log of an account's requests, with filters, page by page."""

from typing import Any, Final

from starlette.responses import Response

from relay.store.keys import list_own_keys
from relay.store.refusals import Refusals, refusals_of
from relay.store.request_log import RequestFilter, last_number, own_requests
from relay.web.overview_pages import key_names
from relay.web.pages import Pages
from relay.web.usage_pages import read_range
from relay.web.visit import Visit

_ROWS: Final = 50
_MAX_NUMBER: Final = 2**62


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard/requests", show)


def read_filter(visit: Visit) -> tuple[RequestFilter, dict[str, str]]:
    """The filter of a query, and the query itself, for links to further pages."""
    query = visit.request.query_params
    fields = {
        name: query[name][:200]
        for name in ("key", "model", "failed", "range", "from", "to")
        if query.get(name)
    }
    which = RequestFilter(
        key_id=fields.get("key", ""),
        model=fields.get("model", ""),
        failed=fields.get("failed") == "1",
    )
    if "range" in fields or ("from" in fields and "to" in fields):
        range_ = read_range(visit)
        which = RequestFilter(
            float(range_.since), float(range_.until), which.key_id, which.model, which.failed
        )
    return which, fields


async def _refused(visit: Visit, which: RequestFilter) -> list[Refusals]:
    return await refusals_of(visit.database, visit.user.id, which)


async def show(visit: Visit) -> Response:
    """A page of the log; only its rows, if a script asks."""
    which, fields = read_filter(visit)
    text = visit.request.query_params.get("before", "")
    before = min(int(text), _MAX_NUMBER) if text.isdecimal() and len(text) < 20 else _MAX_NUMBER
    since = await last_number(visit.database)  # before all that is shown
    page = await own_requests(visit.database, visit.user.id, which, _ROWS, before)
    values: dict[str, Any] = {
        "rows": page.rows,
        "before": page.before,
        "fields": fields,
        "key_names": await key_names(visit),
        "is_first": before == _MAX_NUMBER,
    }
    if visit.is_part:
        return visit.render("parts/request_rows.html", **values)
    return visit.render(
        "requests.html",
        keys=await list_own_keys(visit.database, visit.user.id),
        models=visit.settings.model,
        live_since=since,
        refused=await _refused(visit, which) if values["is_first"] else [],
        **values,
    )
