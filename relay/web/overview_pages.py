"""The dashboard's first page: what is left of each limit, the balance, and the latest requests."""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from relay.accounts.sessions import recognise
from relay.errors import RelayError
from relay.quota.plans import Plan
from relay.quota.windows import WindowView, windows
from relay.store import balance as balances
from relay.store import usage
from relay.store.keys import Key, list_own_keys
from relay.store.request_log import RequestFilter, last_number, own_requests
from relay.store.users import User
from relay.web.event_stream import EventStream
from relay.web.pages import Pages
from relay.web.visit import Visit

_LATEST = 8
_DAY_SECONDS = 86_400


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard", overview)
    pages.get("/dashboard/parts/windows", windows_part)
    pages.get("/dashboard/parts/today", today_part)
    pages.get("/dashboard/parts/latest", latest_part)
    pages.get("/dashboard/live", live)


@dataclass(frozen=True, slots=True)
class Group:
    """The limits that belong together: the account's, or those of one key."""

    name: str  # of the key; empty: the account's
    windows: list[WindowView]  # longer than an hour: the plan's
    paces: list[WindowView]  # up to an hour


async def overview(visit: Visit) -> Response:
    """All of it."""
    since = await last_number(visit.database)  # before all that is shown
    values = await _windows(visit) | await _today(visit) | await _latest(visit)
    return visit.render("overview.html", live_since=since, **values)


async def windows_part(visit: Visit) -> Response:
    """The limits alone."""
    return visit.render("parts/windows.html", **await _windows(visit))


async def today_part(visit: Visit) -> Response:
    """The sums of today, and the balance."""
    return visit.render("parts/today.html", **await _today(visit))


async def latest_part(visit: Visit) -> Response:
    """The latest requests."""
    return visit.render("parts/latest.html", **await _latest(visit))


async def _windows(visit: Visit) -> dict[str, Any]:
    user = visit.user
    plan_id = user.plan_at(visit.now)
    try:
        plan = visit.parts.catalog().plan(plan_id)
    except RelayError:  # it is gone from relay.toml
        return {"plan": None, "plan_id": plan_id, "groups": []}
    return {"plan": plan, "plan_id": plan_id, "groups": await limit_groups(visit, user, plan)}


async def limit_groups(visit: Visit, user: User, plan: Plan) -> list[Group]:
    """All limits of an account."""
    owners = [("", user.id)]
    if not plan.by_account:
        keys = await list_own_keys(visit.database, user.id)
        live = [key for key in keys if key.state(visit.now) == "live"]
        owners = [(key.name or key.hint, key.id) for key in live]
    ledger = visit.parts.ledger
    await ledger.refresh([(plan, owner) for _, owner in owners], visit.now)
    groups = []
    for name, owner in owners:
        views = windows(ledger, owner, plan, visit.now)
        long = sorted((one for one in views if one.per > 3600), key=lambda one: one.per)
        short = [one for one in views if one.per <= 3600]
        groups.append(Group(name, long, short))
    return groups


async def _today(visit: Visit) -> dict[str, Any]:
    since = visit.now // _DAY_SECONDS * _DAY_SECONDS
    which = usage.Filter(since=since, user_id=visit.user.id)
    sums = await usage.sums(visit.database, "day", which)
    return {"today": sums[0] if sums else None, "balance": await shown_balance(visit, visit.user)}


async def shown_balance(visit: Visit, user: User) -> int | None:
    """The balance in micro-dollars; None: there never was one, and the plan needs none."""
    entries = await balances.statement(visit.database, user.id, limit=1)
    if entries:
        return entries[0].balance_after
    with contextlib.suppress(RelayError):
        if visit.parts.catalog().plan(user.plan_at(visit.now)).prepaid:
            return 0
    return None


async def _latest(visit: Visit) -> dict[str, Any]:
    page = await own_requests(visit.database, visit.user.id, RequestFilter(), limit=_LATEST)
    return {"rows": page.rows, "key_names": await key_names(visit)}


async def key_names(visit: Visit) -> Callable[[str], str]:
    """A function that names the keys of an account."""
    keys: list[Key] = await list_own_keys(visit.database, visit.user.id)
    names = {key.id: key.name or key.hint for key in keys}
    return lambda key_id: names.get(key_id, key_id)


async def live(visit: Visit) -> Response:
    """A stream that says when there is something new. Ends with the session."""
    site = visit.site
    assert visit.logged_in is not None
    token, user = visit.logged_in.token, visit.user
    text = visit.request.query_params.get("since", "")
    since = int(text) if text.isdecimal() and len(text) < 20 else None
    if not site.live.has_room(user.id):
        visit.refuse(429, "too_many_pages", retry_after=30)

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"retry: 5000\n\n"
        async with contextlib.aclosing(site.live.events(user.id, since)) as signs:
            async for is_new in signs:
                now = visit.site.clock()
                web = visit.parts.settings().web
                if await recognise(visit.database, web, token, now) is None:
                    yield b"event: over\ndata: {}\n\n"
                    return
                data = json.dumps({"time": int(now)}).encode()
                yield b"event: new\ndata: %b\n\n" % data if is_new else b": quiet\n\n"

    return EventStream(events())
