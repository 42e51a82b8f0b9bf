"""Passkeys: made, named, removed, and used to log in. Scripts ask for challenges as JSON."""

from starlette.responses import JSONResponse, Response

from relay.accounts.log_in import TooOftenError
from relay.accounts.passkeys import (
    MAX_NAME,
    Answer,
    CannotAddError,
    Question,
    RelyingParty,
    WrongPasskeyError,
    relying_party,
)
from relay.store import passkeys as stored
from relay.store import sessions
from relay.store.passkeys import Passkey
from relay.web import way_pages
from relay.web.entry import STEP, bind, bound, enter, finish
from relay.web.pages import Access, Pages
from relay.web.proof import prove
from relay.web.visit import Visit

CHALLENGE = "passkey-challenge"


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.post("/login/passkey/options", ask, Access.ANYBODY)
    pages.post("/login/passkey", log_in, Access.ANYBODY)
    pages.post("/login/code/passkey/options", ask_second, Access.ANYBODY)
    pages.post("/login/code/passkey", second_step, Access.ANYBODY)
    pages.post("/account/passkeys/options", ask_to_make)
    pages.post("/account/passkeys", make)
    pages.post("/account/passkeys/{id}/name", rename)
    pages.post("/account/passkeys/{id}/remove", remove)


def _site(visit: Visit) -> RelyingParty:
    """Raises PageError: passkeys cannot work at this address."""
    site = relying_party(visit.settings)
    if site is None:
        visit.refuse(404, "not_found")
    return site


def _ask(visit: Visit, question: Question) -> Response:
    answer = Response(question.options, media_type="application/json")
    bind(visit, answer, CHALLENGE, question.token)
    return answer


def _cannot(status: int, problem: str) -> Response:
    return JSONResponse({"problem": problem}, status)


def _too_often(visit: Visit, error: TooOftenError) -> Response:
    answer = _cannot(429, visit.t("login.too_often", seconds=error.seconds))
    answer.headers["retry-after"] = str(error.seconds)
    return answer


def _answer(visit: Visit) -> Answer:
    text = visit.form.get("credential", "")
    return Answer(bound(visit, CHALLENGE), text, visit.now, visit.address)


# --- logging in ---


async def ask(visit: Visit) -> Response:
    """A challenge for any passkey of this site."""
    site, passkeys = _site(visit), visit.site.ways.passkeys
    try:
        passkeys.count(visit.address, visit.now)
        return _ask(visit, await passkeys.ask(site, visit.address, visit.now))
    except TooOftenError as error:
        return _too_often(visit, error)


async def log_in(visit: Visit) -> Response:
    """Log in by a passkey alone: the device has recognised its owner, so no second step follows."""
    site, target = _site(visit), visit.next_path(visit.form.get("next", ""))
    try:
        user = await visit.site.ways.passkeys.check(site, _answer(visit))
    except (WrongPasskeyError, TooOftenError) as error:
        problem = _wrong(visit, error)
        return visit.render("log_in.html", 401, email="", next=target, problem=problem)
    return _let_challenge_go(visit, await enter(visit, user, target or "/dashboard"))


def _wrong(visit: Visit, error: WrongPasskeyError | TooOftenError) -> str:
    """The cause of a refusal, and what to do."""
    if isinstance(error, TooOftenError):
        return visit.t("login.too_often", seconds=error.seconds)
    if error.fault == "old":
        return visit.t("passkey.old")
    return visit.t("passkey.unknown") if error.fault == "unknown" else visit.t("passkey.wrong")


def _let_challenge_go(visit: Visit, answer: Response) -> Response:
    bind(visit, answer, CHALLENGE, "")
    return answer


async def ask_second(visit: Visit) -> Response:
    """A challenge for the passkeys of an account whose password was right."""
    site, passkeys = _site(visit), visit.site.ways.passkeys
    pending = visit.site.ways.pending.find(bound(visit, STEP), visit.now)
    if pending is None:
        return _cannot(404, visit.t("done.step_expired"))
    try:
        passkeys.count(visit.address, visit.now)
        question = await passkeys.ask(site, visit.address, visit.now, pending.user_id)
    except TooOftenError as error:
        return _too_often(visit, error)
    return _ask(visit, question)


