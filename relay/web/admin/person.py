"""One person: plan, balance, limits, keys, sessions and requests, and what is done about them."""

from typing import Any, Final

from starlette.responses import Response

from relay.accounts import AccountError, periods, sessions, users, windows
from relay.accounts.sign_up import link_url, new_link
from relay.errors import RelayError
from relay.store import balance as balances
from relay.store import sessions as stored
from relay.store import usage
from relay.store.keys import list_keys
from relay.store.keys import revoke_key as revoke
from relay.store.periods import NewPeriod
from relay.store.request_log import RequestFilter, own_requests
from relay.store.users import User, user_by_id
from relay.store.users import set_admin as set_administrator
from relay.web.admin.audited import note
from relay.web.key_pages import unserved_by_key
from relay.web.numbers import micro_dollars, whole_number
from relay.web.overview_pages import limit_groups
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_MAX_COUNT: Final = 10**12
_MAX_NOTE: Final = 200
_DAY: Final = 86_400
_LATEST: Final = 12
_ENTRIES: Final = 12
_MONTH_SECONDS: Final = 30 * 86_400
_PROBLEMS: Final = (
    "plan_problem", "credit_problem", "access_problem", "period_problem", "window_problem",
    "bonus_problem", "problem",
)  # fmt: skip


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/people/{id}", show, Access.ADMIN)
    for action, function in {
        "plan": set_plan,
        "credit": credit,
        "suspend": suspend,
        "resume": resume,
        "admin": set_admin,
        "link": link,
        "period": set_period,
        "reset": reset_window,
        "bonus": give_bonus,
        "as": log_in_as,
        "sessions/end": end_sessions,
    }.items():
        pages.post(f"/admin/people/{{id}}/{action}", function, Access.ADMIN)
    pages.post("/admin/people/{id}/keys/{key}/revoke", revoke_key, Access.ADMIN)
    pages.post("/admin/as/end", end_log_in_as)


async def find(visit: Visit) -> User:
    """The account that a path names."""
    user = await user_by_id(visit.database, visit.request.path_params["id"])
    if user is None:
        visit.refuse(404, "no_person")
    return user


async def show(visit: Visit) -> Response:
    """All of it."""
    return await page(visit, await find(visit))


async def page(visit: Visit, user: User, status: int = 200, **problems: str) -> Response:
    """The page, with what is wrong about a form, which keeps what was typed into it."""
    action = visit.request.url.path.rpartition("/")[2]  # some forms have fields of one name

    def sent(form: str, name: str, default: str = "") -> str:
        return visit.form.get(name, default) if form == action else default

    database, web = visit.database, visit.settings.web
    keys = await list_keys(database, user.email)
    names = {key.id: key.name or key.hint for key in keys}
    which = usage.Filter(since=visit.now - _MONTH_SECONDS, user_id=user.id)
    found = await own_requests(database, user.id, RequestFilter(), limit=_LATEST)
    entries = await balances.statement(database, user.id, _ENTRIES)
    values: dict[str, Any] = {
        **dict.fromkeys(_PROBLEMS, ""),
        **problems,
    }
    return visit.render(
        "admin/person.html",
        status,
        person=user,
        sent=sent,
        keys=keys,
        unserved=unserved_by_key(visit, keys),
        key_names=lambda key_id: names.get(key_id, key_id),
        used={one.id: one for one in await usage.sums(database, "key", which)},
        models=await usage.sums(database, "model", which),
        rows=found.rows,
        entries=entries,
        balance=entries[0].balance_after if entries else None,
        sessions=await sessions.list_sessions(database, web, user, visit.now),
        plans=visit.settings.plan,
        **await _limits(visit, user),
        **values,
    )


async def _limits(visit: Visit, user: User) -> dict[str, Any]:
    try:
        plan = visit.parts.catalog().plan(user.plan_at(visit.now))
    except RelayError:  # it is gone from relay.toml
        return {"plan": None, "groups": []}
    return {"plan": plan, "groups": await limit_groups(visit, user, plan)}


def _back(visit: Visit, user: User, *, done: str) -> Response:
    return visit.redirect(f"/admin/people/{user.id}", done=done)


async def set_plan(visit: Visit) -> Response:
    """Move the account to another plan."""
    user = await find(visit)
    try:
        await users.set_plan(visit.acting, visit.settings, user.email, visit.form.get("plan", ""))
    except AccountError:
        return await page(visit, user, 422, plan_problem=visit.t("admin_person.no_such_plan"))
    await visit.parts.apply_keys()
    return _back(visit, user, done="plan_changed")


async def credit(visit: Visit) -> Response:
    """Add to the balance, or take back."""
    user = await find(visit)
    micro = micro_dollars(visit.form.get("amount", ""))
    text = visit.form.get("note", "").strip()
    if micro is None:
        return await page(visit, user, 422, credit_problem=visit.t("admin_person.bad_amount"))
    if not text.isprintable():
        return await page(visit, user, 422, credit_problem=visit.t("admin_person.unprintable"))
    if len(text) > _MAX_NOTE:
        return await page(visit, user, 422, credit_problem=visit.t("admin_person.bad_note"))
    await balances.credit(visit.acting, user.id, micro, text, visit.now)
    await visit.parts.apply_keys()
    return _back(visit, user, done="credited")


