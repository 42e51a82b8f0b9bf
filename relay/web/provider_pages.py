"""Logging in by another provider, and linking an account to one."""

import logging
from typing import Final

from starlette.responses import Response

from relay.accounts.log_in import TooOftenError, WrongCredentialsError
from relay.accounts.passwords import HashingBusyError
from relay.accounts.provider_client import Journey, Person, ProviderError
from relay.accounts.providers import Leaving, StrangerError, check_person, find_provider
from relay.config.oidc import OidcSettings
from relay.store import identities as stored
from relay.store import sessions
from relay.store.identities import Identity
from relay.store.users import find_user
from relay.web import way_pages
from relay.web.entry import bind, bound, enter, proceed
from relay.web.pages import Access, Pages
from relay.web.proof import prove
from relay.web.visit import Visit

LEAVING: Final = "provider-visit"
LINKING: Final = "provider-link"

_log = logging.getLogger("relay.web")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.post("/login/with/{name}", leave, Access.ANYBODY)
    pages.get("/login/callback/{name}", come_back, Access.ANYBODY)
    pages.get("/login/link", show_link, Access.ANYBODY)
    pages.post("/login/link", link, Access.ANYBODY)
    pages.post("/account/identities/{name}/link", leave_to_link)
    pages.post("/account/identities/{id}/remove", unlink)


def _provider(visit: Visit) -> OidcSettings:
    """The provider of an address. Raises PageError: there is none of this name."""
    provider = find_provider(visit.settings, visit.request.path_params["name"])
    if provider is None:
        visit.refuse(404, "not_found")
    return provider


# --- leaving ---


async def leave(visit: Visit) -> Response:
    """Send a browser to a provider, to log in."""
    target = visit.next_path(visit.form.get("next", ""))
    return await _leave(visit, _provider(visit), target, "")


async def leave_to_link(visit: Visit) -> Response:
    """Send somebody who is logged in to a provider, to link their account."""
    provider, problem = _provider(visit), await prove(visit)
    if problem:
        return await way_pages.page(visit, 422, "providers", problem)
    return await _leave(visit, provider, way_pages.PATH, visit.user.id)


async def _leave(visit: Visit, provider: OidcSettings, target: str, user_id: str) -> Response:
    base = visit.settings.server.public_url.rstrip("/")
    journey = Journey("", "", "", f"{base}/login/callback/{provider.name}")
    wanted = Leaving(provider.name, journey, target, user_id)
    providers = visit.site.ways.providers
    try:
        url, token = await providers.leave(provider, wanted, visit.address, visit.now)
    except TooOftenError as error:
        visit.refuse(429, "too_often", seconds=error.seconds, retry_after=error.seconds)
    except (ProviderError, ValueError) as error:
        _log.warning("people cannot log in by %s: %s", provider.name, error)
        return _failed(visit, "failed", provider)
    # A page, since browsers hold what a form leads to against the policy for forms.
    answer = visit.render("leave.html", url=url, provider=provider)
    bind(visit, answer, LEAVING, token)
    return answer


def _failed(visit: Visit, reason: str, provider: OidcSettings) -> Response:
    text = visit.t(f"provider.{reason}", provider=provider.shown)
    title = visit.t("provider.title", provider=provider.shown)
    status = 502 if reason == "failed" else 403
    answer = visit.render("provider_failed.html", status, title=title, text=text)
    bind(visit, answer, LEAVING, "")
    return answer


# --- coming back ---


async def come_back(visit: Visit) -> Response:
    """Let somebody in whom a provider sends back; what it says is bound to this browser."""
    provider, query = _provider(visit), dict(visit.request.query_params)
    providers = visit.site.ways.providers
    try:
        left, person = await providers.come_back(provider, bound(visit, LEAVING), query, visit.now)
        check_person(provider, person)
    except StrangerError as error:
        return _failed(visit, error.reason, provider)
    except TooOftenError as error:
        visit.refuse(429, "too_often", seconds=error.seconds, retry_after=error.seconds)
    except (ProviderError, ValueError) as error:
        if query.get("error") == "access_denied":
            return visit.redirect("/login", done="provider_denied")
        _log.warning("a log-in by %s failed: %s", provider.name, error)
        return _failed(visit, "failed", provider)
    if left.user_id:
        answer = await _link_own(visit, provider, left, person)
    else:
        answer = await _let_in(visit, provider, left, person)
    bind(visit, answer, LEAVING, "")
    return answer


