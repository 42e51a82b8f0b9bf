"""Pages that show what is new, and the relay beside its pages."""

import asyncio
import re
import subprocess
import sys
import time

import httpx
import pytest

from relay.store import request_log
from relay.web import live as live_module
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, Visitor, ask, until_logged

# --- live ---


async def test_a_stream_announces_requests_and_ends_with_its_session(
    site: Live, visitor: Visitor
) -> None:
    await visitor.sign_up()
    key = await visitor.new_key()
    async with visitor.stream("GET", "/dashboard/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 5000"
        await ask(site, key)
        async with asyncio.timeout(5):
            assert "event: new" in [await anext(lines) for _ in range(2)]
        await ask(site, site.key)  # somebody else's
        await visitor.submit("/account", "/logout/everywhere")
        await ask(site, key)
        async with asyncio.timeout(5):
            rest = [line async for line in lines]
        assert "event: over" in rest


@pytest.mark.parametrize(("since", "is_new"), [(0, True), (1, False), (10**19 - 1, False)])
async def test_news_are_those_after_any_number(
    site: Live, visitor: Visitor, since: int, is_new: bool
) -> None:
    """A page says up to which number it shows, and its address is anybody's to write."""
    await visitor.sign_up()
    await ask(site, await visitor.new_key())
    await until_logged(site, 1)
    database = site.app.database
    [(user_id,)] = await database.select("SELECT user_id FROM usage")
    assert await request_log.has_after(database, user_id, since) is is_new


async def test_an_account_has_a_bounded_number_of_streams(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    live_site = site.app.web.site
    assert live_site is not None
    streams = [visitor.stream("GET", "/dashboard/live") for _ in range(6)]
    for stream in streams:
        await stream.__aenter__()
    await until(lambda: not live_site.live.has_room(next(iter(live_site.live._streams))))
    assert (await visitor.get("/dashboard/live")).status_code == 429
    assert (await visitor.get("/dashboard")).status_code == 200
    for stream in streams:
        await stream.__aexit__(None, None, None)
    await until(lambda: not live_site.live._streams)


async def test_a_relay_that_stops_waits_for_no_stream(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    async with visitor.stream("GET", "/dashboard/live") as stream:
        started = time.monotonic()
        await site.app.drain(30)
        assert time.monotonic() - started < 5
        assert [line async for line in stream.aiter_lines()]


def test_a_relay_without_page_requests_imports_no_pages() -> None:
    code = (
        "import sys, relay.app, relay.process;"
        "print([m for m in ('starlette', 'jinja2', 'argon2', 'markupsafe') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_pages_can_be_turned_off(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with(web={"enabled": False})
    visitor = another(live)
    for path in ("/login", "/dashboard", "/static/style.css"):
        answer = await visitor.get(path)
        assert answer.status_code == 404
        assert answer.json()["type"] == "error"
    assert (await visitor.get("/")).text == "ok\n"


async def test_the_api_answers_browsers_and_probes_as_before(site: Live, visitor: Visitor) -> None:
    assert (await visitor.get("/v1/nothing")).json()["error"]["type"] == "not_found_error"
    assert (await visitor.get("/v1/models")).status_code == 401
    async with httpx.AsyncClient(base_url=site.url) as client:
        assert (await client.get("/")).text == "ok\n"
        assert (await client.get("/nothing")).json()["error"]["type"] == "not_found_error"
    assert "<h1>" in (await visitor.get("/")).text
    assert PASSWORD not in (await visitor.get("/")).text


async def test_a_stream_announces_what_came_before_it_opened(
    site: Live, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request between the page and its stream, or while a connection was lost."""
    await visitor.sign_up()
    key = await visitor.new_key()
    page = (await visitor.get("/dashboard")).text
    found = re.search(r'data-since="(\d+)"', page)
    assert found is not None
    await ask(site, key)
    await until_logged(site, 1)
    monkeypatch.setattr(live_module, "HEARTBEAT_SECONDS", 0.2)
    for since, first in ((found[1], "event: new"), ("1", ": quiet")):
        async with visitor.stream("GET", f"/dashboard/live?since={since}") as stream:
            lines = stream.aiter_lines()
            assert [await anext(lines) for _ in range(2)] == ["retry: 5000", ""]
            assert await anext(lines) == first
