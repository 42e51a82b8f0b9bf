"""Logging in and out, and passwords that were forgotten."""

from starlette.responses import Response

from relay.accounts.log_in import TooOftenError, WrongCredentialsError
from relay.accounts.passwords import MIN_LENGTH, HashingBusyError, WeakPasswordError
from relay.accounts.sign_up import MAILED_RESET_SECONDS, find_link, link_url, new_link
from relay.accounts.throttle import address_name
from relay.store import sessions as stored
from relay.store.users import find_user, user_by_id
from relay.web.entry import enter as enter
from relay.web.entry import proceed
from relay.web.pages import Access, Pages
from relay.web.visit import Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/login", show, Access.ANYBODY)
    pages.post("/login", log_in, Access.ANYBODY)
    pages.post("/logout", log_out)
    pages.post("/logout/everywhere", log_out_everywhere)
    pages.get("/forgot", show_forgot, Access.ANYBODY)
    pages.post("/forgot", forgot, Access.ANYBODY)
    pages.get("/reset", show_reset, Access.ANYBODY)
    pages.post("/reset", reset, Access.ANYBODY)


async def show(visit: Visit) -> Response:
    """The form to log in."""
    target = visit.next_path(visit.request.query_params.get("next", ""))
    if visit.logged_in is not None:
        return visit.redirect(target or "/dashboard")
    return visit.render("log_in.html", email="", next=target, problem="")


async def log_in(visit: Visit) -> Response:
    """Log a browser in."""
    form = visit.form
    email, target = form.get("email", ""), visit.next_path(form.get("next", ""))
    wait = 0
    try:
        user = await visit.site.log_in.check(
            visit.settings.web, email, form.get("password", ""), visit.address, visit.now
        )
    except WrongCredentialsError:
        problem, status = visit.t("login.wrong"), 401
    except TooOftenError as error:
        problem, status = visit.t("login.too_often", seconds=error.seconds), 429
        wait = error.seconds
    except HashingBusyError:
        problem, status, wait = visit.t("error.busy"), 503, 2
    else:
        return await proceed(visit, user, target or "/dashboard")
    answer = visit.render("log_in.html", status, email=email, next=target, problem=problem)
    if wait:
        answer.headers["retry-after"] = str(wait)
    return answer


async def log_out(visit: Visit) -> Response:
    """End this session."""
    assert visit.logged_in is not None
    session = visit.logged_in.session
    await stored.end_session(visit.database, session.user_id, session.id)
    answer = visit.redirect("/login", done="logged_out")
    visit.end_session(answer)
    return answer


async def log_out_everywhere(visit: Visit) -> Response:
    """End all sessions of the account."""
    await stored.end_sessions(visit.database, visit.user.id)
    answer = visit.redirect("/login", done="logged_out_everywhere")
    visit.end_session(answer)
    return answer


# --- forgotten passwords ---


async def show_forgot(visit: Visit) -> Response:
    """The form to ask for a link, or whom to ask where no mail is sent."""
    return visit.render("forgot.html", sent=False, has_mail=bool(visit.settings.mail.smtp))


async def forgot(visit: Visit) -> Response:
    """Send a link, if there is such an account; the page does not say whether there is."""
    if not visit.settings.mail.smtp:
        visit.refuse(404, "not_found")
    email = visit.form.get("email", "").strip()
    mails = visit.site.mails
    for name in (address_name(visit.address), email.casefold()[:254]):
        seconds = mails.wait(name, visit.now)
        if seconds:
            visit.refuse(429, "too_often", seconds=seconds, retry_after=seconds)
    user = await find_user(visit.database, email)
    if user is not None:
        token = await new_link(
            visit.database, "reset", visit.now, user=user, seconds=MAILED_RESET_SECONDS
        )
        url = link_url(visit.settings, "reset", token)
        name = visit.settings.web.name
        visit.site.mailing.post(
            visit.settings,
            user.email,
            visit.t("mail.reset_subject", name=name),
            visit.t("mail.reset_text", name=name, url=url),
        )
    return visit.render("forgot.html", sent=True, has_mail=True)


async def show_reset(visit: Visit) -> Response:
    """The form for a new password."""
    token = visit.request.query_params.get("t", "")
    if await find_link(visit.database, token, "reset", visit.now) is None:
        visit.refuse(404, "dead_link")
    return visit.render("reset.html", token=token, problem="", minimum=MIN_LENGTH)


async def reset(visit: Visit) -> Response:
    """Set a new password; everybody who was logged in with the old one is logged out."""
    token = visit.form.get("t", "")
    link = await find_link(visit.database, token, "reset", visit.now)
    found = None if link is None else await user_by_id(visit.database, link.user_id or "")
    if link is None or found is None:
        visit.refuse(404, "dead_link")
    try:
        await visit.site.sign_up.change_password(
            visit.acting_as(found.id), found, visit.form.get("password", ""), visit.now
        )
    except WeakPasswordError as error:
        problem = visit.t(f"password.{error.reason}", minimum=MIN_LENGTH)
        return visit.render("reset.html", 422, token=token, problem=problem, minimum=MIN_LENGTH)
    visit.site.log_in.forget(found.email)
    visit.site.ways.pending.drop(found.id)  # log-ins by the earlier password
    visit.logged_in = None  # its session has ended
    return await proceed(visit, found, "/dashboard", done="password_changed")