def _identity(person: Person, user_id: str, now: float) -> Identity:
    return Identity(person.issuer, person.subject, user_id, person.email, now)


async def _link_own(
    visit: Visit, provider: OidcSettings, left: Leaving, person: Person
) -> Response:
    """Link the account of who is logged in, and was when they left."""
    if visit.logged_in is None or visit.user.id != left.user_id:
        return _failed(visit, "failed", provider)
    identity = _identity(person, visit.user.id, visit.now)
    if not await stored.link_identity(visit.acting, identity):
        problem = visit.t("provider.taken", provider=provider.shown)
        return await way_pages.page(visit, 409, "providers", problem)
    return visit.redirect(way_pages.PATH, done="provider_linked")


async def _let_in(visit: Visit, provider: OidcSettings, left: Leaving, person: Person) -> Response:
    target = left.target or "/dashboard"
    found = await stored.find_identity(visit.database, person.issuer, person.subject)
    if found is not None:
        await stored.see_identity(visit.database, found[0], visit.now)
        return await proceed(visit, found[1], target)
    user = await find_user(visit.database, person.email)
    identity = _identity(person, "" if user is None else user.id, visit.now)
    if user is not None:  # whose it is, only the password says
        token = visit.site.ways.linking.start(user.id, (identity, target), visit.now)
        answer = visit.redirect("/login/link")
        bind(visit, answer, LINKING, token)
        return answer
    try:
        user = await visit.site.ways.providers.open(visit.settings, provider, identity, visit.now)
    except StrangerError as error:
        return _failed(visit, error.reason, provider)
    return await enter(visit, user, "/dashboard/keys", done="signed_up")


# --- linking an account that has the same address ---


async def show_link(visit: Visit) -> Response:
    """Ask for the password of the account that has this address."""
    found = visit.site.ways.linking.find(bound(visit, LINKING), visit.now)
    if found is None:
        return visit.redirect("/login")
    return _link_page(visit, found[0])


def _link_page(visit: Visit, identity: Identity, status: int = 200, problem: str = "") -> Response:
    return visit.render("link.html", status, email=identity.email, problem=problem)


async def link(visit: Visit) -> Response:
    """Link the account, once its password and its second step are right."""
    ways, token = visit.site.ways, bound(visit, LINKING)
    found = ways.linking.find(token, visit.now)
    if found is None:
        return visit.redirect("/login", done="step_expired")
    identity, target = found
    try:
        user = await visit.site.log_in.check(
            visit.settings.web,
            identity.email,
            visit.form.get("password", ""),
            visit.address,
            visit.now,
        )
    except WrongCredentialsError:
        return _link_page(visit, identity, 401, visit.t("provider.wrong_password"))
    except TooOftenError as error:
        problem = visit.t("login.too_often", seconds=error.seconds)
        return _link_page(visit, identity, 429, problem)
    except HashingBusyError:
        return _link_page(visit, identity, 503, visit.t("error.busy"))
    if ways.linking.take(token, visit.now) is None or user.id != identity.user_id:
        return visit.redirect("/login", done="step_expired")
    answer = await proceed(visit, user, target, done="provider_linked", identity=identity)
    bind(visit, answer, LINKING, "")
    return answer


async def unlink(visit: Visit) -> Response:
    """Unlink the account; sessions elsewhere may have been opened by it, so they end."""
    handle = visit.request.path_params["id"]
    own = await stored.list_identities(visit.database, visit.user.id)
    found = next((one for one in own if one.handle == handle), None)
    if found is None:
        visit.refuse(404, "not_found")
    problem = await prove(visit)
    if not problem and not (await way_pages.ways_in(visit)).has_another(handle):
        problem = visit.t("ways.last")
    if problem:
        return await way_pages.page(visit, 422, "providers", problem)
    await stored.unlink_identity(visit.acting, found, visit.now)
    assert visit.logged_in is not None
    await sessions.end_sessions(visit.database, visit.user.id, visit.logged_in.session.digest)
    return visit.redirect(way_pages.PATH, done="provider_unlinked")
