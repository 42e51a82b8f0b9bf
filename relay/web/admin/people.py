"""All people: searched, sorted, page by page, with what each used this month."""

import re
from typing import Any, Final, cast

from starlette.responses import Response

from relay.accounts import AccountError, InvalidError, users
from relay.accounts.sign_up import link_url, new_link
from relay.store.people import (
    ORDERS,
    STATES,
    Order,
    PeopleFilter,
    Slice,
    State,
    count_people,
    month_of,
    people,
)
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_ROWS: Final = 50
_MAX_TEXT: Final = 200
_NUMBER: Final = re.compile("[0-9]{1,6}")
_DOWNWARDS: Final = ("created", "requests", "tokens", "cost", "balance")  # the most at first


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/people", show, Access.ADMIN)
    pages.post("/admin/people", create, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """A page of the list; the rows alone, if a script asks."""
    return visit.render("admin/people.html", **await _values(visit))


async def _values(visit: Visit, problem: str = "", email: str = "") -> dict[str, Any]:
    query = visit.request.query_params
    which = read_filter(visit)
    order = query.get("order", "")
    order = order if order in ORDERS else "email"
    default = "down" if order in _DOWNWARDS else "up"
    direction = query.get("direction", "")
    direction = direction if direction in ("up", "down") else default
    total = await count_people(visit.database, which)
    pages = max(1, -(-total // _ROWS))
    text = query.get("page", "")
    number = min(max(int(text), 1), pages) if _NUMBER.fullmatch(text) else 1
    rows = await people(
        visit.database,
        which,
        Slice(cast(Order, order), direction == "down", _ROWS, (number - 1) * _ROWS),
        month_of(visit.now),
    )
    fields = {"q": which.text, "plan": which.plan, "state": which.state}
    return {
        "rows": rows,
        "total": total,
        "number": number,
        "pages": pages,
        "shown_pages": _near(number, pages),
        "fields": {name: value for name, value in fields.items() if value},
        "order": order,
        "direction": direction,
        "downwards": _DOWNWARDS,
        "states": STATES,
        "plans": visit.settings.plan,
        "problem": problem,
        "email": email,
    }


def read_filter(visit: Visit) -> PeopleFilter:
    """The filter of a query."""
    query = visit.request.query_params
    state = query.get("state", "")
    return PeopleFilter(
        query.get("q", "").strip()[:_MAX_TEXT],
        query.get("plan", "")[:_MAX_TEXT],
        cast(State, state if state in STATES else ""),
    )


def _near(number: int, pages: int) -> list[int]:
    """The pages to link to: the first, the last and those around; 0 stands for a gap."""
    wanted = sorted({1, pages, *range(max(1, number - 2), min(pages, number + 2) + 1)})
    shown: list[int] = []
    for one in wanted:
        if shown and one > shown[-1] + 1:
            shown.append(0)
        shown.append(one)
    return shown


async def create(visit: Visit) -> Response:
    """Open an account, and show the link by which its owner sets a password."""
    email, plan = visit.form.get("email", "").strip(), visit.form.get("plan", "")
    try:
        user = await users.create(
            visit.acting, visit.settings, email, plan=plan or None, is_admin=False, now=visit.now
        )
    except InvalidError as error:
        is_plan = error.fault == "plan"
        problem = (
            visit.t("admin_person.no_such_plan") if is_plan else visit.t("admin_people.bad_email")
        )
        return visit.render("admin/people.html", 422, **await _values(visit, problem, email))
    except AccountError:
        problem = visit.t("admin_people.taken")
        return visit.render("admin/people.html", 409, **await _values(visit, problem, email))
    await visit.parts.apply_keys()
    token = await new_link(visit.acting, "reset", visit.now, user=user)
    url = link_url(visit.settings, "reset", token)
    return visit.render("admin/link.html", user=user, url=url, is_new=True)
