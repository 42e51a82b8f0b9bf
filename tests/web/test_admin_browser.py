"""The administrators' pages in Chromium: every page in each look, and each flow by its buttons."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from relay.reload import Reloader
from tests.fakes.live import Live, RelayWith
from tests.web.administration import ADMIN, MODELS, PLANS, add_people
from tests.web.browser import (
    BROWSER,
    PHONE,
    Window,
    chromium,
    faults_of,
    keep,
    overflow_of,
    window,
)
from tests.web.seed import seed_usage
from tests.web.visitor import WEB, make_admin

pytestmark = BROWSER

PAGES = {
    "overview": "/admin",
    "people": "/admin/people",
    "people-by-cost": "/admin/people?order=cost",
    "upstreams": "/admin/upstreams",
    "models": "/admin/models",
    "simulator": "/admin/simulator?model=sonnet&who=person00001@example.org",
    "live": "/admin/live",
    "requests": "/admin/failures",
    "backups": "/admin/backups",
    "settings": "/admin/settings",
}


@pytest.fixture
async def live(relay_with: RelayWith, tmp_path: Path) -> Live:
    live = await relay_with(
        web=WEB, plan=PLANS, model=MODELS, backup={"path": str(tmp_path / "backups")}
    )
    people = await add_people(live, 130)
    await seed_usage(live.app.database, people, 3000)
    live.app.reloading = Reloader(live.app, str(tmp_path / "relay.toml"))
    return live


async def administrator(person: Window) -> Page:
    page = await person.sign_up(ADMIN)
    await make_admin(person.live)
    await page.goto(person.live.url + "/admin")
    return page


@pytest.mark.parametrize("look", ["light", "dark"])
async def test_every_page_is_fit_to_be_seen(live: Live, look: str) -> None:
    """On desk and phone, in both languages: accessible, within its window, no complaints."""
    pages = {**PAGES, "person": "/admin/people/usr_0000000000000001"}
    async with chromium() as browser, window(browser, live) as person:
        await administrator(person)
        state = await person.context.storage_state()
        sizes: dict[str, dict[str, Any]] = {"desk": {}, "phone": {"viewport": PHONE}}
        for size, options in sizes.items():
            for language in ("en-GB", "zh-CN"):
                options |= {"color_scheme": look, "locale": language}
                async with window(browser, live, storage_state=state, **options) as reader:
                    for title, path in pages.items():
                        page = await reader.open(path)
                        await expect(page.locator("h1")).to_be_visible()
                        assert await overflow_of(page) <= 0, f"{path} is too wide: {size}"
                        assert await faults_of(page) == []
                        await keep(page, f"admin-{title}-{look}-{size}-{language[:2]}")
                        await page.close()
                    assert reader.complaints == []
