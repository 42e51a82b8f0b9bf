"""The public status: days from real requests, the state now, incidents, and what stays secret."""

import asyncio
import re
import sqlite3
import time
from typing import Any

import httpx
import pytest

from relay.store.answers import DAY
from relay.web.status.board import state_of
from tests.fakes.live import MODELS, Live, RelayWith, upstream_row
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor, ask

SECRET = "main-account-of-grace"
TITLE = re.compile(r"<rect class=\"(\w+)\"[^>]*><title>([^<]+)</title>")


async def add_days(live: Live, model: str, days: dict[int, tuple[int, int]]) -> None:
    """Requests of some days ago: so many that were answered within 800 ms, and that failed."""
    today = int(time.time()) // DAY * DAY
    rows = [
        (today - ago * DAY, model, within, number)
        for ago, counts in days.items()
        for within, number in zip((800, 0), counts, strict=True)
        if number
    ]
    await live.app.database.write(
        lambda connection: connection.executemany(
            "INSERT INTO answer_day VALUES (?, ?, ?, ?)", rows
        )
    )


async def read(live: Live, **fields: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=live.url) as client:
        answer = await client.get("/status.json", params=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "public, max-age=10"
    document: dict[str, Any] = answer.json()
    return document


async def until_summed(live: Live, number: int) -> None:
    """Wait until so many requests are in the sums of their days."""
    statement = "SELECT coalesce(sum(requests), 0) FROM answer_day"
    while (await live.app.database.select(statement))[0][0] < number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_days_come_from_requests(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    key = await visitor.new_key()
    assert await ask(site, key, 3) == [200] * 3
    await until_summed(site, 3)
    document = await read(site)
    assert document["status"] == "up"
    [model] = [one for one in document["models"] if one["id"] == "claude-sonnet-4-7"]
    assert model["name"] == "Claude Sonnet 4.7"
    [today] = model["daily"]
    assert today["date"] == time.strftime("%Y-%m-%d", time.gmtime())
    assert today["availability"] == model["availability"] == 1.0
    assert today["first_byte_median_ms"] <= today["first_byte_p95_ms"]


async def test_a_day_has_its_bar(site: Live, another: NewVisitor) -> None:
    """Without requests it is no good day, and an alias counts for its model."""
    await add_days(site, "claude-sonnet-4-7", {1: (9_999, 1), 3: (98, 2), 89: (1, 1), 95: (1, 1)})
    await add_days(site, "claude-sonnet-4-6", {3: (98, 2)})
    page = (await another(site).get("/status")).text
    sonnet = page[page.index("Claude Sonnet 4.7") :]
    bars = TITLE.findall(sonnet)[:90]
    assert len(bars) == 90
    assert [bars[at][0] for at in (0, 86, 88)] == ["bad", "low", "good"]
    assert {word for at, (word, _) in enumerate(bars) if at not in (0, 86, 88)} == {"none"}
    assert "98.00 % answered, half within 800 ms" in bars[86][1]
    assert bars[88][1].split(": ")[1].startswith("99.99 % answered")
    assert bars[89][1].endswith("no requests")
    assert "Days with failures" in sonnet
    assert "100 %" not in sonnet
    [model] = [one for one in (await read(site))["models"] if one["id"] == "claude-sonnet-4-7"]
    assert len(model["daily"]) == 3
    assert model["availability"] == 0.99941


@pytest.mark.parametrize(
    ("answered", "failed", "usable", "state"),
    [
        (0, 0, True, "up"), (0, 2, True, "up"), (0, 3, True, "down"), (97, 3, True, "up"),
        (57, 3, True, "degraded"), (9, 1, True, "up"), (100, 0, False, "down"),
    ],
)  # fmt: skip
def test_the_latest_requests_give_the_word(
    answered: int, failed: int, usable: bool, state: str
) -> None:
    assert state_of(answered, failed, usable=usable) == state


async def test_a_model_without_an_upstream_is_down(site: Live, visitor: Visitor) -> None:
    for upstream in site.app.upstreams:
        upstream.health.pause()
    page = (await visitor.get("/status")).text
    assert "No model answers now" in page
    assert page.count("Does not answer") == len(MODELS)
    assert (await read(site))["status"] == "down"


async def test_incidents_and_maintenance_are_shown(relay: Live, admin: Visitor) -> None:
    fields = {"kind": "incident", "title": "Slow <b>", "title_zh": "缓慢", "text": "We look."}
    await admin.submit("/admin/announcements", **fields)
    later = {"kind": "maintenance", "text": "New disks", "starts": "2099-01-02T10:00"}
    await admin.submit("/admin/announcements", **later)
    assert (await admin.submit("/admin/announcements", kind="notice", text="Hello")).is_redirect
    document = await read(relay)
    assert document["status"] == "incident"
    assert [one["text"] for one in document["events"]] == ["New disks", "We look."]
    assert (await read(relay, lang="zh"))["events"][1]["title"] == "缓慢"
    page = (await admin.get("/status")).text
    assert "There is an incident" in page
    assert page.count("<b>Slow &lt;b&gt;</b>") == 2  # above every page, too
    shown = (await admin.get("/admin/announcements")).text
    [resolve] = re.findall(r'action="(/admin/announcements/\w+/resolve)"', shown)[1:]
    await admin.post(resolve, data=await admin.form("/admin/announcements", resolve))
    page = (await admin.get("/status")).text
    assert "All models answer as usual" in page
    assert "Earlier incidents and maintenance" in page
    assert page.count("Slow &lt;b&gt;") == 1


async def test_the_status_says_nothing_of_upstreams_or_accounts(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web=WEB, upstream=[upstream_row(SECRET, "http://127.0.0.1:1")])
    visitor = another(live)
    await visitor.sign_up()
    key = await visitor.new_key("my-laptop")
    assert await ask(live, key) == [503]
    await until_summed(live, 1)
    stranger = another(live)
    for path in ("/", "/status", "/status.json"):
        text = (await stranger.get(path)).text
        for word in (SECRET, "127.0.0.1:1/", "grace", "my-laptop", key):
            assert word not in text, path
    [model] = [one for one in (await read(live))["models"] if one["daily"]]
    assert model["availability"] == 0.0


async def test_a_storm_reads_the_database_once(site: Live, another: NewVisitor) -> None:
    """Strangers share one page, whatever their addresses have behind the path."""
    visitor = another(site)
    first = (await visitor.get("/status")).text
    await add_days(site, "claude-sonnet-4-7", {1: (1, 1)})
    paths = [f"/status?x={number}" for number in range(30)] + ["/status.json"] * 30
    answers = await asyncio.gather(*(visitor.get(path) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.text for answer in answers[:30]} == {first}
    assert len({answer.text for answer in answers[30:]}) == 1
    chinese = await visitor.get("/status", headers={"accept-language": "zh"})
    assert "所有模型正常" in chinese.text
    assert "50.00" not in chinese.text  # nobody has looked anew


async def test_somebody_who_is_logged_in_gets_their_own_page(site: Live, visitor: Visitor) -> None:
    stranger = (await visitor.get("/status")).headers
    assert stranger["cache-control"] == "public, max-age=10"
    assert "cookie" in stranger["vary"]
    await visitor.sign_up()
    own = await visitor.get("/status")
    assert own.headers["cache-control"] == "no-store"
    assert "/logout" in own.text


async def test_many_models_have_no_bars_but_their_word(relay_with: RelayWith) -> None:
    """So that the page of any number of models is written in a few milliseconds."""
    models = [{"id": f"claude-many-{number}"} for number in range(120)]
    relay = await relay_with(model=models, web=WEB)
    async with httpx.AsyncClient(base_url=relay.url) as client:
        page = (await client.get("/status", headers={"accept": "text/html"})).text
    assert page.count("<section") >= 120
    assert page.count('class="strip-foot"') == 40


@pytest.mark.parametrize("path", ["/status", "/status.json"])
async def test_a_status_that_cannot_be_read_is_a_503(
    site: Live, another: NewVisitor, path: str
) -> None:
    def drop(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE answer_day RENAME TO answer_gone")

    await site.app.database.write(drop)
    answer = await another(site).get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
