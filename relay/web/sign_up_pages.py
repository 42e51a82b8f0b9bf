"""Signing up: open with a proof of work, by invitation, and the first administrator."""

from starlette.responses import Response

from relay.accounts import InvalidError
from relay.accounts.passwords import MIN_LENGTH, WeakPasswordError
from relay.accounts.sign_up import (
    AddressTakenError,
    Wanted,
    find_invitation,
    find_link,
    link_url,
)
from relay.accounts.throttle import address_name
from relay.store.codes import Code
from relay.web.log_in_pages import enter
from relay.web.pages import Access, Pages
from relay.web.visit import Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/signup", show, Access.ANYBODY)
    pages.post("/signup", sign_up, Access.ANYBODY)
    pages.get("/confirm", show_confirm, Access.ANYBODY)
    pages.post("/confirm", confirm, Access.ANYBODY)
    pages.get("/setup", show_setup, Access.ANYBODY)
    pages.post("/setup", set_up, Access.ANYBODY)


async def show(visit: Visit) -> Response:
    """The form to sign up, where that is possible."""
    if visit.logged_in is not None:
        return visit.redirect("/dashboard")
    token = visit.request.query_params.get("t", "")
    invitation = await _invitation(visit, token)
    return _form(visit, token, invitation)


async def _invitation(visit: Visit, token: str) -> Code | None:
    """The invitation of a code. Raises PageError: it has been used, or has expired."""
    if not token or visit.settings.web.sign_up == "closed":
        return None
    invitation = await find_invitation(visit.database, token, visit.now)
    if invitation is None:
        visit.refuse(404, "dead_link")
    return invitation


def _form(
    visit: Visit, token: str, invitation: Code | None, problem: str = "", status: int = 200
) -> Response:
    web = visit.settings.web
    is_open = web.sign_up == "open" or invitation is not None
    challenge = ""
    if is_open and invitation is None:
        challenge = visit.site.proof_of_work.challenge(web.sign_up_work, visit.now)
    return visit.render(
        "sign_up.html",
        status,
        is_open=is_open,
        mode=web.sign_up,
        token=token,
        challenge=challenge,
        problem=problem,
        email=visit.form.get("email", ""),
        minimum=MIN_LENGTH,
    )


async def sign_up(visit: Visit) -> Response:
    """Open an account, or send the mail that will."""
    form, web = visit.form, visit.settings.web
    token = form.get("t", "")
    invitation = await _invitation(visit, token)
    if invitation is None and web.sign_up != "open":
        visit.refuse(403, "sign_up_closed")
    seconds = visit.site.mails.wait(address_name(visit.address), visit.now)
    if seconds:
        visit.refuse(429, "too_often", seconds=seconds, retry_after=seconds)
    wanted = Wanted(form.get("email", "").strip(), form.get("password", ""))
    challenge, answer = form.get("challenge", ""), form.get("answer", "")
    if invitation is None and not visit.site.proof_of_work.accept(
        challenge, answer, web.sign_up_work, visit.now
    ):
        return _form(visit, token, invitation, visit.t("signup.no_proof"), 422)
    try:
        if invitation is None and visit.settings.mail.smtp:
            return await _ask_to_confirm(visit, wanted)
        user = await visit.site.sign_up.open(
            visit.acting_as(""), visit.settings, wanted, invitation, visit.now
        )
    except WeakPasswordError as error:
        problem = visit.t(f"password.{error.reason}", minimum=MIN_LENGTH)
        return _form(visit, token, invitation, problem, 422)
    except InvalidError:
        return _form(visit, token, invitation, visit.t("signup.no_address"), 422)
    except AddressTakenError:
        return _form(visit, token, invitation, visit.t("signup.taken"), 409)
    return await enter(visit, user, "/dashboard/keys", done="signed_up")


async def _ask_to_confirm(visit: Visit, wanted: Wanted) -> Response:
    """Send a mail to the address, whether it has an account or not: the page is the same."""
    settings, t, name = visit.settings, visit.t, visit.settings.web.name
    token = await visit.site.sign_up.prepare(visit.database, wanted, visit.now)
    if token is not None:
        text = t("mail.confirm_text", name=name, url=link_url(settings, "confirm", token))
    else:
        url = settings.server.public_url.rstrip("/")
        text = t("mail.taken_text", name=name, url=f"{url}/login", forgot=f"{url}/forgot")
    if not visit.site.mailing.post(
        settings, wanted.email, t("mail.confirm_subject", name=name), text
    ):
        visit.refuse(503, "busy", retry_after=10)
    return visit.render("notice.html", title=t("signup.look_title"), text=t("signup.look"))


async def show_confirm(visit: Visit) -> Response:
    """A button, since programs that look at mails follow links by GET."""
    token = visit.request.query_params.get("t", "")
    link = await find_link(visit.database, token, "confirm", visit.now)
    if link is None:
        visit.refuse(404, "dead_link")
    return visit.render("confirm.html", token=token, email=link.email)


async def confirm(visit: Visit) -> Response:
    """Open the account of a confirmed address."""
    link = await find_link(visit.database, visit.form.get("t", ""), "confirm", visit.now)
    if link is None:
        visit.refuse(404, "dead_link")
    try:
        user = await visit.site.sign_up.confirm(
            visit.acting_as(""), visit.settings, link, visit.now
        )
    except AddressTakenError:
        visit.refuse(404, "dead_link")
    return await enter(visit, user, "/dashboard/keys", done="signed_up")


# --- the first administrator ---


async def show_setup(visit: Visit) -> Response:
    """The form for the first account, by the link that `relay serve` prints."""
    token = visit.request.query_params.get("t", "")
    if await find_link(visit.database, token, "admin", visit.now) is None:
        visit.refuse(404, "dead_link")
    return visit.render("set_up.html", token=token, problem="", email="", minimum=MIN_LENGTH)


async def set_up(visit: Visit) -> Response:
    """Open the first account."""
    token = visit.form.get("t", "")
    link = await find_link(visit.database, token, "admin", visit.now)
    if link is None:
        visit.refuse(404, "dead_link")
    wanted = Wanted(visit.form.get("email", "").strip(), visit.form.get("password", ""))
    try:
        user = await visit.site.sign_up.open(
            visit.acting_as(""), visit.settings, wanted, link, visit.now
        )
    except WeakPasswordError as error:
        problem = visit.t(f"password.{error.reason}", minimum=MIN_LENGTH)
    except InvalidError:
        problem = visit.t("signup.no_address")
    except AddressTakenError:
        visit.refuse(404, "dead_link")
    else:
        return await enter(visit, user, "/dashboard/keys", done="signed_up")
    return visit.render(
        "set_up.html", 422, token=token, problem=problem, email=wanted.email, minimum=MIN_LENGTH
    )
