"""The documentation in Chromium: in each look, its search, its copy buttons, and no scripts."""

import pytest
from playwright.async_api import Browser, expect

from relay.web.manual.contents import PAGES, page_path
from tests.fakes.live import Live, RelayWith
from tests.web.browser import BROWSER, SIZES, looks, on_its_loop, overflow_of, stack, window
from tests.web.test_browser import MODELS, MOST_OCTETS, PLAN, look_at, weight_of
from tests.web.visitor import WEB

__all__ = ["stack"]

pytestmark = BROWSER

SHOWN = ("start", "models", "errors")  # in each look; all pages have the same mark-up


@on_its_loop()
async def live(relay_with: RelayWith) -> Live:
    return await relay_with(web=WEB, plan=[PLAN], model=MODELS)


@pytest.mark.parametrize(("look", "size", "language"), looks(("light", "desk", "en-GB")))
async def test_pages_are_fit_to_be_seen(
    browser: Browser, live: Live, look: str, size: str, language: str
) -> None:
    """Accessible, within their window, without complaints."""
    options = {**SIZES[size], "color_scheme": look, "locale": language}
    async with window(browser, live, **options) as reader:
        pages = {f"docs-{name}": page_path(name) for name in SHOWN}
        await look_at(reader, pages, f"{look}-{size}-{language[:2]}")
        assert reader.complaints == []


async def test_pages_are_light_and_narrow(browser: Browser, live: Live) -> None:
    """The longest takes 100 KB with its style and scripts; none is wider than a phone."""
    async with window(browser, live, **SIZES["phone"]) as reader:
        page = await reader.context.new_page()
        octets = await weight_of(page, live.url + page_path("agents"))
        assert octets <= MOST_OCTETS, f"{octets} octets"
        for name in PAGES:
            await page.goto(live.url + page_path(name), wait_until="commit")
            await page.locator(".docs-source").wait_for()
            assert await overflow_of(page) <= 0, name


@pytest.mark.parametrize(
    ("language", "words", "heading"),
    [("en-GB", "LIMIT reached", "At a limit"), ("zh-CN", "流式", "流式回答")],
)
async def test_the_search_finds_a_section(
    browser: Browser, live: Live, language: str, words: str, heading: str
) -> None:
    async with window(browser, live, locale=language) as reader:
        page = await reader.open("/docs")
        await page.keyboard.press("/")
        await page.keyboard.type(words)
        found = page.locator("#found li a", has_text=heading).first
        await expect(found).to_be_visible()
        await page.keyboard.press("ArrowDown")
        assert await page.evaluate("document.activeElement.closest('#found') !== null")
        await found.click()
        await page.wait_for_url("**/docs/*#*")
        anchor = page.url.partition("#")[2]
        await expect(page.locator(f"[id='{anchor}']")).to_contain_text(heading)
        await page.fill("#search", "<img src=x onerror=alert(1)>")
        await expect(page.locator("#found li")).to_have_count(0)
        await expect(page.locator("#found [role=status]")).not_to_be_empty()
        await page.keyboard.press("Escape")
        await expect(page.locator("#found")).to_be_hidden()
        assert reader.complaints == []


async def test_a_key_is_filled_in_and_stays_on_the_page(browser: Browser, live: Live) -> None:
    async with window(browser, live) as reader:
        await reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = await reader.open("/docs")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        code = page.locator("#code-1")
        await expect(code).to_contain_text("x-api-key: YOUR_KEY'")
        await page.click(".docs-key summary")
        await page.fill("#own-key", "sk-llmapi-<b>mine</b>")
        await expect(code).to_contain_text("x-api-key: sk-llmapi-<b>mine</b>'")
        await page.click("[data-copy='#code-1']")
        await expect(page.locator("[data-copy='#code-1']")).to_have_text("Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == await code.text_content()
        stored = await page.evaluate(
            "[localStorage.length, sessionStorage.length, document.cookie]"
        )
        assert stored == [0, 0, ""]
        assert [url for url in asked if "/static/" not in url] == []  # its icon comes when it likes
        await page.reload()
        await expect(code).to_contain_text("YOUR_KEY")
        assert reader.complaints == []


async def test_pages_are_complete_without_scripts(browser: Browser, live: Live) -> None:
    phone = {**SIZES["phone"], "java_script_enabled": False}
    async with window(browser, live, **phone) as reader:
        page = await reader.open("/docs")
        for unusable in ("#search", "[data-copy]", "#own-key"):
            await expect(page.locator(unusable).first).to_be_hidden()
        await page.click("details summary >> nth=0")
        await page.click(".docs-pages-small >> text=Messages")
        await expect(page.locator("h1")).to_have_text("Messages")
        await page.click("[rel=next]")
        await expect(page.locator("h1")).to_have_text("Chat completions")
        await page.click("text=中文")
        await expect(page.locator(".doc h2").first).to_contain_text("请求")
        await page.click("text=深色")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.url == live.url + "/docs/chat"
