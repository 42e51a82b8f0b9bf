"""The administrators' pages in Chromium: every page in each look, and each flow by its buttons."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from relay.reload import Reloader
from tests.fakes.live import Live, RelayWith
from tests.web.administration import ADMIN, MODELS, PLANS, add_people
from tests.web.browser import (
    BROWSER,
    PHONE,
    Window,
    faults_of,
    keep,
    on_its_loop,
    overflow_of,
    stack,
    window,
)
from tests.web.seed import seed_usage
from tests.web.visitor import WEB, make_admin

__all__ = ["stack"]

pytestmark = BROWSER

PAGES = {
    "overview": "/admin",
    "people": "/admin/people",
    "people-by-cost": "/admin/people?order=cost",
    "upstreams": "/admin/upstreams",
    "upstream-transfer": "/admin/upstreams/import",
    "models": "/admin/models",
    "simulator": "/admin/simulator?model=sonnet&who=person00001@example.org",
    "live": "/admin/live",
    "requests": "/admin/failures",
    "backups": "/admin/backups",
    "audit": "/admin/audit",
    "codes": "/admin/codes",
    "announcements": "/admin/announcements",
    "settings": "/admin/settings",
}


@on_its_loop()
async def live(relay_with: RelayWith, tmp_path: Path) -> Live:
    live = await relay_with(
        web=WEB, plan=PLANS, model=MODELS, backup={"path": str(tmp_path / "backups")}
    )
    people = await add_people(live, 130)
    await seed_usage(live.app.database, people, 3000)
    (tmp_path / "relay.toml").write_text("")
    live.app.reloading = Reloader(live.app, str(tmp_path / "relay.toml"))
    return live


async def administrator(person: Window) -> Page:
    page = await person.sign_up(ADMIN)
    await make_admin(person.live)
    await page.goto(person.live.url + "/admin")
    return page


@pytest.mark.long
@pytest.mark.parametrize("look", ["light", "dark"])
async def test_every_page_is_fit_to_be_seen(browser: Browser, live: Live, look: str) -> None:
    """On desk and phone, in both languages: accessible, within its window, no complaints."""
    pages = {**PAGES, "person": "/admin/people/usr_0000000000000001"}
    async with window(browser, live) as person:
        await administrator(person)
        state = await person.context.storage_state()
        sizes: dict[str, dict[str, Any]] = {"desk": {}, "phone": {"viewport": PHONE}}
        for size, options in sizes.items():
            for language in ("en-GB", "zh-CN"):
                options |= {"color_scheme": look, "locale": language}
                async with window(browser, live, storage_state=state, **options) as reader:
                    page = await reader.context.new_page()
                    for title, path in pages.items():
                        await page.goto(live.url + path)
                        await expect(page.locator("h1")).to_be_visible()
                        assert await overflow_of(page) <= 0, f"{path} is too wide: {size}"
                        assert await faults_of(page) == []
                        await keep(page, f"admin-{title}-{look}-{size}-{language[:2]}")
                    assert reader.complaints == []


async def test_the_flows_of_an_administrator(browser: Browser, live: Live) -> None:
    """Find somebody on a phone, suspend, resume, credit, see their pages, and be oneself again."""
    async with window(browser, live, viewport=PHONE) as person:
        page = await administrator(person)
        await page.click(".subnav >> text=People")
        await page.fill("[name=q]", "person00007")
        await page.press("[name=q]", "Enter")
        await page.click("text=person00007@example.org")
        await page.fill("[name=reason]", "a shared key")
        await page.click("text=Suspend")
        await expect(page.locator("main")).to_contain_text("a shared key")
        await page.click("text=Resume")
        await page.fill("form[action$=credit] [name=amount]", "12.50")
        await page.click("form[action$=credit] button")
        await expect(page.locator("main")).to_contain_text("$12.50")
        await page.click("text=See their pages as they do")
        await expect(page.locator(".banner")).to_contain_text("person00007@example.org")
        await page.click("text=Be yourself again")
        await expect(page.locator("h1")).to_have_text("person00007@example.org")
        await page.goto(live.url + "/admin/audit")
        for action in ("user.log_in_as", "balance.credit", "user.resume", "user.suspend"):
            await expect(page.locator(f"text={action}").first).to_be_visible()
        assert person.complaints == []


async def test_an_upstream_is_seen_to_change(browser: Browser, live: Live) -> None:
    """Pause it in one window, and another one shows it without a reload."""
    async with window(browser, live) as person:
        page = await administrator(person)
        other = await person.open("/admin/upstreams")
        await page.click(".subnav >> text=Upstreams")
        await page.click("text=Pause")
        await expect(page.locator(".upstream .state")).to_have_text("Paused")
        await other.bring_to_front()
        await expect(other.locator(".upstream .state")).to_have_text("Paused")
        await page.bring_to_front()
        await page.click("text=Resume")
        await page.click("text=Test now")
        await expect(page.locator(".heading .state")).to_contain_text("Works 200")
        assert person.complaints == []
