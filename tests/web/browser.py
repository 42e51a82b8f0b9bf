"""Chromium for tests: pages that record every complaint, and screenshots to look at.

The tests of a process share one browser, so they run on the loop of the session, and so do the
relays that they open: a module of theirs has `stack` of this one, and `on_its_loop` fixtures.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.fakes.live import Live

CHROMIUM = Path("/usr/bin/chromium")
ARTEFACTS = Path(__file__).parents[2] / "artefacts" / "pages"  # RELAY_SCREENSHOTS=1 fills it
BROWSER = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
]
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
SIZES: dict[str, dict[str, Any]] = {"desk": {}, "phone": {"viewport": PHONE}}

# A fixture of these tests that opens something.
on_its_loop = functools.partial(pytest_asyncio.fixture, loop_scope="session")


def looks(quick: tuple[str, str, str]) -> list[Any]:
    """Parameters of light and dark, desk and phone, and both languages: `make test` runs the
    `quick` one, `make thorough` the others."""
    every = itertools.product(("light", "dark"), SIZES, ("en-GB", "zh-CN"))
    return [pytest.param(*one, marks=() if one == quick else pytest.mark.thorough) for one in every]


@on_its_loop()
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    """That of `tests/conftest.py`, on the browser's loop."""
    async with contextlib.AsyncExitStack() as opened:
        yield opened


class Window:
    """One browser context at a relay. `complaints` are errors of its console and its scripts."""

    def __init__(self, live: Live, context: BrowserContext) -> None:
        self.live = live
        self.context = context
        self.complaints: list[str] = []
        self.octets: dict[str, int] = {}  # by the page's URL: all that it took
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("dialog", self._on_dialog)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.page and message.page.url}: {message.text}")

    async def _on_dialog(self, dialog: Any) -> None:
        if dialog.type != "confirm":
            self.complaints.append(f"a script ran: {dialog.type} {dialog.message}")
        await dialog.accept()

    async def open(self, path: str) -> Page:
        """A new page."""
        page = await self.context.new_page()
        await page.goto(self.live.url + path)
        return page

    async def sign_up(self, email: str = "grace@example.com") -> Page:
        """Fill in the form as a person does."""
        page = await self.open("/signup")
        await page.fill("[name=email]", email)
        await page.fill("[name=password]", "correct horse 42 battery")
        await page.click("main button")
        await page.wait_for_url("**/dashboard/keys?done=signed_up")
        return page


@on_its_loop(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def window(browser: Browser, live: Live, **options: Any) -> AsyncIterator[Window]:
    """A browser's window; Playwright's `options` say how large, how dark, in which language."""
    options = {"viewport": DESK, "locale": "en-GB", "timezone_id": "Europe/Berlin", **options}
    context = await browser.new_context(**options)
    context.set_default_timeout(10_000)
    try:
        yield Window(live, context)
    finally:
        await context.close()


async def faults_of(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    results = await Axe().run(page)
    return [
        f"{page.url}: {one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in results.response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


async def overflow_of(page: Page) -> int:
    """How much wider a page is than its window, in pixels."""
    width: int = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width


async def keep(page: Page, name: str) -> None:
    """Write a screenshot of a complete page, for somebody to look at, where that is asked for."""
    if not os.environ.get("RELAY_SCREENSHOTS"):
        return
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
