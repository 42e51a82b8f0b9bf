"""The thresholds at which a person gets a mail.

Decides how many there may be, and how they are written.
"""

import re
from typing import Final

from starlette.responses import Response

from relay.store import thresholds
from relay.store.thresholds import Choice
from relay.web.formats import dollars
from relay.web.numbers import micro_dollars, plain
from relay.web.pages import Pages
from relay.web.visit import Visit

_MAX_SHARES: Final = 5
_SHARE: Final = re.compile(r"(100|[1-9][0-9]?) ?%?")
_SEPARATOR: Final = re.compile(r"[,;，、\s]+(?=[0-9])")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/account/thresholds", show)
    pages.post("/account/thresholds", choose)


async def show(visit: Visit) -> Response:
    """The thresholds as they are."""
    choice = await thresholds.choice_of(visit.database, visit.user.id)
    return _page(visit, written(choice))


def _page(visit: Visit, fields: dict[str, str], status: int = 200, problem: str = "") -> Response:
    return visit.render(
        "thresholds.html",
        status,
        problem=problem,
        has_mail=bool(visit.settings.mail.smtp),
        most=_MAX_SHARES,
        **fields,
    )


def written(choice: Choice | None) -> dict[str, str]:
    """Thresholds as people write them."""
    if choice is None:
        return {"shares": "", "balance": ""}
    balance = choice.balance_micro
    return {
        "shares": ", ".join(map(str, choice.shares)),
        "balance": "" if balance is None else dollars(balance)[1:].replace(",", ""),
    }


async def choose(visit: Visit) -> Response:
    """Keep other thresholds. Mails are in the language of this page."""
    if not visit.settings.mail.smtp:
        visit.refuse(404, "not_found")
    fields = {name: visit.form.get(name, "")[:60] for name in ("shares", "balance")}
    shares = _shares(fields["shares"])
    balance = micro_dollars(fields["balance"]) if fields["balance"].strip() else None
    if shares is None:
        return _page(visit, fields, 422, visit.t("thresholds.bad_shares", most=_MAX_SHARES))
    if fields["balance"].strip() and (balance is None or balance < 0):
        return _page(visit, fields, 422, visit.t("thresholds.bad_balance"))
    choice = Choice(shares, balance, visit.language)
    await thresholds.choose(visit.acting, visit.user.id, choice, visit.now)
    return visit.redirect("/account", done="thresholds")


def _shares(text: str) -> list[int] | None:
    """Percentages such as `50, 80, 95`, in order; None: one is none, or there are too many."""
    parts = [one.strip() for one in _SEPARATOR.split(plain(text)) if one.strip()]
    found = [_SHARE.fullmatch(one) for one in parts]
    if len(parts) > _MAX_SHARES or not all(found):
        return None
    return sorted({int(one[1]) for one in found if one is not None})
