"""The pages in Chromium: a first day, every page in each look, hostile names, and no scripts."""

import asyncio

import msgspec
import pytest
from playwright.async_api import Browser, Page, Response, Route, expect

from relay import config
from relay.store import latency
from tests.fakes.live import Live, RelayWith
from tests.web.browser import (
    BROWSER,
    PHONE,
    SIZES,
    Window,
    faults_of,
    keep,
    looks,
    on_its_loop,
    overflow_of,
    stack,
    window,
)
from tests.web.seed import seed_usage
from tests.web.visitor import WEB, ask

__all__ = ["stack"]

pytestmark = BROWSER

PLAN = {
    "id": "pro", "name": "Pro", "max_keys": 5, "enforce": "account",
    "limits": [
        {"requests": 400, "per": "5h"}, {"requests": 2000, "per": "7d"},
        {"requests": 120, "per": "1m"}, {"tokens": 2_000_000, "per": "1m"},
    ],
}  # fmt: skip
PRICE = {"input": 3.0, "output": 15.0}
MODELS = [
    {"id": id, "price": PRICE, "display_name": id.title()}
    for id in ("claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5")
]
PAGES = {
    "overview": "/dashboard",
    "keys": "/dashboard/keys",
    "usage": "/dashboard/usage?by=model",
    "usage-by-hour": "/dashboard/usage?range=24h&by=key",
    "requests": "/dashboard/requests?range=7d",
    "balance": "/dashboard/balance",
    "account": "/account",
    "thresholds": "/account/thresholds",
}
PUBLIC = {
    "front": "/",
    "log-in": "/login?next=/account",
    "sign-up": "/signup",
    "forgot": "/forgot",
}
MOST_OCTETS = 100_000


@on_its_loop()
async def live(relay_with: RelayWith) -> Live:
    return await relay_with(web=WEB, plan=[PLAN], model=MODELS)


async def test_a_first_day(browser: Browser, live: Live) -> None:
    """Sign up, make a key, see the first request come in, and revoke the key."""
    async with window(browser, live) as person:
        page = await person.sign_up()
        await page.fill("main form [name=name]", "Laptop")
        await page.click(".filters button")
        key = await page.locator("#key").inner_text()
        await page.click(".once button")
        await expect(page.locator(".once button")).to_have_text("Copied")
        overview = await person.open("/dashboard")
        log = await person.open("/dashboard/requests")
        await expect(overview.locator("text=400")).to_have_count(1 + 1)
        await expect(overview.locator("text=Starts with your next request")).to_have_count(2)
        await expect(overview.locator("[data-live-state]")).to_be_visible()
        await expect(log.locator("text=There are no such requests")).to_be_visible()
        assert await ask(live, key) == [200]
        for shown in (overview, log):  # nobody reloads them
            await expect(shown.locator(".requests .model")).to_have_text("claude-sonnet-4-7")
            await expect(shown.locator(".requests .state")).to_have_text("Complete")
        await expect(overview.locator(".window .big b").first).to_have_text("399")
        await expect(overview.locator(".window .big b").last).to_have_text("1,999")
        await expect(overview.locator(".window-foot").first).to_contain_text("Full again")
        await page.click("text=I have copied it")
        await page.click(".menu summary")
        await page.click("text=Revoke")
        await expect(page.locator(".done")).to_contain_text("revoked")
        assert await ask(live, key) == [401]
        assert person.complaints == []


async def prepared(live: Live, page: Page) -> None:
    """A key with a week of requests, and a few of today."""
    await page.fill("main form [name=name]", "Laptop")
    await page.click(".filters button")
    key = await page.locator("#key").inner_text()
    await keep(page, "key-created")
    assert await faults_of(page) == []
    rows = await live.app.database.select("SELECT user_id, id FROM keys WHERE name = 'Laptop'")
    await seed_usage(live.app.database, [rows[0]], 2000)
    await latency.sum_up(live.app.database)
    # From now on the relay has a mail server: signing up needs none.
    mail = config.MailSettings(smtp="127.0.0.1:9", sender="relay@example.com")
    live.app.settings = msgspec.structs.replace(live.app.settings, mail=mail)
    assert await ask(live, key, 9) == [200] * 9


@pytest.mark.parametrize(("look", "size", "language"), looks(("dark", "phone", "zh-CN")))
async def test_every_page_is_fit_to_be_seen(
    browser: Browser, live: Live, look: str, size: str, language: str
) -> None:
    """On desk and phone, in both languages: accessible, within its window, no complaints."""
    options = {**SIZES[size], "color_scheme": look, "locale": language}
    name = f"{look}-{size}-{language[:2]}"
    async with window(browser, live) as person:
        await prepared(live, await person.sign_up())
        rows = await live.app.database.select("SELECT id FROM keys WHERE name = 'Laptop'")
        pages = {**PAGES, "key": f"/dashboard/keys/{rows[0][0]}"}
        state = await person.context.storage_state()
        async with window(browser, live, storage_state=state, **options) as reader:
            await look_at(reader, pages, name)
            assert reader.complaints == []
        async with window(browser, live, **options) as stranger:
            await look_at(stranger, PUBLIC, name)
            assert stranger.complaints == []


async def look_at(reader: Window, paths: dict[str, str], name: str) -> None:
    page = await reader.context.new_page()
    for title, path in paths.items():
        await page.goto(reader.live.url + path)
        for chart in await page.locator("[data-chart]").all():
            await chart.locator("canvas").wait_for()
        assert await overflow_of(page) <= 0, f"{path} is wider than a window: {name}"
        assert await faults_of(page) == []
        await keep(page, f"{title}-{name}")


