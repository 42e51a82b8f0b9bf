"""The front page, the status and the chat in Chromium: each look, weight, first paint, streams."""

import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, expect

from relay.store.answers import DAY
from relay.web.manual.usage_script import USAGE_SCRIPT
from relay.web.status.board import DAYS
from tests.fakes.live import Live, RelayWith
from tests.web.browser import (
    BROWSER,
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
from tests.web.test_browser import MODELS, MOST_OCTETS, PLAN, look_at, weight_of, without_cache
from tests.web.visitor import WEB

__all__ = ["stack"]

pytestmark = BROWSER

Answerer = Callable[[Route], Awaitable[None]]

PUBLIC = {"front": "/", "status": "/status"}
PAINT = """new Promise((found) => new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
        if (entry.name === "first-contentful-paint") found(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""
MOST_MS = 200
PAINTED = {"document", "stylesheet", "script", "font", "image"}  # needed for the first paint
FEW = {**PLAN, "limits": [{"requests": 3, "per": "5h"}, {"tokens": 2_000_000, "per": "1m"}]}


@on_its_loop()
async def live(relay_with: RelayWith) -> Live:
    live = await relay_with(web=WEB, plan=[PLAN, FEW | {"id": "few"}], model=MODELS)
    chance = random.Random(5)
    today = int(time.time()) // DAY * DAY
    rows = [
        (today - ago * DAY, model["id"], within, chance.randrange(1, 90))
        for model in MODELS
        for ago in range(DAYS - 12)
        for within in (0, 400, 550, 800, 1_500, 2_500)
        if within or chance.random() < 0.2
    ]
    await live.app.database.write(
        lambda connection: connection.executemany(
            "INSERT INTO answer_day VALUES (?, ?, ?, ?)", rows
        )
    )
    return live


async def with_key(person: Window) -> Page:
    """Sign up, make a key, and take it along to the chat."""
    page = await person.sign_up()
    await page.fill("main form [name=name]", "Laptop")
    await page.click(".filters button")
    await page.click("[data-take-key]")
    await page.wait_for_url("**/dashboard/chat")
    await expect(page.locator("#key-hint")).to_contain_text("sk-llmapi-")
    return page


async def say(page: Page, words: str) -> None:
    await page.fill("#words", words)
    await page.press("#words", "Enter")


@pytest.mark.parametrize(("look", "size", "language"), looks(("light", "desk", "en-GB")))
async def test_pages_are_fit_to_be_seen(
    browser: Browser, live: Live, look: str, size: str, language: str
) -> None:
    """Accessible, within their window, without complaints."""
    options = {**SIZES[size], "color_scheme": look, "locale": language}
    name = f"{look}-{size}-{language[:2]}"
    async with window(browser, live, **options) as person:
        await look_at(person, PUBLIC, name)
        page = await with_key(person)
        await say(page, "Tell me something.")
        await expect(page.locator(".said.assistant div")).to_contain_text("simulated upstream")
        await expect(page.locator(".runs")).to_have_count(0)
        assert await overflow_of(page) <= 0
        assert await faults_of(page) == []
        await keep(page, f"chat-{name}")
        assert person.complaints == []


async def test_a_new_key_has_a_code_for_phones(browser: Browser, live: Live) -> None:
    async with window(browser, live, **SIZES["phone"]) as person:
        page = await person.sign_up()
        await page.fill("main form [name=name]", "Phone")
        await page.click(".filters button")
        await expect(page.locator(".qr svg")).to_be_hidden()  # nobody looks over a shoulder
        await page.click(".phone summary")
        await expect(page.locator(".qr svg")).to_be_visible()
        for title in await page.locator(".snippet summary").all():
            await title.click()
        assert await overflow_of(page) <= 0
        assert await faults_of(page) == []
        await keep(page, "key-phone")
        assert person.complaints == []


async def test_pages_are_light(browser: Browser, live: Live) -> None:
    """Everything together, style and scripts included."""
    async with window(browser, live) as person:
        page = await person.context.new_page()
        await without_cache(page)
        for path in PUBLIC.values():
            octets = await weight_of(page, live.url + path)
            assert octets <= MOST_OCTETS, f"{path}: {octets} octets"
        await with_key(person)
        for path in ("/dashboard/chat", "/status"):
            octets = await weight_of(page, live.url + path)
            assert octets <= MOST_OCTETS, f"{path}: {octets} octets"


async def paint_of(
    browser: Browser, live: Live, path: str, state: Any, answer: Answerer | None = None
) -> float:
    """The first paint of a first visit, in milliseconds. `answer` does so in place of the relay."""
    async with window(browser, live, storage_state=state) as reader:
        if answer is not None:
            await reader.context.route("**/*", answer)
        page = await reader.open(path)
        return float(await page.evaluate(PAINT))


async def copy_of(browser: Browser, live: Live, path: str, state: Any) -> Answerer:
    """The page from memory: the browser's own part of a visit."""
    copies: dict[str, dict[str, Any]] = {}

    async def keep_copy(route: Route) -> None:
        if route.request.resource_type not in PAINTED:
            await route.abort()
            return
        answer = await route.fetch()
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name not in ("content-encoding", "content-length")
        }
        body = await answer.body()
        copies[route.request.url] = {"status": answer.status, "headers": headers, "body": body}
        await route.fulfill(**copies[route.request.url])

    async def give_copy(route: Route) -> None:
        if (copy := copies.get(route.request.url)) is None:
            await route.abort()
        else:
            await route.fulfill(**copy)

    await paint_of(browser, live, path, state, keep_copy)
    return give_copy