async def second_step(visit: Visit) -> Response:
    """A passkey as the second step."""
    site, ways, token = _site(visit), visit.site.ways, bound(visit, STEP)
    pending = ways.pending.find(token, visit.now)
    if pending is None:
        return visit.redirect("/login", done="step_expired")
    try:
        user = await ways.passkeys.check(site, _answer(visit), pending.user_id)
    except (WrongPasskeyError, TooOftenError) as error:
        return await way_pages.code_page(visit, pending.user_id, 401, _wrong(visit, error))
    if ways.pending.take(token, visit.now) is None:
        return visit.redirect("/login", done="step_expired")
    return _let_challenge_go(visit, await finish(visit, user, pending))


# --- those of an account ---


async def ask_to_make(visit: Visit) -> Response:
    """A challenge for a new passkey, after the password: a passkey opens the account."""
    site = _site(visit)
    problem = await prove(visit) or _name_problem(visit)
    if problem:
        return _cannot(422, problem)
    assert visit.logged_in is not None
    try:
        question = await visit.site.ways.passkeys.ask_to_make(
            site, visit.user, visit.logged_in.session.id, visit.now
        )
    except TooOftenError as error:
        return _too_often(visit, error)
    return _ask(visit, question)


def _name(visit: Visit) -> str:
    return visit.form.get("name", "").strip() or visit.t("passkey.nameless")


def _name_problem(visit: Visit) -> str:
    name = _name(visit)
    if len(name) > MAX_NAME or not name.isprintable():
        return visit.t("passkey.bad_name", most=MAX_NAME)
    return ""


async def make(visit: Visit) -> Response:
    """Keep a passkey that the browser has made."""
    site, problem = _site(visit), _name_problem(visit)
    if problem:
        return await way_pages.page(visit, 422, "passkeys", problem)
    assert visit.logged_in is not None
    session = visit.logged_in.session.id
    try:
        await visit.site.ways.passkeys.add(site, visit.user, session, _answer(visit), _name(visit))
    except (WrongPasskeyError, TooOftenError) as error:
        return await way_pages.page(visit, 422, "passkeys", _wrong(visit, error))
    except CannotAddError as error:
        problem = visit.t("passkey.many") if error.fault == "many" else visit.t("passkey.known")
        return await way_pages.page(visit, 409, "passkeys", problem)
    return _let_challenge_go(visit, visit.redirect(way_pages.PATH, done="passkey_added"))


async def _own(visit: Visit) -> Passkey:
    """The passkey of an address. Raises PageError: the account has none of this name."""
    handle = visit.request.path_params["id"]
    own = await stored.list_passkeys(visit.database, visit.user.id)
    found = next((one for one in own if one.handle == handle), None)
    if found is None:
        visit.refuse(404, "not_found")
    return found


async def rename(visit: Visit) -> Response:
    """Give a passkey another name."""
    passkey, problem = await _own(visit), _name_problem(visit)
    if problem:
        return await way_pages.page(visit, 422, "passkeys", problem)
    await stored.rename_passkey(visit.acting, passkey, _name(visit), visit.now)
    return visit.redirect(way_pages.PATH, done="passkey_renamed")


async def remove(visit: Visit) -> Response:
    """Remove a passkey; sessions that it has opened may go on elsewhere, so the others end."""
    passkey = await _own(visit)
    problem = await prove(visit)
    if not problem and not (await way_pages.ways_in(visit)).has_another(passkey.handle):
        problem = visit.t("ways.last")
    if problem:
        return await way_pages.page(visit, 422, "passkeys", problem)
    await stored.remove_passkey(visit.acting, passkey, visit.now)
    assert visit.logged_in is not None
    await sessions.end_sessions(visit.database, visit.user.id, visit.logged_in.session.digest)
    return visit.redirect(way_pages.PATH, done="passkey_removed")
