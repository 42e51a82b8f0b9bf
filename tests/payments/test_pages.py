"""Buying over real sockets: the page, Checkout, events as they come, invoices, administrators."""

import asyncio
import csv
import io
import re
import sqlite3
import time
from typing import Any

import httpx
import pytest

from relay.store import balance, periods
from relay.store.payments import Payment, PaymentFilter, payments
from relay.store.periods import NewPeriod
from relay.store.users import find_user, set_plan
from tests.fakes.live import Live, RelayWith
from tests.payments.conftest import PAYMENTS, PLANS
from tests.payments.payment_service import Service
from tests.payments.recorded import event, signed
from tests.web.administration import MODELS
from tests.web.visitor import WEB, Visitor, ask, cells, make_admin

PAGE = "/dashboard/payments"
HOOK = "/payments/stripe"


async def buy(buyer: Visitor, offer: str = "credit-20") -> Payment:
    """Leave for Checkout; the payment that was opened."""
    answer = await buyer.post(PAGE, data={**await buyer.form(PAGE), "offer": offer})
    assert answer.status_code == 303, answer.text
    page = await payments(buyer.live.app.database, PaymentFilter(), 1)
    return page.rows[0]


async def send(live: Live, body: bytes, signature: str | None = None) -> httpx.Response:
    """An event, as Stripe sends it."""
    headers = {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "accept": "*/*; q=0.5, application/xml",
        "stripe-signature": signed(body) if signature is None else signature,
    }
    async with httpx.AsyncClient(base_url=live.url) as client:
        return await client.post(HOOK, content=body, headers=headers)


async def balance_of(live: Live, payment: Payment) -> int:
    return await balance.balance_of(live.app.database, payment.user_id)


# --- without a key ---


async def test_without_a_key_there_is_nothing(relay_with: RelayWith) -> None:
    live = await relay_with(web=WEB, plan=PLANS, model=MODELS)
    async with Visitor(live) as visitor:
        await visitor.sign_up()
        await make_admin(live)
        csrf = await visitor.form("/account", "/account/password")
        for path in (
            PAGE, f"{PAGE}.csv", f"{PAGE}/pay_1", f"{PAGE}/pay_1/invoice.pdf", "/admin/payments",
            "/admin/payments.csv", "/admin/payments/pay_1/invoice.pdf",
        ):  # fmt: skip
            assert (await visitor.get(path)).status_code == 404, path
        for path in (PAGE, HOOK, "/admin/payments/notes/evt_1/resolve"):
            assert (await visitor.post(path, data=csrf)).status_code == 404, path
        visitor.headers["accept"] = "*/*"
        assert (await visitor.get(HOOK)).status_code == 404
        assert "payments" not in (await visitor.get("/dashboard")).text


# --- buying ---


async def test_a_person_is_sent_to_pay(shop: Live, buyer: Visitor, service: Service) -> None:
    page = await buyer.get(PAGE)
    assert "20 dollars of credit" in page.text
    assert "20.00 USD" in page.text
    policy = page.headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert f"form-action 'self' {service.url};" in policy[0]
    payment = await buy(buyer)
    [form], [head] = service.forms, service.heads
    assert form["mode"] == "payment"
    assert form["customer_email"] == "grace@example.com"
    assert form["line_items[0][price_data][unit_amount]"] == "2000"
    assert form["line_items[0][price_data][currency]"] == "usd"
    assert form["payment_intent_data[metadata][relay_payment]"] == payment.id
    assert form["metadata[relay_account]"] == payment.user_id
    assert form["metadata[relay_offer]"] == "credit-20"
    assert form["locale"] == "en"
    assert form["adaptive_pricing[enabled]"] == "false"
    public = shop.settings.server.public_url
    assert form["success_url"] == f"{public}{PAGE}/{payment.id}"
    assert form["cancel_url"] == f"{public}{PAGE}/cancelled"
    back = await buyer.get(f"{PAGE}/cancelled", follow_redirects=True)
    assert "Nothing was paid." in back.text
    assert head["idempotency-key"] == payment.id
    assert payment.session == "cs_test_" + payment.id[4:]


async def test_a_price_is_never_the_browsers(shop: Live, buyer: Visitor, service: Service) -> None:
    fields = {**await buyer.form(PAGE), "offer": "credit-20", "price": "1", "credit": "9000"}
    await buyer.post(PAGE, data=fields)
    assert service.forms[0]["line_items[0][price_data][unit_amount]"] == "2000"


