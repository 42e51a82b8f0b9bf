"""Buying in Chromium: to the payment service and back, and each page in each look."""

import time

import pytest
from playwright.async_api import Browser, expect

from relay.store.payments import PaymentFilter, payments
from tests.fakes.live import Live, RelayWith
from tests.payments.conftest import open_shop
from tests.payments.payment_service import Service
from tests.payments.recorded import event
from tests.payments.test_pages import PAGE, send
from tests.web.browser import (
    BROWSER,
    SIZES,
    faults_of,
    keep,
    looks,
    on_its_loop,
    overflow_of,
    stack,
    window,
)
from tests.web.visitor import make_admin

__all__ = ["stack"]

pytestmark = BROWSER


@on_its_loop()
async def shop(relay_with: RelayWith, service: Service) -> Live:
    return await open_shop(relay_with, service)


async def test_a_person_buys_credit(browser: Browser, shop: Live, service: Service) -> None:
    """There by a form, back by a link; nothing of it is against the page's policy."""
    async with window(browser, shop) as person:
        page = await person.sign_up()
        await page.goto(shop.url + PAGE)
        await page.click("main form.offer >> nth=0 >> button")
        await page.wait_for_url(f"{service.url}/c/pay/**")
        public, own = shop.settings.server.public_url, shop.url
        for link in ("cancel", "success"):
            address = await page.get_attribute(f"#{link}", "href")
            assert address is not None
            back = await person.open(address.replace(public, ""))
            assert back.url.startswith(own)
            await expect(back.locator("main")).to_contain_text(
                {"cancel": "Nothing was paid", "success": "Waiting for Stripe"}[link]
            )
        [payment] = (await payments(shop.app.database, PaymentFilter())).rows
        await send(shop, event("session_paid", payment))
        await expect(back.locator("h1")).to_have_text("Thank you")  # it looks by itself
        year = time.gmtime().tm_year
        async with back.expect_download() as download:
            await back.click("dd a")
        assert (await download.value).suggested_filename == f"invoice-{year}-0001.pdf"
        assert person.complaints == []


@pytest.mark.parametrize(("look", "size", "language"), looks(("dark", "phone", "zh-CN")))
async def test_the_pages_are_fit_to_be_seen(
    browser: Browser, shop: Live, look: str, size: str, language: str
) -> None:
    options = {**SIZES[size], "color_scheme": look, "locale": language}
    async with window(browser, shop, **options) as person:
        page = await person.sign_up()
        name = f"{look}-{size}-{language[:2]}"
        await page.goto(shop.url + PAGE)
        for number, events in enumerate(
            (["session_paid"], ["session_paid", "charge_refunded_part"], ["session_unpaid"],
             ["session_paid", "dispute_created"], [])
        ):  # fmt: skip
            await page.goto(shop.url + PAGE)
            await page.click(f"main form.offer >> nth={number % 3} >> button")
            await page.wait_for_url("**/c/pay/**")
            payment = (await payments(shop.app.database, PaymentFilter(), 1)).rows[0]
            for one in events:
                await send(shop, event(one, payment))
        await make_admin(shop)
        pages = {"payments": PAGE, "payment": f"{PAGE}/{payment.id}", "admin": "/admin/payments"}
        for key, path in pages.items():
            await page.goto(shop.url + path)
            await keep(page, f"payments-{key}-{name}")
            assert await faults_of(page) == []
            assert await overflow_of(page) == 0, path
        assert person.complaints == []
