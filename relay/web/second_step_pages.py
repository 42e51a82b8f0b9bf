"""The second step of a log-in: turned on, asked, turned off."""

from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from relay.accounts.log_in import TooOftenError
from relay.accounts.second_step import WrongCodeError, picture
from relay.store import factors
from relay.store import sessions as stored
from relay.store.users import user_by_id
from relay.web import way_pages
from relay.web.entry import STEP, bound, finish
from relay.web.pages import Access, Pages
from relay.web.proof import prove
from relay.web.visit import Visit

_MAX_TRIES: Final = 5  # of one log-in, which then begins anew


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/login/code", show_code, Access.ANYBODY)
    pages.post("/login/code", check_code, Access.ANYBODY)
    pages.post("/account/app", begin)
    pages.get("/account/app", show_app)
    pages.post("/account/app/confirm", confirm)
    pages.post("/account/app/remove", remove)
    pages.post("/account/recovery-codes", renew_codes)


# --- logging in ---


async def show_code(visit: Visit) -> Response:
    """The form for a code."""
    pending = visit.site.ways.pending.find(bound(visit, STEP), visit.now)
    if pending is None:
        return visit.redirect("/login")
    return await way_pages.code_page(visit, pending.user_id)


async def check_code(visit: Visit) -> Response:
    """Let somebody in whose code is right."""
    ways, token = visit.site.ways, bound(visit, STEP)
    pending = ways.pending.find(token, visit.now)
    if pending is None:
        return visit.redirect("/login", done="step_expired")
    user = await user_by_id(visit.database, pending.user_id)
    if user is None:
        return visit.redirect("/login", done="step_expired")
    pending.tries += 1
    if pending.tries >= _MAX_TRIES:
        ways.pending.take(token, visit.now)
    try:
        await ways.second_step.check(user.id, visit.form.get("code", ""), visit.now, visit.address)
    except WrongCodeError as error:
        return await way_pages.code_page(visit, user.id, 401, _wrong(visit, error))
    except TooOftenError as error:
        problem = visit.t("login.too_often", seconds=error.seconds)
        answer = await way_pages.code_page(visit, user.id, 429, problem)
        answer.headers["retry-after"] = str(error.seconds)
        return answer
    ways.pending.take(token, visit.now)
    return await finish(visit, user, pending)


def _wrong(visit: Visit, error: WrongCodeError) -> str:
    return visit.t("second_step.used") if error.fault == "used" else visit.t("second_step.wrong")


# --- turning it on and off ---


async def begin(visit: Visit) -> Response:
    """Make a secret for an app."""
    problem = await prove(visit)
    if problem:
        return await way_pages.page(visit, 422, "app", problem)
    if not await visit.site.ways.second_step.begin(visit.user):
        return visit.redirect(way_pages.PATH)
    return visit.redirect("/account/app")


async def show_app(visit: Visit) -> Response:
    """The secret of an app that awaits its first code, as a picture and to type."""
    return await _app_page(visit)


async def _app_page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    second_step = visit.site.ways.second_step
    enrolment = await second_step.enrolment(visit.user, visit.settings.web.name)
    if enrolment is None:
        return visit.redirect(way_pages.PATH)
    secret = enrolment.secret
    return visit.render(
        "app.html",
        status,
        secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        uri=enrolment.uri,
        picture=Markup(await picture(enrolment.uri)),  # noqa: S704 (drawn here)
        problem=problem,
    )


async def confirm(visit: Visit) -> Response:
    """Put the app into force. This page is the only one that shows the recovery codes."""
    second_step, user = visit.site.ways.second_step, visit.user
    try:
        codes = await second_step.confirm(
            user, visit.form.get("code", ""), visit.now, visit.address
        )
    except WrongCodeError as error:
        return await _app_page(visit, 422, _wrong(visit, error))
    except TooOftenError as error:
        return await _app_page(visit, 429, visit.t("login.too_often", seconds=error.seconds))
    await _end_others(visit)
    return visit.render("recovery_codes.html", codes=codes, is_new=True)


async def _end_others(visit: Visit) -> None:
    """End the sessions that were opened without the second step."""
    assert visit.logged_in is not None
    await stored.end_sessions(visit.database, visit.user.id, visit.logged_in.session.digest)


async def _prove_both(visit: Visit) -> str:
    """Check the password and a code; what is wrong, if anything."""
    problem = await prove(visit)
    if problem:
        return problem
    try:
        await visit.site.ways.second_step.check(
            visit.user.id, visit.form.get("code", ""), visit.now, visit.address
        )
    except WrongCodeError as error:
        return _wrong(visit, error)
    except TooOftenError as error:
        return visit.t("login.too_often", seconds=error.seconds)
    return ""


async def remove(visit: Visit) -> Response:
    """Log-ins have one step again."""
    problem = await _prove_both(visit)
    if problem:
        return await way_pages.page(visit, 422, "app", problem)
    await factors.remove_totp(visit.acting, visit.user.id, visit.now)
    return visit.redirect(way_pages.PATH, done="app_removed")


async def renew_codes(visit: Visit) -> Response:
    """Show other recovery codes, once."""
    problem = await _prove_both(visit)
    if problem:
        return await way_pages.page(visit, 422, "app", problem)
    second_step = visit.site.ways.second_step
    codes = await second_step.new_recovery_codes(visit.user, visit.now, visit.address)
    return visit.render("recovery_codes.html", codes=codes, is_new=False)