async def test_another_plan_is_bought_by_agreement(
    shop: Live, buyer: Visitor, service: Service
) -> None:
    """The page states what becomes of the present plan, and what is sent is checked again."""
    offer = {**await buyer.form(PAGE), "offer": "pro-month"}
    assert "Pro begins at once and runs until" in (await buyer.get(PAGE)).text
    await start_plan(shop, "paid", "free")
    page = (await buyer.get(PAGE)).text
    assert "You have Prepaid until" in page
    found = re.search(r'name="agreed" value="(paid [^"]+)" required', page)
    assert found is not None
    for agreed in ({}, {"agreed": "free None"}):
        refused = await buyer.post(PAGE, data={**offer, **agreed})
        assert refused.status_code == 422
        assert "Nothing was paid. Read what would happen" in refused.text
    assert service.forms == []
    sent = await buyer.post(PAGE, data={**offer, "agreed": found[1]})
    assert sent.status_code == 303
    [payment] = (await payments(shop.app.database, PaymentFilter(), 1)).rows
    await send(shop, event("session_paid", payment))
    assert "until" in (await buyer.get(PAGE)).text
    page = (await buyer.get(PAGE)).text
    assert "You have Pro until" in page
    assert 'name="agreed"' not in page
    await set_plan(shop.app.database, "grace@example.com", "pro")
    page = (await buyer.get(PAGE)).text
    assert "You have Pro already, and without an end." in page
    assert page.count("Go on to pay") == 2
    assert (await buyer.post(PAGE, data=offer)).status_code == 422


async def start_plan(live: Live, plan: str, then: str) -> None:
    database = live.app.database
    user = await find_user(database, "grace@example.com")
    assert user is not None
    await periods.start_now(database, user, NewPeriod(plan, 86_400, then, "test"), time.time())


async def test_what_is_not_for_sale_is_refused(buyer: Visitor, service: Service) -> None:
    for offer in ("", "none", "credit-20\n"):
        answer = await buyer.post(PAGE, data={**await buyer.form(PAGE), "offer": offer})
        assert answer.status_code == 422
        assert "not for sale" in answer.text
    assert service.forms == []


WRONG: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 402, "answer": b"{}"},
    {"status": 302},
    {"answer": b"no json"},
    {"answer": b"[]"},
    {"answer": b'{"id": "cs_1"}'},
    {"leads_to": "https://evil.example/pay"},
    {"leads_to": "javascript:alert(1)"},
    {"leads_to": "http://[pay"},
    {"hangs_up": True},
]


async def test_nobody_is_sent_on_by_a_wrong_answer(buyer: Visitor, service: Service) -> None:
    form = {**await buyer.form(PAGE), "offer": "credit-20"}
    for spoil in WRONG:
        right = {name: getattr(service, name) for name in spoil}
        for name, value in spoil.items():
            setattr(service, name, value)
        answer = await buyer.post(PAGE, data=form)
        assert answer.status_code == 502, spoil
        assert "Nothing was paid" in answer.text
        for name, value in right.items():
            setattr(service, name, value)


