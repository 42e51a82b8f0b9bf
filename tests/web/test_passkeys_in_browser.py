"""Passkeys in Chromium, with its virtual authenticator."""

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, Page

from tests.fakes.live import Live, RelayWith
from tests.web.browser import BROWSER, on_its_loop, stack
from tests.web.visitor import PASSWORD, WEB, Visitor

__all__ = ["stack"]

pytestmark = BROWSER


@on_its_loop()
async def site(relay_with: RelayWith) -> Live:
    """A relay whose address has a name, at the port where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = {"listen": [f"127.0.0.1:{port}"], "public_url": f"http://localhost:{port}"}
    return await relay_with(web=WEB, server=server)


@on_its_loop()
async def page(browser: Browser, site: Live) -> AsyncIterator[Page]:
    """A page of a browser with an authenticator, which has seen no error at the test's end."""
    context = await browser.new_context(base_url=site.settings.server.public_url)
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
    devtools = await context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    options: dict[str, Any] = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    yield page
    await context.close()
    assert errors == []


async def test_a_passkey_is_made_and_opens_the_account(page: Page, site: Live) -> None:
    async with contextlib.aclosing(Visitor(site)) as visitor:
        await visitor.sign_up()
    await page.goto("/login")
    await page.fill("input[name=email]", "grace@example.com")
    await page.fill("input[name=password]", PASSWORD)
    await page.click("form[action='/login'] button")
    await page.wait_for_url("**/dashboard")
    await page.goto("/account/log-in")
    make = page.locator("form[data-passkey=make]")
    await make.locator("input[name=name]").fill("laptop")
    await make.locator("input[name=present]").fill(PASSWORD)
    await make.locator("button").click()
    await page.wait_for_url("**done=passkey_added")
    assert await page.locator(".ways b").all_inner_texts() == ["laptop"]
    await page.click("form[action='/logout'] button")
    await page.wait_for_url("**/login**")
    await page.click("form[data-passkey=use] button")
    await page.wait_for_url("**/dashboard")
    await page.goto("/account")
    assert "grace@example.com" in await page.inner_text("main")
