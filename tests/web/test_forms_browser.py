"""Forms on a phone: a refused one shows its error, with and without JavaScript."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from relay.reload import Reloader
from relay.store.keys import KeyRules, set_rules
from tests.fakes.live import Live, RelayWith
from tests.web.administration import MODELS, PERSON, PLANS, add_people
from tests.web.browser import (
    BROWSER,
    PHONE,
    faults_of,
    keep,
    on_its_loop,
    overflow_of,
    stack,
    window,
)
from tests.web.test_front_browser import say, with_key
from tests.web.visitor import WEB, make_admin

__all__ = ["stack"]

pytestmark = BROWSER

# Page, action of the form, what is typed.
FORMS: list[tuple[str, str, dict[str, str]]] = [
    ("person", "period", {"days": "0"}),
    ("person", "bonus", {"amount": "x"}),
    ("person", "credit", {"amount": "x"}),
    ("/admin/codes", "codes", {"number": "0", "amount": "1"}),
    ("/admin/announcements", "announcements", {"title": "x" * 120, "text": "\u200e"}),
    ("/admin/upstreams/import", "import", {"text": "nothing"}),
    ("/dashboard/balance", "redeem", {"code": "none"}),
    ("/account", "password", {"present": "wrong", "password": "correct horse 42 battery"}),
    ("/account", "delete", {"present": "wrong"}),
]


@on_its_loop()
async def live(relay_with: RelayWith, tmp_path: Path) -> Live:
    live = await relay_with(web=WEB, plan=PLANS, model=MODELS)
    (tmp_path / "relay.toml").write_text("")
    live.app.reloading = Reloader(live.app, str(tmp_path / "relay.toml"))
    return live


async def is_in_view(page: Page) -> bool:
    """Whether the element with the focus is an error, and within the window below the bar."""
    found: bool = await page.evaluate(
        """() => {
          const box = document.activeElement.getBoundingClientRect();
          const bar = document.querySelector(".top").getBoundingClientRect().bottom;
          return document.activeElement.matches("[role=alert]")
            && box.top >= bar && box.bottom <= innerHeight;
        }"""
    )
    return found


@pytest.mark.parametrize("script", [True, False])
async def test_a_refused_form_has_its_error_in_view(
    browser: Browser, live: Live, script: bool
) -> None:
    user_id = (await add_people(live, 1))[0][0]
    async with window(browser, live, viewport=PHONE) as person:
        await person.sign_up()
        await make_admin(live)
        state = await person.context.storage_state()
        options: dict[str, Any] = {"viewport": PHONE, "storage_state": state}
        async with window(browser, live, java_script_enabled=script, **options) as reader:
            page = await reader.context.new_page()
            for number, (path, action, fields) in enumerate(FORMS):
                here = PERSON.format(user_id) if path == "person" else path
                await page.goto(live.url + here)
                form = page.locator(f"form[action$='/{action}']").first
                for summary in await page.locator("details > summary").all():
                    if await summary.evaluate("e => e.parentElement.matches('.danger-zone')"):
                        await summary.click()
                for name, text in fields.items():
                    await form.locator(f"[name={name}]").first.fill(text)
                await form.locator("button").first.click()
                await expect(page.locator("[role=alert]:focus")).to_be_visible()
                assert await is_in_view(page), (path, action)
                if script:
                    await keep(page, f"refused-{number}-phone")
                    assert await overflow_of(page) <= 0
                    assert await faults_of(page) == []


async def test_the_chat_refuses_a_longest_answer(browser: Browser, live: Live) -> None:
    async with window(browser, live, viewport=PHONE) as person:
        page = await with_key(person)
        for text in ("0", "-1", "64001", "1.5", ""):
            await page.fill("#max-tokens", text)
            await say(page, f"Hello {text}")
            problem = page.locator("#problem")
            await expect(problem).to_contain_text("a whole number from 1 to 64,000")
            await expect(page.locator("#max-tokens")).to_be_focused()
            await expect(page.locator("#words")).to_have_value(f"Hello {text}")
            await page.evaluate("document.activeElement.blur()")
        await page.fill("#max-tokens", "7")
        await page.press("#words", "Enter")
        await expect(page.locator(".said.assistant div")).not_to_be_empty()
        await expect(page.locator(".runs")).to_have_count(0)
        await expect(page.locator("#problem")).to_be_hidden()
        # It is written once it has ended; nothing says so.
        while not (rows := await live.app.database.select("SELECT 1 FROM usage")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert len(rows) == 1


async def test_errors_of_the_chat_are_in_chinese(browser: Browser, live: Live) -> None:
    async with window(browser, live, locale="zh-CN") as person:
        page = await with_key(person)
        rows = await live.app.database.select("SELECT id FROM keys WHERE name = 'Laptop'")
        await set_rules(live.app.database, rows[0][0], KeyRules(models=("gpt-9",)), 1.0)
        await live.reload_keys()
        await say(page, "你好")
        problem = page.locator("#problem")
        await expect(problem).to_contain_text("此密钥不能使用模型")
        await expect(problem).not_to_contain_text("This key")
        await keep(page, "chat-error-zh")