async def test_pages_are_light(browser: Browser, live: Live) -> None:
    """All that a first visit takes, style and scripts included (100 KB)."""
    async with window(browser, live) as person:
        await prepared(live, await person.sign_up())
        page = await person.context.new_page()
        await without_cache(page)
        for path in (*PAGES.values(), *PUBLIC.values()):
            octets = await weight_of(page, live.url + path)
            assert octets <= MOST_OCTETS, f"{path}: {octets} octets"


async def without_cache(page: Page) -> None:
    """Let each visit of the page's window be a first one."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})


async def weight_of(page: Page, url: str) -> int:
    """Go there; the octets of all answers that it takes."""
    responses: list[Response] = []

    def collect(response: Response) -> None:
        responses.append(response)

    page.on("response", collect)
    await page.goto(url)
    for chart in await page.locator("[data-chart]").all():
        await chart.locator("canvas").wait_for()
    page.remove_listener("response", collect)
    return sum(
        int(one.headers.get("content-length", 0)) + len(str(one.headers))  # about its head
        for one in responses
    )


async def test_a_hostile_name_runs_nothing(browser: Browser, live: Live) -> None:
    """Names of keys and models as payloads."""
    payloads = [
        "<script>alert(1)</script>", "\"><img src=x onerror=alert(2)>", "javascript:alert(3)",
        "'-alert(4)-'", "{{constructor.constructor('alert(5)')()}}",
        "</title><svg onload=alert(6)>",
    ]  # fmt: skip
    async with window(browser, live) as person:
        page = await person.sign_up()
        for payload in payloads[:5]:
            await page.fill("main form [name=name]", payload)
            await page.click(".filters button")
            await page.locator("#key").wait_for()
            await page.click("text=I have copied it")
        rows = await live.app.database.select("SELECT user_id, id FROM keys WHERE name LIKE '<%'")
        await seed_usage(live.app.database, [rows[0]], 60)
        model = payloads[5]
        await live.app.database.write(
            lambda c: c.execute(
                "UPDATE usage SET model = ?1, outcome = ?1, served = ?2", (model, payloads[1])
            )
        )
        await live.app.database.write(
            lambda c: c.execute("UPDATE OR IGNORE usage_hour SET model = ?", (model,))
        )
        for path in (*PAGES.values(), "/dashboard/usage?by=key", "/dashboard/requests?model=<b>"):
            await page.goto(live.url + path)
        assert person.complaints == []


async def test_a_late_answer_overwrites_no_newer_one(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        await prepared(live, await person.sign_up())
        page = await person.context.new_page()
        held: list[Route] = []

        async def hold_first(route: Route) -> None:
            if held:
                await route.continue_()
            else:
                held.append(route)

        await page.route("**/dashboard/usage/data?metric=requests*", hold_first)
        await page.goto(live.url + "/dashboard/usage")
        chart = page.locator("[data-chart=requests]")
        await page.locator("[data-chart=tokens] canvas").wait_for()  # each loads by itself
        assert await chart.locator("canvas").count() == 0
        await page.emulate_media(color_scheme="dark")  # all are asked for anew
        await chart.locator("canvas").wait_for()
        answer = {"step": 86_400, "times": [], "groups": []}
        for route in held:
            await route.fulfill(json=answer)
        await page.locator("[data-chart=tokens] canvas").wait_for()
        await asyncio.sleep(0.1)
        assert await chart.locator("canvas").count() == 1


async def test_two_clicks_send_a_form_once(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        page = await person.sign_up()
        refused = await page.evaluate("""() => {
            const refused = [];
            addEventListener("submit", (event) => refused.push(event.defaultPrevented));
            const button = document.querySelector(".filters button");
            button.click();
            button.click();
            return refused;
        }""")
        assert refused == [False, True]
        await page.wait_for_selector("#key")
        assert person.complaints == []


async def test_a_phone_shows_the_link_of_the_present_page(browser: Browser, live: Live) -> None:
    async with window(browser, live, viewport=PHONE) as person:
        await person.sign_up()
        for path in ("/dashboard", "/dashboard/chat", "/docs"):
            page = await person.open(path)
            link = page.locator("header nav [aria-current], nav.tabs [aria-current]").first
            await expect(link).to_be_in_viewport(ratio=1)


async def test_pages_work_without_javascript(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        await prepared(live, await person.sign_up())
    async with window(browser, live, java_script_enabled=False) as plain:
        page = await plain.open("/dashboard/keys")
        await page.fill("[name=email]", "grace@example.com")
        await page.fill("[name=password]", "correct horse 42 battery")
        await page.click("main button")
        await page.wait_for_url("**/dashboard/keys")
        await page.fill("main form [name=name]", "Phone")
        await page.click(".filters button")
        assert (await page.locator("#key").inner_text()).startswith("sk-llmapi-")
        await page.goto(live.url + "/dashboard/requests")
        await page.click("text=Older requests")
        assert "before=" in page.url
        await page.goto(live.url + "/dashboard/usage")
        await expect(page.locator("tfoot")).to_contain_text("Sum")
        await page.click("text=中文")
        await expect(page.locator("h1")).to_have_text("用量")
        await page.click("text=深色")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.click("text=退出")
        await page.wait_for_url("**/login?done=logged_out")
