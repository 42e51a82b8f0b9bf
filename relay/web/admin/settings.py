"""The settings in force, a look at what the file would change, and its reload."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from relay import config
from relay.alerts.delivery import DeliveryError, send
from relay.alerts.mail_server import letter, send_message
from relay.alerts.rules import Alert
from relay.config import ConfigError
from relay.net.off_loop import off_loop
from relay.web.admin.audited import note
from relay.web.pages import Access, Pages
from relay.web.parts import Reloading
from relay.web.visit import Visit


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/settings", show, Access.ADMIN)
    pages.post("/admin/settings/check", check, Access.ADMIN)
    pages.post("/admin/settings/reload", reload, Access.ADMIN)
    pages.post("/admin/settings/alerts/{name}/test", test_alert, Access.ADMIN)
    pages.post("/admin/settings/mail/test", test_mail, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them."""
    return _page(visit)


def _page(visit: Visit, status: int = 200, **values: Any) -> Response:
    reloading = visit.parts.operations().reloading
    return visit.render(
        "admin/settings.html",
        status,
        sections=sections(visit.settings),
        file=reloading.path if reloading else "",
        receivers=visit.settings.alert,
        **{"changes": None, "problem": "", "heading": "", "sent": "", "of_test": False, **values},
    )


def _reloading(visit: Visit) -> Reloading:
    reloading = visit.parts.operations().reloading
    if reloading is None:
        visit.refuse(404, "no_file")
    return reloading


async def check(visit: Visit) -> Response:
    """What a reload would change, or why it would be refused."""
    reloading = _reloading(visit)
    try:
        changes = await reloading.compare()
    except ConfigError as error:
        return _page(visit, 422, problem=visit.words(reloading.words(error)))
    return _page(visit, changes=changes, heading="checked")


async def reload(visit: Visit) -> Response:
    """Put the file into force."""
    reloading = _reloading(visit)
    try:
        changes = await reloading.reload(visit.actor)
    except ConfigError as error:
        return _page(visit, 422, problem=visit.words(reloading.words(error)))
    return _page(visit, changes=changes, heading="reloaded")


async def test_alert(visit: Visit) -> Response:
    """Send a test message to one receiver of alerts."""
    name = visit.request.path_params["name"]
    receiver = next((one for one in visit.settings.alert if one.name == name), None)
    if receiver is None:
        visit.refuse(404, "not_found")
    alert = Alert("upstream", "test", "test", "", visit.now, visit.now)
    url = visit.settings.server.public_url
    try:
        await off_loop("alert test", lambda: send(receiver, alert, url))
    except DeliveryError as error:
        return _page(visit, 502, problem=f"{name}: {visit.words(str(error))}", of_test=True)
    await note(visit, "alert.test", name, None, {"sent": True})
    return _page(visit, sent=name)


async def test_mail(visit: Visit) -> Response:
    """Send a mail to the administrator who asks."""
    settings, email = visit.settings, visit.user.email
    if not settings.mail.smtp:
        visit.refuse(404, "not_found")
    subject = visit.t("admin_settings.mail_subject", name=settings.web.name)
    text = visit.t("admin_settings.mail_text", url=settings.server.public_url)
    message = letter(settings.web.name, settings.mail.sender, email, subject, text)
    try:
        await off_loop("mail test", lambda: send_message(settings.mail, message))
    except DeliveryError as error:
        return _page(
            visit, 502, problem=f"{settings.mail.smtp}: {visit.words(str(error))}", of_test=True
        )
    await note(visit, "mail.test", settings.mail.smtp, None, {"sent": True})
    return _page(visit, sent=settings.mail.smtp)


def sections(settings: config.Settings) -> dict[str, list[tuple[str, str]]]:
    """Every setting as text, by section; secrets are masked. Of vendors, those in use."""
    tree = config.effective(settings)
    used = {config.vendor_of(settings, upstream).name for upstream in settings.upstream}
    tree["vendor"] = [
        {**vendor, "rules": len(vendor["rules"])}
        for vendor in tree["vendor"]
        if vendor["name"] in used
    ]
    return {name: list(_dotted(value, name)) for name, value in tree.items()}


def _dotted(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every leaf of a tree with its path: `upstream[0].name`."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _dotted(inner, f"{path}.{name}")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _dotted(inner, f"{path}[{number}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
