"""The latest failures with what the upstream said, and all requests of everybody.

Failures are those since the start, from memory; requests come from the database. Each leads to
its explanation.
"""

from typing import Any, Final

from starlette.responses import PlainTextResponse, Response

from relay.api.explain import Explainer
from relay.api.explanation import explanation
from relay.errors import RelayError
from relay.gateway.watch import Failure
from relay.store import usage
from relay.store.people import names_of
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_ROWS: Final = 50
_MAX_TEXT: Final = 128


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/failures", show, Access.ADMIN)
    pages.get("/admin/explain/{id}", explain, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """The failures that a text occurs in, and the latest requests of all people."""
    query = visit.request.query_params
    text = query.get("q", "").strip()[:_MAX_TEXT]
    before = query.get("before", "")
    number = int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else 2**62
    failures = await visit.parts.operations().monitor.failures()
    found = [one for one in reversed(failures) if _has(one, text)]
    rows = await usage.requests(visit.database, limit=_ROWS, before=number)
    values: dict[str, Any] = {
        "failures": found[:_ROWS],
        "kept": len(failures),
        "rows": rows,
        "before": rows[-1].number if len(rows) == _ROWS else None,
        "names": await names_of(visit.database, {row.user_id for row in rows}),
        "prepaid": {plan.id for plan in visit.settings.plan if plan.billing == "per-token"},
        "text": text,
        "is_first": number == 2**62,
    }
    return visit.render("admin/failures.html", **values)


async def explain(visit: Visit) -> Response:
    """What is known of one request, as `relay explain` prints it."""
    parts, operations = visit.parts, visit.parts.operations()
    explainer = Explainer(parts.database, parts.ledger, operations.monitor, parts.catalog)
    try:
        facts = await explainer.explain(visit.request.path_params["id"])
    except RelayError as error:
        return PlainTextResponse(error.message + "\n", error.kind.status)
    return PlainTextResponse(explanation(facts) + "\n")


def _has(failure: Failure, text: str) -> bool:
    record = failure.record
    fields = (
        record.id, record.user, record.model, record.upstream, record.outcome, record.tried,
        failure.words,
    )  # fmt: skip
    return not text or any(text.casefold() in field.casefold() for field in fields)