async def test_the_key_is_in_no_log(
    relay_with: RelayWith, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    paying = {**PAYMENTS, "api": service.url, "checkout": service.url}
    service.status = 401
    service.answer = b'{"error": {"message": "Invalid API Key provided: sk_test_canary"}}'
    live = await relay_with(web=WEB, plan=PLANS, payments=paying, model=MODELS)
    async with Visitor(live) as buyer:
        await buyer.sign_up()
        answer = await buyer.post(PAGE, data={**await buyer.form(PAGE), "offer": "credit-20"})
    assert "Invalid API Key" in caplog.text
    assert "canary" not in caplog.text + answer.text


async def test_buying_is_throttled(buyer: Visitor) -> None:
    statuses = [(await buyer.submit(PAGE, offer="credit-20")).status_code for _ in range(11)]
    assert statuses == [303] * 10 + [429]


async def test_a_purchase_that_is_sent_twice_is_one(shop: Live, buyer: Visitor) -> None:
    form = {**await buyer.form(PAGE), "offer": "credit-20"}
    for _ in range(2):
        assert (await buyer.post(PAGE, data=form)).status_code == 303
    assert await shop.app.database.select("SELECT count(*) FROM payment") == [(1,)]


async def test_only_its_person_sees_a_payment(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    await send(shop, event("session_paid", payment))
    async with Visitor(shop) as other:
        await other.sign_up("eve@example.com")
        for path in (f"{PAGE}/{payment.id}", f"{PAGE}/{payment.id}/invoice.pdf"):
            assert (await other.get(path)).status_code == 404
        assert payment.id not in (await other.get(f"{PAGE}.csv")).text


# --- what Stripe says ---


async def test_a_payment_pays_requests(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    key = await buyer.new_key()
    await set_plan(shop.app.database, "grace@example.com", "paid")
    await shop.reload_keys()
    assert await ask(shop, key) == [402]
    waiting = await buyer.get(f"{PAGE}/{payment.id}")
    assert "Waiting for Stripe" in waiting.text
    assert "data-waiting" in waiting.text
    answer = await send(shop, event("session_paid", payment))
    assert (answer.status_code, answer.json()) == (200, {"received": "applied"})
    await shop.reload_keys()
    assert await ask(shop, key) == [200]
    done = await buyer.get(f"{PAGE}/{payment.id}")
    assert "Thank you" in done.text
    assert "data-waiting" not in done.text
    rows = await shop.app.database.select("SELECT credited, charged, micro FROM balance")
    [(credited, charged, micro)] = rows
    assert credited == 20_000_000
    assert micro == credited - charged


@pytest.mark.parametrize(
    ("age", "seconds", "is_late"),
    [(0, 2, False), (300, 5, False), (700, 20, True), (7_200, 60, True), (100_000, 0, True)],
)
async def test_a_page_goes_on_looking(
    shop: Live, buyer: Visitor, age: float, seconds: int, is_late: bool
) -> None:
    """Less and less often, and after ten minutes it says what to do."""
    payment = await buy(buyer)
    await shop.app.database.write(
        lambda connection: connection.execute(
            "UPDATE payment SET created_at = created_at - ?", (age,)
        )
    )
    page = (await buyer.get(f"{PAGE}/{payment.id}")).text
    assert (f'data-waiting="{seconds}"' in page) == (seconds > 0)
    assert ("ask the operator" in page) == is_late
    await send(shop, event("session_paid", payment))
    page = (await buyer.get(f"{PAGE}/{payment.id}")).text
    assert "data-waiting" not in page
    assert "ask the operator" not in page


async def test_refused_events_have_few_lines(
    shop: Live, buyer: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    payment = await buy(buyer)
    for _ in range(20):
        assert (await send(shop, event("session_paid", payment), "")).status_code == 400
    lines = [one.getMessage() for one in caplog.records if "was refused" in one.getMessage()]
    assert 1 <= len(lines) <= 2
    assert "has no moment" in lines[0]


async def test_an_event_twice_and_at_once_counts_once(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    body = event("session_paid", payment)
    again = event("session_late_paid", payment)
    answers = await asyncio.gather(*(send(shop, one) for one in [body, again] * 10))
    assert [one.status_code for one in answers] == [200] * 20
    assert await balance_of(shop, payment) == 20_000_000


@pytest.mark.parametrize("order", [("session_paid", "charge_refunded_part"), None])
async def test_a_refund_may_come_first(
    shop: Live, buyer: Visitor, order: tuple[str, str] | None
) -> None:
    payment = await buy(buyer)
    for name in order or ("charge_refunded_part", "session_paid"):
        assert (await send(shop, event(name, payment))).status_code == 200
    assert await balance_of(shop, payment) == 20_000_000 - 20_000_000 * 333 // 2000


async def test_a_wrong_signature_changes_nothing(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    body = event("session_paid", payment)
    for signature, words in (
        ("", "has no moment"),
        (signed(b"{}"), "no signature fits"),
        (signed(body, moment=time.time() - 301), "five minutes"),
        (signed(body, "whsec_other"), "no signature fits"),
    ):
        answer = await send(shop, body, signature)
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    assert await balance_of(shop, payment) == 0


async def test_what_is_signed_but_no_event_is_refused(shop: Live, buyer: Visitor) -> None:
    answer = await send(shop, b"[]")
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["error"]
    assert (await send(shop, event("customer_created"))).json() == {"received": "foreign"}


async def test_a_large_event_is_refused_unread(shop: Live, buyer: Visitor) -> None:
    fits = event("session_paid", description="x" * 100_000)
    assert (await send(shop, fits)).status_code == 200
    answer = await send(shop, event("session_paid", description="x" * 200_000))
    assert answer.status_code == 413


async def test_a_failing_database_has_it_sent_again(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    body = event("session_paid", payment)
    database = shop.app.database

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON statement BEGIN SELECT RAISE(ABORT, 'full'); END"
        )

    await database.write(spoil)
    answer = await send(shop, body)
    assert answer.status_code == 503
    assert "full" not in answer.text
    assert await database.select("SELECT * FROM payment_event") == []
    await database.write(lambda connection: connection.execute("DROP TRIGGER full"))
    assert (await send(shop, body)).json() == {"received": "applied"}
    assert await balance_of(shop, payment) == 20_000_000


async def test_a_secret_that_is_gone_has_it_sent_again(
    relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_canary")
    paying = {**PAYMENTS, "webhook_secret": "env:HOOK_SECRET"}
    live = await relay_with(web=WEB, plan=PLANS, payments=paying, model=MODELS)
    monkeypatch.delenv("HOOK_SECRET")
    assert (await send(live, event("customer_created"))).status_code == 500
    monkeypatch.setenv("HOOK_SECRET", "whsec_canary")
    assert (await send(live, event("customer_created"))).status_code == 200


# --- invoices ---


async def test_a_person_gets_invoices_and_csv(shop: Live, buyer: Visitor) -> None:
    payment = await buy(buyer)
    assert (await buyer.get(f"{PAGE}/{payment.id}/invoice.pdf")).status_code == 404
    await send(shop, event("session_paid", payment))
    year = time.gmtime().tm_year
    page = await buyer.get(PAGE)
    assert f"{year}-0001" in page.text
    assert "Paid" in cells(page.text)[-1]
    pdf = await buyer.get(f"{PAGE}/{payment.id}/invoice.pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert f'filename="invoice-{year}-0001.pdf"' in pdf.headers["content-disposition"]
    assert pdf.content.startswith(b"%PDF-")
    rows = list(csv.DictReader(io.StringIO((await buyer.get(f"{PAGE}.csv")).text)))
    assert [(row["price"], row["tax"], row["state"]) for row in rows] == [("20.00", "3.19", "paid")]
    exported = (await buyer.get("/account/export.json")).json()
    assert [one["id"] for one in exported["payments"]] == [payment.id]


async def test_what_was_only_looked_at_is_not_listed(buyer: Visitor) -> None:
    await buy(buyer)
    assert "You have not bought anything yet" in (await buyer.get(PAGE)).text


# --- administrators ---


@pytest.fixture
async def admin(shop: Live, buyer: Visitor) -> Visitor:
    """The buyer, who is an administrator, with two payments, one of them refunded in part."""
    first = await buy(buyer)
    await send(shop, event("session_paid", first))
    await send(shop, event("charge_refunded_part", first))
    second = await buy(buyer, "pro-month")
    await send(shop, event("session_paid", second))
    await buy(buyer)
    await make_admin(shop)
    return buyer


FOUND = {
    "": 3, "q=GRACE": 3, "q=nobody": 0, "q=pro-month": 1, "state=paid": 2, "state=refunded": 1,
    "state=open": 1, "state=x": 3, "month=2020-01": 0, "q=-0002": 1, "before=1": 0, "before=x": 3,
    "month=2026-13": 3, "q=%25": 0,
}  # fmt: skip


async def test_payments_are_found(admin: Visitor) -> None:
    for query, count in FOUND.items():
        page = await admin.get(f"/admin/payments?{query}")
        assert page.status_code == 200
        assert len(re.findall(r"<td data-head><a", page.text)) == count, query
        if "before" not in query:
            text = (await admin.get(f"/admin/payments.csv?{query}")).text
            assert len(list(csv.DictReader(io.StringIO(text)))) == count, query


async def test_a_month_is_exported(admin: Visitor) -> None:
    month = time.strftime("%Y-%m", time.gmtime())
    text = (await admin.get(f"/admin/payments.csv?month={month}")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["invoice"][-4:] for row in rows] == ["0002", "0001"]
    assert rows[1]["refunded"] == "3.33"
    assert rows[1]["reversed_usd"] == "3.330000"


async def test_an_invoice_of_anybody_is_had(shop: Live, admin: Visitor) -> None:
    page = await payments(shop.app.database, PaymentFilter(state="paid"))
    answer = await admin.get(f"/admin/payments/{page.rows[0].id}/invoice.pdf")
    assert answer.content.startswith(b"%PDF-")
    assert (await admin.get("/admin/payments/pay_none/invoice.pdf")).status_code == 404


async def test_notes_are_shown_until_dealt_with(shop: Live, admin: Visitor) -> None:
    payment = (await payments(shop.app.database, PaymentFilter(state="paid"))).rows[0]
    await send(shop, event("dispute_created", payment))
    page = await admin.get("/admin/payments")
    assert "disputes the payment of 20.00 USD" in page.text
    action = f"/admin/payments/notes/evt_dispute_created_{payment.id}/resolve"
    answer = await admin.submit("/admin/payments", action)
    assert answer.status_code == 303
    assert "disputes the payment" not in (await admin.get("/admin/payments")).text
    again = await admin.post(action, data=await admin.form("/account", "/account/password"))
    assert again.status_code == 404
