"""The public status: each model now and in the last 90 days, incidents and maintenance; the same
as JSON.

Strangers get a page that is made at most once in some seconds for each language and look, whatever
they ask for. Must not know where the figures come from.
"""

import gzip
import logging
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from relay.clock import rfc3339
from relay.store.answers import Answers
from relay.store.database import StoreError
from relay.web.languages import NAMES
from relay.web.notices import Notice
from relay.web.pages import Access, Pages
from relay.web.status.board import DAYS, ModelStatus, Status, date_of
from relay.web.status.strips import answered, latencies, milliseconds, share
from relay.web.visit import PageError, Visit

_log = logging.getLogger("relay.web")

_PATH: Final = "/status"
_MOST_BAD_DAYS: Final = 14  # of a model, in words
_MOST_STRIPS: Final = 40  # models with bars; writing one takes half a millisecond
_HTML: Final = "text/html; charset=utf-8"
_KEPT: Final = {
    "cache-control": "public, max-age=10",
    "vary": "cookie, accept-language, accept-encoding",
}
_FOR_ALL: Final = {"cache-control": "public, max-age=10", "access-control-allow-origin": "*"}


class Kept:
    """Pages for strangers by language and look, each with its gzip form, made from one status and
    one list of announcements."""

    def __init__(self) -> None:
        self._made_from: tuple[Status | None, int] = None, 0
        self._pages: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def page(self, visit: Visit, status: Status) -> tuple[bytes, bytes]:
        """The page for a stranger. Nothing of the request is in it but a language and a look."""
        made_from = status, visit.site.notices.version
        if self._made_from != made_from:
            self._made_from = made_from
            self._pages.clear()
        name = visit.language, visit.theme
        found = self._pages.get(name)
        if found is None:
            html = bytes(_stranger(visit).render("status.html", **_values(visit, status)).body)
            found = self._pages[name] = html, gzip.compress(html, 6, mtime=0)
        return found


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get(_PATH, show, Access.ANYBODY)
    pages.get("/status.json", as_json, Access.ANYBODY)


async def show(visit: Visit) -> Response:
    """The page."""
    status = await _status(visit)
    if visit.logged_in is not None:
        return visit.render("status.html", **_values(visit, status))
    plain, zipped = visit.site.kept_status.page(visit, status)
    if "gzip" not in visit.request.headers.get("accept-encoding", ""):
        return Response(plain, headers=_KEPT, media_type=_HTML)
    headers = {**_KEPT, "content-encoding": "gzip"}
    return Response(zipped, headers=headers, media_type=_HTML)


async def _status(visit: Visit) -> Status:
    """The status. Raises PageError: 503, it cannot be read now, and was not read before."""
    try:
        return await visit.site.board.status(visit.now)
    except StoreError as error:
        _log.warning("the status is not shown: %s", error)
        raise PageError(503, "busy", retry_after=2) from None


def _stranger(visit: Visit) -> Visit:
    """The same visit without what its sender has chosen: query and path."""
    scope = {**visit.request.scope, "path": _PATH, "query_string": b"", "headers": []}
    bare = visit.site.stranger(Request(scope))
    bare.language, bare.theme, bare.t = visit.language, visit.theme, visit.t
    return bare


def _values(visit: Visit, status: Status) -> dict[str, Any]:
    events = _events(visit, status)
    dates = status.dates()
    return {
        "board": status,
        "state": _state(status, events, visit.now),
        "open_events": [one for one in events if _is_open(one, visit.now)],
        "past_events": [one for one in events if not _is_open(one, visit.now)],
        "strips": {
            model.id: (answered(model, dates, visit.t), latencies(model, visit.t))
            for model in status.models[:_MOST_STRIPS]
        },
        "bad_days": {model.id: model.bad_days[:_MOST_BAD_DAYS] for model in status.models},
        "days": DAYS,
        "share": share,
        "milliseconds": milliseconds,
        "date_of": date_of,
    }


def _events(visit: Visit, status: Status) -> list[Notice]:
    """Incidents and maintenance of the shown days, and those to come."""
    return visit.site.notices.events(float(status.first_day), visit.language)


def _is_open(event: Notice, now: float) -> bool:
    return event.over_at is None or now < event.over_at


def _state(status: Status, events: list[Notice], now: float) -> str:
    """The word at the head of the page: the one that an operator states comes first."""
    stated = {one.kind for one in events if one.starts_at <= now and _is_open(one, now)}
    return next((kind for kind in ("incident", "maintenance") if kind in stated), status.state)


async def overview(visit: Visit) -> str:
    """The word for the whole, for other pages."""
    status = await visit.site.board.status(visit.now)
    return _state(status, _events(visit, status), visit.now)


# --- JSON ---


async def as_json(visit: Visit) -> Response:
    """The same for programs, in the language of the address's `lang`, else in English."""
    status = await _status(visit)
    stated = visit.request.query_params.get("lang", "")
    visit.language = stated if stated in NAMES else "en"
    events = _events(visit, status)
    document = {
        "status": _state(status, events, visit.now),
        "updated_at": rfc3339(status.read_at),
        "days": DAYS,
        "models": [_model(model) for model in status.models],
        "events": [_event(one) for one in events],
    }
    return Response(orjson.dumps(document), headers=_FOR_ALL, media_type="application/json")


def _model(model: ModelStatus) -> dict[str, object]:
    return {
        "id": model.id,
        "name": model.name,
        "status": model.state,
        **_figures(model.total),
        "daily": [{"date": date_of(day.day), **_figures(day)} for day in model.days if day],
    }


def _figures(one: Answers | None) -> dict[str, object]:
    availability = None if one is None or one.availability is None else one.availability
    return {
        "availability": None if availability is None else int(availability * 100_000) / 100_000,
        "first_byte_median_ms": None if one is None else one.median_ms,
        "first_byte_p95_ms": None if one is None else one.p95_ms,
    }


def _event(one: Notice) -> dict[str, object]:
    return {
        "kind": one.kind,
        "title": one.title,
        "text": one.text,
        "starts_at": rfc3339(one.starts_at),
        "ends_at": None if one.over_at is None else rfc3339(one.over_at),
    }
