"""Buying credit or a plan: what is for sale, leaving for Checkout, coming back, invoices; and the
address where Stripe says what became of it. Without `payments.stripe_key` there is none of it."""

import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from relay.net.off_loop import BusyError
from relay.payments.amounts import money
from relay.payments.checkout import CheckoutError
from relay.payments.desk import Arrival, NoOfferError, PlanError, Wanted
from relay.payments.events import EventError
from relay.payments.invoices import COLUMNS, csv_values
from relay.payments.signature import SignatureError
from relay.store.database import StoreError
from relay.store.payments import Payment, PaymentFilter, find_payment, payments
from relay.web.exports import all_payments, csv_line, download
from relay.web.pages import Pages
from relay.web.security import POLICY, page_policy
from relay.web.visit import Visit

_PATH: Final = "/dashboard/payments"
_ROWS: Final = 50
_NUMBER_DIGITS: Final = 18
_WARNING_INTERVAL_SECONDS: Final = 60.0
# How often a page that waits looks again, by the age of its payment, in seconds. A Checkout Session
# is over after a day, so that a page which waits for longer has nothing to wait for.
_LOOKS: Final = ((120, 2), (600, 5), (3_600, 20), (90_000, 60))
_LATE_SECONDS: Final = 600

_log = logging.getLogger("relay.web")


class RefusedEvents:
    """Logs the events that are refused: one a minute of each status, for anybody may send some."""

    def __init__(self) -> None:
        self._logged: dict[int, float] = {}  # moments, by status
        self._unlogged = 0

    def log(self, status: int, words: str, now: float) -> None:
        """Log a refused event, or count it for the next line."""
        if now - self._logged.get(status, float("-inf")) < _WARNING_INTERVAL_SECONDS:
            self._unlogged += 1
            return
        self._logged[status] = now
        _log.warning(
            "an event at /payments/stripe was refused: %s (%d others since the last line)",
            words,
            self._unlogged,
        )
        self._unlogged = 0


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get(_PATH, show)
    pages.post(_PATH, buy)
    pages.get("/dashboard/payments.csv", export)
    pages.get(_PATH + "/cancelled", cancelled)
    pages.get(_PATH + "/{id}", show_one)
    pages.get(_PATH + "/{id}/invoice.pdf", invoice)
    pages.receive("/payments/stripe", receive)


def require(visit: Visit) -> None:
    """Raises PageError: nothing can be bought here."""
    if not visit.settings.payments.enabled:
        visit.refuse(404, "not_found")


# --- buying ---


async def show(visit: Visit) -> Response:
    """The offers, and the purchases so far."""
    require(visit)
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    which = PaymentFilter(visit.user.id, state="own")
    before = page_start(visit)
    page = await payments(visit.database, which, _ROWS, before)
    desk, settings = visit.site.desk, visit.settings
    purchases = [desk.purchase(settings, one.id) for one in settings.payments.offer]
    outlooks = [desk.outlook(one, visit.user, visit.now) for one in purchases]
    answer = visit.render(
        "payments.html",
        status,
        offers=list(zip(settings.payments.offer, outlooks, strict=True)),
        currency=visit.settings.payments.currency,
        plans={plan.id: plan.name or plan.id for plan in visit.settings.plan},
        page=page,
        money=money,
        problem=problem,
        is_first=before == 2**62,
    )
    # Browsers hold what the answer to a form leads to against the policy of its page.
    answer.headers[POLICY] = page_policy(visit.settings.payments.checkout.rstrip("/"))
    return answer


