"""The balance of an account: its statement, and codes that are redeemed for credit or a plan.

Decides how often somebody may try a code, and the words for what it brought. Must not know which
codes there are, or what they bring.
"""

from typing import Any, Final

from starlette.responses import Response

from relay.accounts.codes import code_digest
from relay.accounts.throttle import Throttle, address_name
from relay.store import balance, codes
from relay.store.codes import CodeError, Redemption
from relay.store.periods import NewPeriod, agreement, outlook, present
from relay.web.overview_pages import shown_balance
from relay.web.pages import Pages
from relay.web.visit import Visit

_PAGE: Final = "/dashboard/balance"
_ROWS: Final = 50
_MAX_NUMBER: Final = 2**62
_PERIOD_SECONDS: Final = 600


class CodeTries:
    """How often codes may be tried: by an account, and from an address. `Site` makes it once."""

    def __init__(self) -> None:
        self._accounts = Throttle(10, _PERIOD_SECONDS)
        self._addresses = Throttle(30, _PERIOD_SECONDS)

    def wait(self, visit: Visit) -> int:
        """Count a try; the seconds to wait if there have been too many, otherwise 0."""
        of_account = self._accounts.wait(visit.user.id, visit.now)
        return of_account or self._addresses.wait(address_name(visit.address), visit.now)

    def forgive(self, visit: Visit) -> None:
        """The code was right: the account's tries do not count. Those of the address do."""
        self._accounts.forgive(visit.user.id)


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get(_PAGE, show)
    pages.post("/dashboard/balance/redeem", redeem)


async def show(visit: Visit) -> Response:
    """The form for a code, and a page of the statement."""
    return await _page(visit)


async def _page(
    visit: Visit,
    status: int = 200,
    problem: str = "",
    code: str = "",
    plan: NewPeriod | None = None,
) -> Response:
    """See `show`. `plan`: that a code would bring, for which somebody has yet to agree."""
    text = visit.request.query_params.get("before", "")
    before = min(int(text), _MAX_NUMBER) if text.isdecimal() and len(text) < 20 else _MAX_NUMBER
    rows = await balance.statement(visit.database, visit.user.id, _ROWS + 1, before)
    values: dict[str, Any] = {
        "balance": await shown_balance(visit, visit.user),
        "entries": rows[:_ROWS],
        "before": rows[_ROWS - 1].id if len(rows) > _ROWS else None,
        "is_first": before == _MAX_NUMBER,
        "plan": "" if plan is None else plan.plan,
        "outlook": None if plan is None else outlook(visit.user, plan, visit.now),
        "plans": {one.id: one.name or one.id for one in visit.settings.plan},
    }
    return visit.render("balance.html", status, problem=problem, code=code, **values)


async def redeem(visit: Visit) -> Response:
    """Redeem a code for the account."""
    code = visit.form.get("code", "").strip()[:100]
    if not code:
        return await _page(visit, 422, visit.t("redeem.unknown"))
    tries = visit.site.code_tries
    seconds = tries.wait(visit)
    if seconds:
        answer = await _page(visit, 429, visit.t("login.too_often", seconds=seconds), code)
        answer.headers["retry-after"] = str(seconds)
        return answer
    has = present(visit.user, visit.now)
    agreed = has if visit.form.get("agreed") == agreement(has) else None
    try:
        done = await codes.redeem(visit.acting, code_digest(code), visit.user, visit.now, agreed)
    except CodeError as error:
        plan = None
        if error.reason == "other_plan" and error.code is not None:
            plan = error.code.period
            tries.forgive(visit)
        return await _page(visit, 422, visit.t(f"redeem.{error.reason}"), code, plan)
    tries.forgive(visit)
    await visit.parts.apply_keys()
    return _redeemed(visit, done)


def _redeemed(visit: Visit, done: Redemption) -> Response:
    if done.plan_until is None:
        return visit.redirect(_PAGE, done="code_credit")
    if done.extended:
        return visit.redirect(_PAGE, done="code_extended")
    return visit.redirect(_PAGE, done="code_plan")
