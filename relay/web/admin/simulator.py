"""What would happen to a request: which upstream would be chosen, why not the others, and what it
would hold of its person's limits. Nothing is sent, and nothing is taken.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response

from relay.clock import rfc3339
from relay.errors import RelayError
from relay.gateway.metering import most_expensive
from relay.pool.clock import shown
from relay.pool.routes import Route, Target
from relay.pool.selection import RoutingRequest, choose, room_at
from relay.quota.windows import WindowView, windows
from relay.store.keys import Key, find_keys, list_keys
from relay.store.users import User, find_user
from relay.translate.messages.features import Features
from relay.web.numbers import plain, whole_number
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_OCTETS_PER_TOKEN: Final = 4
_EXPECTED_OUTPUT_TOKENS: Final = 1024
_MAX_CHARACTERS: Final = 4_000_000
_MAX_DIGITS: Final = 20
_DEFAULTS: Final = {"characters": "4000", "output": str(_EXPECTED_OUTPUT_TOKENS)}


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/simulator", show, Access.ADMIN)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One upstream of the route. `verdict` is a text's key, `detail` what the pool says."""

    target: Target
    verdict: str  # chosen, later, out, full or spent
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """What one limit has left, and what the request would take."""

    window: WindowView
    needed: int

    @property
    def has_room(self) -> bool:
        return min(self.needed, self.window.size) <= self.window.remaining


async def show(visit: Visit) -> Response:
    """The form, and what would happen if it is filled in."""
    query = visit.request.query_params
    fields = {name: query.get(name, "").strip()[:200] for name in ("model", "who")}
    for name, default in _DEFAULTS.items():
        fields[name] = plain(query.get(name, ""))[:_MAX_DIGITS] or default
    values: dict[str, Any] = {"result": None, "problem": "", "fields": fields}
    if not all(_is_number(fields[name]) for name in _DEFAULTS):
        values["problem"] = visit.t("admin_simulator.bad_number", most=f"{_MAX_CHARACTERS:,}")
    elif fields["model"]:
        values |= await _simulate(visit, fields)
    return visit.render("admin/simulator.html", models=visit.settings.model, **values)


def _is_number(text: str) -> bool:
    return whole_number(text, _MAX_CHARACTERS, 0) is not None


async def _simulate(visit: Visit, fields: dict[str, str]) -> dict[str, Any]:
    catalog = visit.parts.catalog()
    try:
        route = catalog.route(fields["model"])
    except RelayError as error:
        return {"problem": visit.words(error.message)}
    person, key = await _find(visit, fields["who"])
    if fields["who"] and person is None:
        return {"problem": visit.t("admin_simulator.nobody", who=fields["who"])}
    text, output = _body(fields), int(fields["output"])
    limits = catalog.limits(fields["model"])
    output = min(output, limits.max_output_tokens) if output else limits.max_output_tokens
    tokens = len(text) // _OCTETS_PER_TOKEN + min(output, _EXPECTED_OUTPUT_TOKENS)
    cost = wish = 0
    if limits.prices is not None:
        cost, wish = most_expensive(text, Features(text, b""), limits, output)
    request = RoutingRequest(key.id if key else "nobody", route, tokens=tokens)
    request.account = person.id if person else request.account
    result: dict[str, Any] = {
        "model": catalog.model_id(fields["model"]),
        "candidates": _candidates(visit, route, request),
        "tokens": tokens,
        "cost": max(cost, wish),
        "person": person,
        "key": key,
        "refusal": "",
        "is_priced": limits.prices is not None,
        "holds": [],
        "plan": None,
        "balance": None,
    }
    if person is not None:
        result |= await _admission(visit, person, key, (tokens, max(cost, wish)))
    return {"result": result}


def _body(fields: dict[str, str]) -> bytes:
    """A request with a prompt of so many characters."""
    message = {"role": "user", "content": "x" * int(fields["characters"])}
    return orjson.dumps({"model": fields["model"], "messages": [message]})


async def _find(visit: Visit, who: str) -> tuple[User | None, Key | None]:
    """The person whose address, id or key's id this is, and a key of theirs."""
    if not who:
        return None, None
    keys = await find_keys(visit.database, who) if who.startswith("key_") else []
    user = await find_user(visit.database, keys[0].email if len(keys) == 1 else who)
    if user is None:
        return None, None
    if not keys:
        live = await list_keys(visit.database, user.email)
        keys = [key for key in live if key.state(visit.now) == "live"]
    return user, keys[0] if keys else None


def _candidates(visit: Visit, route: Route, request: RoutingRequest) -> list[Candidate]:
    """Every upstream of the route, with what becomes of it."""
    pool, ledger = visit.parts.operations().upstreams, visit.parts.ledger
    now = pool.now()
    chosen = choose(request, now, ledger)
    found = []
    for target in route.targets:
        upstream = target.upstream
        outage = upstream.health.describe(target.name, now, request.account)
        ready = room_at(upstream, request, now, ledger)
        if target is chosen:
            found.append(Candidate(target, "chosen", outage))
        elif upstream.health.degraded and outage:
            found.append(Candidate(target, "out", outage))
        elif upstream.places <= upstream.in_flight:
            found.append(Candidate(target, "full", str(upstream.in_flight)))
        elif ready > now:
            found.append(Candidate(target, "spent", rfc3339(shown(ready))))
        elif chosen is not None and upstream.priority > chosen.upstream.priority:
            found.append(Candidate(target, "spare"))
        else:
            found.append(Candidate(target, "later"))
    return found


async def _admission(
    visit: Visit, person: User, key: Key | None, needed: tuple[int, int]
) -> dict[str, Any]:
    """Whether the person's request would be admitted, and what it would hold."""
    tokens, cost = needed
    ledger = visit.parts.ledger
    try:
        plan = visit.parts.catalog().plan(person.plan)
    except RelayError as error:
        return {"refusal": visit.words(error.message)}
    owner = person.id if plan.by_account else key.id if key is not None else "nobody"
    await ledger.refresh([(plan, owner)], visit.now, person.id if plan.prepaid else "")
    views = windows(ledger, owner, plan, visit.now)
    holds = [Hold(view, 1 if view.kind == "requests" else tokens) for view in views]
    balance = None
    refusal = ""
    if plan.prepaid:
        known = ledger.balance(person.id)
        balance = ledger.amount(known) - known.held
        if balance < cost:
            refusal = visit.t("admin_simulator.no_money")
    if not all(hold.has_room for hold in holds):
        refusal = visit.t("admin_simulator.no_quota")
    if person.suspended_at is not None:
        refusal = visit.t("admin_simulator.suspended")
    if key is None:
        refusal = visit.t("admin_simulator.no_key")
    elif key.state(visit.now) != "live":
        refusal = visit.t("admin_simulator.dead_key")
    return {"plan": plan, "holds": holds, "balance": balance, "refusal": refusal}