@pytest.mark.alone
async def test_pages_are_painted_soon(browser: Browser, live: Live) -> None:
    """The best of at most five first visits: on a busy machine the others measure the machine."""
    async with window(browser, live) as person:
        await with_key(person)
        state = await person.context.storage_state()
    for path in ("/", "/status", "/docs", "/dashboard", "/dashboard/chat"):
        of_whom = state if path.startswith("/dashboard") else None
        times = [await paint_of(browser, live, path, of_whom)]
        while min(times) > MOST_MS and len(times) < 5:
            times.append(await paint_of(browser, live, path, of_whom))
        print(f"{path}: {sorted(round(one) for one in times)} ms")
        if min(times) > MOST_MS:  # then the machine is slow, and paints nothing sooner
            copy = await copy_of(browser, live, path, of_whom)
            copies = [await paint_of(browser, live, path, of_whom, copy) for _ in range(5)]
            print(f"{path} from memory: {sorted(round(one) for one in copies)} ms")
            assert min(times) <= 1.5 * min(copies), f"{path}: {times}, from memory: {copies}"


async def test_public_pages_are_complete_without_scripts(browser: Browser, live: Live) -> None:
    async with window(browser, live, java_script_enabled=False) as reader:
        page = await reader.open("/")
        await expect(page.locator("#lines")).to_contain_text("ANTHROPIC_BASE_URL")
        await page.click(".hero .overall")
        await expect(page.locator("h1")).to_have_text("Status")
        await expect(page.locator(".days").first.locator("rect")).to_have_count(DAYS)
        await page.click("text=Days with failures >> nth=0")
        await expect(page.locator(".bad-days").first).to_be_visible()
        await page.click("text=中文")
        await expect(page.locator("h1")).to_have_text("状态")
        await page.click("text=深色")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_the_chat_shows_tokens_cost_and_limits(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        page = await with_key(person)
        limits = page.locator("#limits li")
        await expect(limits.first).to_contain_text("400 of 400 left")
        await page.select_option("#model", "claude-haiku-4-5")
        await say(page, "First <b>question</b>")
        await expect(page.locator(".said.user div")).to_have_text("First <b>question</b>")
        await expect(limits.first).to_contain_text("399 of 400 left")
        await expect(page.locator("#out")).not_to_contain_text("≈")
        tokens = [int(await page.locator(f"#{name}").inner_text()) for name in ("in", "out")]
        assert min(tokens) > 0
        dollars = (tokens[0] * 3 + tokens[1] * 15) / 1e6
        shown = float((await page.locator("#cost").inner_text()).removeprefix("$"))
        assert shown == pytest.approx(dollars, abs=1e-6)
        await expect(page.locator("#first")).to_contain_text("ms")
        await say(page, "Second")
        await expect(page.locator(".said.assistant")).to_have_count(2)
        await expect(limits.first).to_contain_text("398 of 400 left")
        rows = await live.app.database.select("SELECT model, status FROM usage")
        assert rows == [("claude-haiku-4-5", 200)] * 2
        assert person.complaints == []


async def test_an_answer_can_be_stopped(browser: Browser, live: Live) -> None:
    """What has come stays, and the next question goes on from it."""
    async with window(browser, live) as person:
        page = await with_key(person)
        await slow_down(page)
        await say(page, "A long answer")
        await expect(page.locator(".said.assistant div")).not_to_be_empty()
        await expect(page.locator("#out")).to_contain_text("≈")
        await page.click("#stop")
        await expect(page.locator(".said.assistant small")).to_contain_text("Stopped")
        await expect(page.locator("#send")).to_be_visible()
        await page.unroute_all()
        await say(page, "Go on")
        await expect(page.locator(".said.assistant")).to_have_count(2)
        await expect(page.locator(".runs")).to_have_count(0)
        assert person.complaints == []


async def slow_down(page: Page) -> None:
    """Let the simulated upstream write for a minute."""

    async def ask_slowly(route: Any) -> None:
        headers = {**route.request.headers, "x-simulate": "tokens=600;pace=10"}
        await route.continue_(headers=headers)

    await page.route("**/v1/messages", ask_slowly)


WORDS = {
    "status=529": "The model cannot answer at the moment.",
    "status=400": "The model does not take this request.",
    "tokens=30;pace=20;fault=reset;at=9": "The answer was cut.",
}


async def test_errors_are_said_in_words(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        page = await with_key(person)
        scripts = iter(WORDS)

        async def provoke(route: Any) -> None:
            await route.continue_(headers={**route.request.headers, "x-simulate": next(scripts)})

        await page.route("**/v1/messages", provoke)
        for words in WORDS.values():
            await say(page, "Hello")
            await expect(page.locator("#problem")).to_contain_text(words)
            await expect(page.locator("#send")).to_be_visible()


async def test_a_used_up_limit_is_said_with_its_reset(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        page = await person.sign_up()
        await live.app.database.write(
            lambda connection: connection.execute("UPDATE users SET plan = 'few'")
        )
        await live.reload_keys()
        await page.fill("main form [name=name]", "Laptop")
        await page.click(".filters button")
        await page.click("[data-take-key]")
        for number in range(3):
            await say(page, f"Question {number}")
            await expect(page.locator(".said.assistant")).to_have_count(number + 1)
            await expect(page.locator(".runs")).to_have_count(0)
        await say(page, "One more")
        await expect(page.locator("#problem")).to_contain_text("A limit is reached.")
        await expect(page.locator("#problem")).to_contain_text("Try again after")
        await expect(page.locator("#limits li").first).to_contain_text("0 of 3 left")
        await expect(page.locator("#words")).to_have_value("One more")


async def test_a_key_stays_in_its_tab_until_the_log_out(browser: Browser, live: Live) -> None:
    async with window(browser, live) as person:
        page = await with_key(person)
        key = await page.evaluate("sessionStorage.getItem('relay-key')")
        asked: list[str] = []
        person.context.on("request", lambda request: asked.append(request.url))
        await page.reload()
        await expect(page.locator("#key-known")).to_be_visible()
        assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        other = await person.open("/dashboard/chat")
        await expect(other.locator("#key-form")).to_be_visible()
        await other.fill("#own-key", "sk-llmapi-" + "0" * 43)
        await other.click("#key-form button")
        await expect(other.locator("#key-problem")).to_contain_text("not known here")
        assert await other.evaluate("sessionStorage.length") == 0
        await page.click("#forget")
        assert await page.evaluate("sessionStorage.length") == 0
        await page.fill("#own-key", key)
        await page.click("#key-form button")
        await expect(page.locator("#key-known")).to_be_visible()
        await page.click(".out button")
        await page.wait_for_url("**/login*")
        assert await page.evaluate("sessionStorage.length") == 0
        assert not any(key in url for url in asked)


async def test_the_script_for_cc_switch_reads_the_usage_of_a_key(
    browser: Browser, live: Live
) -> None:
    """Run as CC Switch does: its request, then its extractor."""
    script = USAGE_SCRIPT.replace("{{baseUrl}}", live.url).replace("{{apiKey}}", live.key)
    async with window(browser, live) as person:
        page = await person.context.new_page()  # about:blank has no policy

        async def run(answer: Any) -> Any:
            source = f"(() => {{ const s = {script.strip()}; "
            return await page.evaluate(f"{source} return s.extractor({json.dumps(answer)}); }})()")

        request = await page.evaluate(f"({script.strip()}).request")
        async with httpx.AsyncClient() as client:
            answer = await client.request(
                request["method"], request["url"], headers=request["headers"]
            )
        assert answer.status_code == 200, answer.text
        rows = await run(answer.json())
        assert [(row["remaining"], row["total"], row["unit"]) for row in rows] == [
            (400, 400, "requests"), (2000, 2000, "requests"), (120, 120, "requests"),
            (2_000_000, 2_000_000, "tokens"),
        ]  # fmt: skip
        prepaid = {"plan": "pay", "limits": [], "balance_usd": "12.5"}
        assert await run(prepaid) == [{"planName": "pay", "remaining": 12.5, "unit": "USD"}]
        refused = await run({"error": {"message": "no"}})
        assert refused == {"isValid": False, "invalidMessage": "no"}
