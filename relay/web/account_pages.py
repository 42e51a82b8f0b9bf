"""The account itself: its password, its sessions, and its end."""

from typing import Any

from starlette.responses import Response

from relay.accounts import sessions
from relay.accounts.passwords import MIN_LENGTH, WeakPasswordError
from relay.store import sessions as stored
from relay.store import thresholds
from relay.web.log_in_pages import enter
from relay.web.pages import Pages
from relay.web.proof import prove
from relay.web.threshold_pages import written
from relay.web.visit import Visit
from relay.web.way_pages import ways_in


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/account", show)
    pages.post("/account/password", change_password)
    pages.post("/account/sessions/{id}/end", end_session)
    pages.post("/account/delete", delete)


async def show(visit: Visit) -> Response:
    """All of it."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, **problems: str) -> Response:
    opened = await sessions.list_sessions(visit.database, visit.settings.web, visit.user, visit.now)
    assert visit.logged_in is not None
    ways = await ways_in(visit)
    choice = await thresholds.choice_of(visit.database, visit.user.id)
    values: dict[str, Any] = {"password_problem": "", "delete_problem": "", **problems}
    return visit.render(
        "account.html",
        status,
        sessions=opened,
        present=visit.logged_in.session.id,
        minimum=MIN_LENGTH,
        ways=ways,
        thresholds=written(choice),
        has_mail=bool(visit.settings.mail.smtp),
        **values,
    )


async def change_password(visit: Visit) -> Response:
    """Set another password; all other sessions end, and this one gets a new token."""
    problem = await prove(visit)
    if problem:
        return await _page(visit, 422, password_problem=problem)
    user = visit.user
    try:
        await visit.site.sign_up.change_password(
            visit.acting, user, visit.form.get("password", ""), visit.now
        )
    except WeakPasswordError as error:
        problem = visit.t(f"password.{error.reason}", minimum=MIN_LENGTH)
        return await _page(visit, 422, password_problem=problem)
    visit.site.ways.pending.drop(user.id)  # log-ins by the earlier password
    return await enter(visit, user, "/account", done="password_changed")


async def end_session(visit: Visit) -> Response:
    """Log one browser out."""
    session_id = visit.request.path_params["id"]
    if not await stored.end_session(visit.database, visit.user.id, session_id):
        visit.refuse(404, "not_found")
    return visit.redirect("/account", done="session_ended")


async def delete(visit: Visit) -> Response:
    """Delete the account, after its password was given once more."""
    problem = await prove(visit)
    if problem:
        return await _page(visit, 422, delete_problem=problem)
    if not await stored.delete_user(visit.acting, visit.user.id, visit.now):
        return await _page(visit, 409, delete_problem=visit.t("account.last_admin"))
    await visit.parts.apply_keys()
    answer = visit.redirect("/login", done="account_deleted")
    visit.end_session(answer)
    return answer
