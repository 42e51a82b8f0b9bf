"""The audit log: every change, by whom, from where, with what was before and after."""

import re
from typing import Any, Final

from starlette.responses import Response

from relay.store.audit import AuditFilter, entries
from relay.store.people import names_of
from relay.store.users import find_user
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

_ROWS: Final = 50
_MAX_TEXT: Final = 200
_NUMBER: Final = re.compile("[0-9]{1,18}")
ACTIONS: Final = (
    "user", "key", "balance", "payment", "usage", "window", "code", "upstream", "settings",
    "backup", "factor", "passkey", "identity",
)  # fmt: skip
_WORDED: Final = ("factor.", "passkey.", "identity.")  # shown with words


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/admin/audit", show, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """A page of the log under its filters, the latest change first."""
    query = visit.request.query_params
    fields = {
        name: query[name].strip()[:_MAX_TEXT]
        for name in ("actor", "subject", "action")
        if query.get(name, "").strip()
    }
    before = query.get("before", "")
    which = AuditFilter(
        actor=await _id_of(visit, fields.get("actor")),
        subject=await _id_of(visit, fields.get("subject")),
        action=fields.get("action"),
        before=int(before) if _NUMBER.fullmatch(before) else None,
    )
    rows = await entries(visit.database, which, _ROWS)
    ids = {name for row in rows for name in (row.actor, row.subject) if name.startswith("usr_")}
    values: dict[str, Any] = {
        "rows": rows,
        "names": {id: email for id, (email, _) in (await names_of(visit.database, ids)).items()},
        "before": rows[-1].id if len(rows) == _ROWS else None,
        "fields": fields,
        "actions": ACTIONS,
        "word_key": word_key,
    }
    return visit.render("admin/audit.html", **values)


def word_key(action: str) -> str:
    """The key of the words for an action; empty: it is shown as it is."""
    return action.replace(".", "_") if action.startswith(_WORDED) else ""


async def _id_of(visit: Visit, text: str | None) -> str | None:
    """The id of an account by its address; any other text as it is."""
    user = await find_user(visit.database, text) if text and "@" in text else None
    return text if user is None else user.id
