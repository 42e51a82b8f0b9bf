"""One key: what it may do, and a new one in its place. For its owner, and for administrators.

Decides how rules are written in a form: a line each. The rules are those of `relay.accounts`.
"""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from relay.accounts import AccountError, InvalidError, keys
from relay.accounts.key_rules import MAX_CONCURRENCY, MAX_ENTRIES, limit_text, rules
from relay.store.keys import Key, KeyRules, list_keys, list_own_keys
from relay.web.admin import person
from relay.web.key_pages import show_once
from relay.web.model_names import served_names, unserved
from relay.web.numbers import plain, whole_number
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

GRACES: Final = ("0", "1h", "24h", "7d")
_LISTS: Final = ("models", "addresses", "limits")


@dataclass(frozen=True, slots=True)
class _Place:
    """A key, the path of its page, and the page that it is reached from."""

    key: Key
    path: str
    back: str
    layout: str


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard/keys/{id}", show)
    pages.post("/dashboard/keys/{id}/rules", save)
    pages.post("/dashboard/keys/{id}/rotate", rotate)
    pages.get("/admin/people/{id}/keys/{key}", show_to_admin, Access.ADMIN)
    pages.post("/admin/people/{id}/keys/{key}/rules", save_as_admin, Access.ADMIN)
    pages.post("/admin/people/{id}/keys/{key}/disable", disable_as_admin, Access.ADMIN)
    pages.post("/admin/people/{id}/keys/{key}/enable", enable_as_admin, Access.ADMIN)


async def _own(visit: Visit) -> _Place:
    """The key in the path. Raises PageError: it is another account's, or revoked."""
    own = await list_own_keys(visit.database, visit.user.id)
    key = _among(visit, own, visit.request.path_params["id"])
    return _Place(key, f"/dashboard/keys/{key.id}", "/dashboard/keys", "layout.html")


async def _of_person(visit: Visit) -> _Place:
    user = await person.find(visit)
    found = await list_keys(visit.database, user.email)
    key = _among(visit, found, visit.request.path_params["key"])
    back = f"/admin/people/{user.id}"
    return _Place(key, f"{back}/keys/{key.id}", back, "admin/layout.html")


def _among(visit: Visit, found: list[Key], key_id: str) -> Key:
    found = [key for key in found if key.id == key_id and key.revoked_at is None]
    if not found:
        visit.refuse(404, "not_found")
    return found[0]


async def show(visit: Visit) -> Response:
    """The page of one's own key."""
    return _page(visit, await _own(visit))


async def show_to_admin(visit: Visit) -> Response:
    """The page of anybody's key."""
    return _page(visit, await _of_person(visit))


def _page(visit: Visit, place: _Place, status: int = 200, **values: str) -> Response:
    shown: dict[str, Any] = {"problem": "", **_written(place.key.rules), **values}
    names = served_names(visit.settings.model, visit.parts.catalog())
    entries = shown["models"].split()[:MAX_ENTRIES]
    return visit.render(
        "key.html", status, key=place.key,
        unserved=unserved(entries, names, visit.parts.catalog()), path=place.path, back=place.back,
        layout=place.layout, graces=GRACES, **shown,
    )  # fmt: skip


def _written(present: KeyRules) -> dict[str, str]:
    """The rules as the form has them."""
    limits = [limit_text(one) for one in present.limits or ()]
    return {
        "models": "\n".join(present.models or ()),
        "addresses": "\n".join(present.addresses or ()),
        "limits": "\n".join(limits),
        "concurrency": str(present.max_concurrency or ""),
    }


async def save(visit: Visit) -> Response:
    """Replace the rules of one's own key."""
    return await _save(visit, await _own(visit))


async def save_as_admin(visit: Visit) -> Response:
    """Replace the rules of anybody's key."""
    return await _save(visit, await _of_person(visit))


async def _save(visit: Visit, place: _Place) -> Response:
    written = {name: visit.form.get(name, "") for name in (*_LISTS, "concurrency")}
    models, addresses, limits = (written[name].split() for name in _LISTS)
    concurrency = whole_number(written["concurrency"].strip() or "0", MAX_CONCURRENCY, 0)
    if concurrency is None:
        words = visit.t("key.bad_concurrency", most=MAX_CONCURRENCY)
        return _page(visit, place, 422, problem=visit.t("key.wrong", words=words), **written)
    try:
        stated = rules(models, addresses, [plain(one) for one in limits], concurrency)
    except InvalidError as error:
        return _page(
            visit,
            place,
            422,
            problem=visit.t("key.wrong", words=visit.words(str(error))),
            **written,
        )
    await keys.set_rules(visit.acting, place.key.id, stated, visit.now)
    await visit.parts.apply_keys()
    return visit.redirect(place.path, done="key_rules")


async def rotate(visit: Visit) -> Response:
    """Put a new key in the place of one's own. This page is the only place that shows it."""
    place = await _own(visit)
    grace = visit.choice("grace", GRACES, keys.DEFAULT_GRACE)
    try:
        issued = await keys.rotate(
            visit.acting, visit.settings, place.key.id,
            grace=grace, now=visit.now,
        )  # fmt: skip
    except AccountError:
        return _page(visit, place, 409, problem=visit.t("key.not_live"))
    await visit.parts.apply_keys()
    return await show_once(visit, issued)


async def disable_as_admin(visit: Visit) -> Response:
    """Refuse a key until it is enabled again."""
    place = await _of_person(visit)
    await keys.disable(visit.acting, place.key.id, visit.now)
    await visit.parts.apply_keys()
    return visit.redirect(place.path, done="key_disabled")


async def enable_as_admin(visit: Visit) -> Response:
    """Accept a key again."""
    place = await _of_person(visit)
    await keys.enable(visit.acting, place.key.id, visit.now)
    await visit.parts.apply_keys()
    return visit.redirect(place.path, done="key_enabled")