def page_start(visit: Visit) -> int:
    """Where a page of a list begins, by its query."""
    text = visit.request.query_params.get("before", "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS
    return int(text) if is_number else 2**62


async def buy(visit: Visit) -> Response:
    """Send a person to Checkout, to pay for an offer."""
    require(visit)
    seconds = visit.site.purchases.wait(visit.user.id, visit.now)
    if seconds:
        visit.refuse(429, "too_often", seconds=seconds, retry_after=seconds)
    page = visit.settings.server.public_url.rstrip("/") + _PATH
    wanted = Wanted(
        visit.form.get("offer", ""),
        visit.form.get("agreed", ""),
        page,
        f"{page}/cancelled",
        visit.language,
    )
    try:
        url = await visit.site.desk.buy(visit.acting, visit.settings, visit.user, wanted, visit.now)
    except NoOfferError:
        return await _page(visit, 422, visit.t("payments.no_offer"))
    except PlanError:
        return await _page(
            visit,
            422,
            visit.t("payments.other_plan") if wanted.agreed else visit.t("payments.not_agreed"),
        )
    except BusyError:
        visit.refuse(503, "busy", retry_after=2)
    except CheckoutError as error:
        _log.warning("nobody can pay: Stripe made no Checkout Session: %s", error)
        return await _page(visit, 502, visit.t("payments.no_checkout"))
    return Response(status_code=303, headers={"location": url})


async def cancelled(visit: Visit) -> Response:
    """Somebody comes back from Checkout without having paid."""
    require(visit)
    return visit.redirect(_PATH, done="payment_cancelled")


async def _own(visit: Visit) -> Payment:
    """The payment that a path names, of the account that is logged in."""
    require(visit)
    payment = await find_payment(visit.database, visit.request.path_params["id"])
    if payment is None or payment.user_id != visit.user.id:
        visit.refuse(404, "not_found")
    return payment


async def show_one(visit: Visit) -> Response:
    """The state of a payment, for somebody who comes back from Checkout."""
    payment = await _own(visit)
    age = visit.now - payment.created_at
    return visit.render(
        "parts/payment.html" if visit.is_part else "payment.html",
        payment=payment,
        price=money(payment.price, payment.currency),
        look_again=look_again(age) if payment.state == "open" else 0,
        is_late=payment.state == "open" and age >= _LATE_SECONDS,
    )


def look_again(age: float) -> int:
    """The seconds until a page looks again what became of an open payment; 0: it does not."""
    return next((seconds for until, seconds in _LOOKS if age < until), 0)


# --- what was bought ---


async def invoice(visit: Visit) -> Response:
    """An invoice as PDF."""
    return await pdf(visit, await _own(visit))


async def pdf(visit: Visit, payment: Payment) -> Response:
    """The invoice of a payment, if it is paid."""
    if not payment.invoice:
        visit.refuse(404, "not_found")
    try:
        octets = await visit.site.desk.pdf(payment)
    except BusyError:
        visit.refuse(503, "busy", retry_after=2)
    name = f'attachment; filename="invoice-{payment.invoice}.pdf"'
    return Response(octets, media_type="application/pdf", headers={"content-disposition": name})


async def export(visit: Visit) -> Response:
    """All payments of a person as CSV."""
    require(visit)
    return export_of(visit, PaymentFilter(visit.user.id, state="own"))


def export_of(visit: Visit, which: PaymentFilter) -> Response:
    """Payments as CSV, without a cap."""

    async def pieces() -> AsyncIterator[str]:
        yield csv_line(COLUMNS)
        async for rows in all_payments(visit, which):
            yield "".join(csv_line(csv_values(row)) for row in rows)

    return download(pieces(), "text/csv; charset=utf-8", "payments", "csv")


# --- what Stripe says ---


async def receive(visit: Visit) -> Response:
    """Take an event in. Whatever is not 200 makes Stripe send it again, for three days."""
    require(visit)
    body = await visit.request.body()
    arrival = Arrival(body, visit.request.headers.get("stripe-signature", ""), visit.now)
    try:
        outcome = await visit.site.desk.receive(visit.acting_as("stripe"), visit.settings, arrival)
    except (SignatureError, EventError) as error:
        return _refused(visit, 400, f"{error}")
    except ValueError as error:
        return _refused(visit, 500, f"payments.webhook_secret: {error}")
    except StoreError as error:
        return _refused(visit, 503, f"{error}", {"retry-after": "60"})
    if outcome == "noted":
        _log.warning("an event of a payment needs somebody: see /admin/payments")
    return JSONResponse({"received": outcome})


def _refused(
    visit: Visit, status: int, words: str, headers: dict[str, Any] | None = None
) -> Response:
    visit.site.refused_events.log(status, words, visit.now)
    shown = words if status == 400 else "The relay's log says why."
    return JSONResponse({"error": shown}, status, headers)
