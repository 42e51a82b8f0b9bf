"""The keys of an account: made, shown once, renamed, disabled, revoked."""

from typing import Any, Final

from markupsafe import Markup
from starlette.responses import Response

from relay.accounts import AccountError, InvalidError, keys
from relay.accounts.second_step import picture
from relay.store import keys as stored
from relay.store import usage
from relay.store.keys import list_own_keys
from relay.web.import_links import import_links
from relay.web.model_names import served_names, unserved
from relay.web.pages import Pages
from relay.web.snippets import snippets
from relay.web.visit import Visit

LIFETIMES: Final = ("", "7d", "30d", "90d", "365d")
_SHOWN_MODELS: Final = 3
_RECENT_SECONDS: Final = 30 * 86_400


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard/keys", show)
    pages.post("/dashboard/keys", create)
    pages.post("/dashboard/keys/{id}/name", rename)
    pages.post("/dashboard/keys/{id}/disable", disable)
    pages.post("/dashboard/keys/{id}/enable", enable)
    pages.post("/dashboard/keys/{id}/revoke", revoke)


async def show(visit: Visit) -> Response:
    """All keys with what each has used."""
    return visit.render("keys.html", **await _values(visit))


async def _values(
    visit: Visit, problem: str = "", name: str = "", lifetime: str = ""
) -> dict[str, Any]:
    user = visit.user
    which = usage.Filter(since=visit.now - _RECENT_SECONDS, user_id=user.id)
    used = {one.id: one for one in await usage.sums(visit.database, "key", which)}
    rows = await list_own_keys(visit.database, user.id)
    rows = [key for key in reversed(rows) if key.revoked_at is None]
    return {
        "unserved": unserved_by_key(visit, rows),
        "keys": rows,
        "used": used,
        "most": _max_keys(visit),
        "live": sum(key.state(visit.now) == "live" for key in rows),
        "lifetimes": LIFETIMES,
        "problem": problem,
        "name": name,
        "lifetime": lifetime,
    }


def unserved_by_key(visit: Visit, rows: list[stored.Key]) -> dict[str, str]:
    """By key, the models of its rules that nothing serves now; keys without such are left out."""
    catalog = visit.parts.catalog()
    names = served_names(visit.settings.model, catalog)
    found = {}
    for key in rows:
        missing = unserved(key.rules.models or (), names, catalog)
        if missing and key.revoked_at is None:
            shown = [one.name for one in missing[:_SHOWN_MODELS]]
            found[key.id] = ", ".join(shown) + ("…" if len(missing) > len(shown) else "")
    return found


def _max_keys(visit: Visit) -> int:
    present = visit.user.plan_at(visit.now)
    return next((plan.max_keys for plan in visit.settings.plan if plan.id == present), 0)


async def create(visit: Visit) -> Response:
    """Make a key. This page is the only place that ever shows it."""
    name, lifetime = visit.form.get("name", "").strip(), visit.choice("lifetime", LIFETIMES)
    options = keys.KeyOptions(name, lifetime or None)
    try:
        issued = await keys.create(
            visit.acting, visit.settings, visit.user.email, options, now=visit.now
        )
    except InvalidError:
        values = await _values(visit, visit.t("keys.bad_name"), name, lifetime)
        return visit.render("keys.html", 422, **values)
    except AccountError:
        problem = visit.t("keys.too_many", most=_max_keys(visit))
        return visit.render("keys.html", 409, **await _values(visit, problem, name, lifetime))
    await visit.parts.apply_keys()
    return await show_once(visit, issued)


async def show_once(visit: Visit, issued: keys.Issued) -> Response:
    """The only page that shows a key. It is in no address of this site, also not in a link."""
    key = issued.key.reveal()
    edition = await visit.site.library.edition(visit.language, visit.settings)
    return visit.render(
        "key_created.html",
        key=key,
        record=issued.record,
        base_url=visit.settings.server.public_url.rstrip("/"),
        snippets=snippets(edition, visit.settings, key),
        links=import_links(visit.settings, key),
        picture=Markup(await picture(key)),  # noqa: S704 -- drawn here
    )


async def _own_key(visit: Visit) -> str:
    """The id of the key in the path. Raises PageError: it is another account's, or revoked."""
    key_id = str(visit.request.path_params["id"])
    own = await list_own_keys(visit.database, visit.user.id)
    if not any(key.id == key_id and key.revoked_at is None for key in own):
        visit.refuse(404, "not_found")
    return key_id


async def rename(visit: Visit) -> Response:
    """Give a key another name."""
    name = visit.form.get("name", "").strip()
    try:
        await keys.rename(visit.acting, await _own_key(visit), name, visit.now)
    except InvalidError:
        values = await _values(visit, visit.t("keys.bad_name"))
        return visit.render("keys.html", 422, **values)
    return visit.redirect("/dashboard/keys", done="key_renamed")


async def disable(visit: Visit) -> Response:
    """Refuse a key until it is enabled again."""
    await stored.disable_key(visit.acting, await _own_key(visit), visit.now)
    await visit.parts.apply_keys()
    return visit.redirect("/dashboard/keys", done="key_disabled")


async def enable(visit: Visit) -> Response:
    """Accept a key again."""
    await stored.enable_key(visit.acting, await _own_key(visit), visit.now)
    await visit.parts.apply_keys()
    return visit.redirect("/dashboard/keys", done="key_enabled")


async def revoke(visit: Visit) -> Response:
    """Withdraw a key: its next request is refused."""
    await stored.revoke_key(visit.acting, await _own_key(visit), visit.now)
    await visit.parts.apply_keys()
    return visit.redirect("/dashboard/keys", done="key_revoked")
