"""The table of all endpoints: the calls are served from it, and the description is written from it.

Decides paths, scopes and types. Must not know how a call is read or answered.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from relay.provisioning import keys, money, people, spend_limits, upstreams
from relay.provisioning.call import Endpoint, ListPage, Nothing
from relay.provisioning.problems import Problem
from relay.provisioning.views import EntryView, IssuedKey, KeyView, Person, PlanView

_OPEN: Final = re.compile(r"\{\w+\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `shows_key`: its answer has a new key, so that it is not kept."""

    method: str
    path: str
    scope: str
    endpoint: Endpoint
    answer: Any
    query: Any = Nothing
    body: Any = None
    status: int = 200
    shows_key: bool = False
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", re.compile(_OPEN.sub("([^/]+)", self.path)))


_P: Final = "/api/v1"
_S: Final = "/v1/organizations/spend_limits"
ROUTES: Final = (
    Route("GET", f"{_P}/people", "people:read", people.list_people, ListPage[Person], people.PeopleQuery),  # noqa: E501
    Route("POST", f"{_P}/people", "people:write", people.create_person, Person, body=people.NewPerson, status=201),  # noqa: E501
    Route("GET", f"{_P}/people/{{id}}", "people:read", people.show_person, Person),
    Route("POST", f"{_P}/people/{{id}}/suspend", "people:write", people.suspend, Person, body=people.Suspension),  # noqa: E501
    Route("POST", f"{_P}/people/{{id}}/resume", "people:write", people.resume, Person, body=Nothing),  # noqa: E501
    Route("POST", f"{_P}/people/{{id}}/plan", "people:write", people.change_plan, Person, body=people.PlanChange),  # noqa: E501
    Route("POST", f"{_P}/people/{{id}}/window", "people:write", people.change_window, Person, body=people.WindowChange),  # noqa: E501
    Route("GET", f"{_P}/people/{{id}}/keys", "keys:read", keys.list_of_person, ListPage[KeyView]),
    Route("POST", f"{_P}/people/{{id}}/keys", "keys:write", keys.create_key, IssuedKey, body=keys.NewKeyBody, status=201, shows_key=True),  # noqa: E501
    Route("GET", f"{_P}/people/{{id}}/statement", "credit:read", money.show_statement, ListPage[EntryView], money.StatementQuery),  # noqa: E501
    Route("POST", f"{_P}/people/{{id}}/credit", "credit:write", money.add_credit, EntryView, body=money.NewCreditBody, status=201),  # noqa: E501
    Route("POST", f"{_P}/refunds", "credit:write", money.refund, EntryView, body=money.RefundBody, status=201),  # noqa: E501
    Route("GET", f"{_P}/keys/{{id}}", "keys:read", keys.show_key, KeyView),
    Route("PATCH", f"{_P}/keys/{{id}}", "keys:write", keys.change_key, KeyView, body=keys.KeyChange),  # noqa: E501
    Route("DELETE", f"{_P}/keys/{{id}}", "keys:write", keys.delete_key, KeyView),
    Route("POST", f"{_P}/keys/{{id}}/rotate", "keys:write", keys.rotate_key, IssuedKey, body=keys.Rotation, shows_key=True),  # noqa: E501
    Route("GET", f"{_P}/plans", "plans:read", people.list_plans, ListPage[PlanView]),
    Route("GET", f"{_P}/usage", "usage:read", money.show_usage, money.UsageView, money.UsageQuery),
    Route("GET", f"{_P}/upstreams", "upstreams:read", upstreams.list_upstreams, ListPage[upstreams.UpstreamView]),  # noqa: E501
    Route("GET", f"{_P}/upstreams/days", "upstreams:read", upstreams.list_days, ListPage[upstreams.UpstreamDayView]),  # noqa: E501
    Route("POST", f"{_P}/upstreams/{{name}}/pause", "upstreams:write", upstreams.pause, upstreams.UpstreamView, body=Nothing),  # noqa: E501
    Route("POST", f"{_P}/upstreams/{{name}}/resume", "upstreams:write", upstreams.resume, upstreams.UpstreamView, body=Nothing),  # noqa: E501
    Route("POST", f"{_P}/upstreams/{{name}}/clear", "upstreams:write", upstreams.clear, upstreams.UpstreamView, body=Nothing),  # noqa: E501
    Route("GET", f"{_S}/effective", "spend_limits:read", spend_limits.list_effective, spend_limits.EffectivePage, spend_limits.EffectiveQuery),  # noqa: E501
    Route("POST", _S, "spend_limits:write", spend_limits.create, spend_limits.SpendLimitView, body=spend_limits.NewSpendLimit),  # noqa: E501
    Route("GET", f"{_S}/{{id}}", "spend_limits:read", spend_limits.show, spend_limits.SpendLimitView),  # noqa: E501
    Route("DELETE", f"{_S}/{{id}}", "spend_limits:write", spend_limits.delete, spend_limits.DeletedSpendLimit),  # noqa: E501
)  # fmt: skip


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route of a call, and the parts of its path that the route leaves open.

    Raises:
        Problem: 404 for an unknown path, 405 for a wrong method.
    """
    allowed = []
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match is None:
            continue
        if route.method == method:
            return route, tuple([unquote(part) for part in match.groups()])
        allowed.append(route.method)
    if allowed:
        names = ", ".join(allowed)
        raise Problem(405, f"Use {names} for this.", headers=((b"allow", names.encode()),))
    raise Problem(404, "There is nothing at this path. /openapi.json describes what there is.")