async def suspend(visit: Visit) -> Response:
    """Refuse the requests of all keys, for a reason that the person reads."""
    user = await find(visit)
    if user.id == visit.user.id:
        return await page(visit, user, 409, problem=visit.t("admin_person.not_oneself"))
    reason = visit.form.get("reason", "").strip()
    if not reason:
        return await page(visit, user, 422, access_problem=visit.t("admin_person.no_reason"))
    if not reason.isprintable():
        return await page(visit, user, 422, access_problem=visit.t("admin_person.unprintable"))
    if len(reason) > _MAX_NOTE:
        return await page(visit, user, 422, access_problem=visit.t("admin_person.bad_reason"))
    await users.suspend(visit.acting, user.email, visit.now, reason)
    await visit.parts.apply_keys()
    return _back(visit, user, done="suspended")


async def resume(visit: Visit) -> Response:
    """End the suspension."""
    user = await find(visit)
    await users.resume(visit.acting, user.email)
    await visit.parts.apply_keys()
    return _back(visit, user, done="resumed")


async def set_period(visit: Visit) -> Response:
    """Begin a plan for some days, or let the present period end later."""
    user, form = await find(visit), visit.form
    seconds = (whole_number(form.get("days", ""), _MAX_COUNT) or 0) * _DAY
    database, settings = visit.acting, visit.settings
    try:
        if form.get("do") == "extend":
            await periods.extend(database, settings, user.email, seconds, visit.now)
        else:
            then = form.get("plan_then", "")
            new = NewPeriod(form.get("plan", ""), seconds, then, visit.actor.name)
            await periods.start(database, settings, user.email, new, visit.now)
    except AccountError as error:
        problem = visit.t(f"admin_person.bad_period_{error.fault or 'plan'}")
        return await page(visit, user, 422, period_problem=problem)
    await visit.parts.apply_keys()
    return _back(visit, user, done="period_changed")


async def reset_window(visit: Visit) -> Response:
    """Make one limit full again; its window ends when it would have."""
    user = await find(visit)
    try:
        await windows.reset_window(
            visit.acting, visit.settings, user.email, visit.form.get("window", ""), visit.now
        )
    except AccountError:
        return await page(visit, user, 422, window_problem=visit.t("admin_person.no_window"))
    await visit.parts.apply_keys()
    return _back(visit, user, done="window_reset")


async def give_bonus(visit: Visit) -> Response:
    """Let the next windows of a limit be larger."""
    user = await find(visit)
    amount = whole_number(visit.form.get("amount", ""), _MAX_COUNT)
    count = whole_number(visit.form.get("windows", ""), _MAX_COUNT, 0)
    try:
        await windows.give_bonus(
            visit.acting,
            visit.settings,
            user.email,
            bonus=(visit.form.get("window", ""), amount or 0, -1 if count is None else count),
            now=visit.now,
        )
    except AccountError as error:
        problem = visit.t(f"admin_person.bad_bonus_{error.fault or 'window'}")
        return await page(visit, user, 422, bonus_problem=problem)
    await visit.parts.apply_keys()
    return _back(visit, user, done="bonus_given")


async def set_admin(visit: Visit) -> Response:
    """Make an administrator of somebody, or no longer."""
    user = await find(visit)
    if user.id == visit.user.id:  # so there always is one
        return await page(visit, user, 409, problem=visit.t("admin_person.not_oneself"))
    await set_administrator(visit.acting, user.email, visit.form.get("admin") == "1", visit.now)
    return _back(visit, user, done="admin_changed")


async def link(visit: Visit) -> Response:
    """Make a one-time link for a new password, which is shown once."""
    user = await find(visit)
    token = await new_link(visit.acting, "reset", visit.now, user=user)
    await note(visit, "user.link", user.id, None, {"purpose": "reset"})
    url = link_url(visit.settings, "reset", token)
    return visit.render("admin/link.html", user=user, url=url, is_new=False)


async def end_sessions(visit: Visit) -> Response:
    """Log the person out everywhere."""
    user = await find(visit)
    kept = visit.logged_in.session.digest if visit.logged_in is not None else b""
    count = await stored.end_sessions(visit.database, user.id, kept)
    await note(visit, "user.log_out", user.id, {"sessions": count}, {"sessions": 0})
    return _back(visit, user, done="sessions_ended")


async def revoke_key(visit: Visit) -> Response:
    """Withdraw one key."""
    user = await find(visit)
    key_id = visit.request.path_params["key"]
    own = {key.id for key in await list_keys(visit.database, user.email)}
    if key_id not in own or await revoke(visit.acting, key_id, visit.now) is None:
        visit.refuse(404, "not_found")
    await visit.parts.apply_keys()
    return _back(visit, user, done="key_revoked")


async def log_in_as(visit: Visit) -> Response:
    """See the pages of this person, as they do."""
    user = await find(visit)
    if user.is_admin:
        return await page(visit, user, 409, problem=visit.t("admin_person.not_an_admin"))
    await note(visit, "user.log_in_as", user.id, None, {"email": user.email})
    answer = visit.redirect("/dashboard")
    visit.site.log_in_as.start(visit, answer, user.id)
    return answer


async def end_log_in_as(visit: Visit) -> Response:
    """Be oneself again."""
    target = "/dashboard"
    if visit.administrator is not None:
        target = f"/admin/people/{visit.user.id}"
        await note(visit, "user.log_in_as_end", visit.user.id, {"email": visit.user.email})
    answer = visit.redirect(target)
    visit.site.log_in_as.end(visit, answer)
    return answer
