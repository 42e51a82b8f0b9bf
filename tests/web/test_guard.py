"""Requests of other sites, header fields, and what a hostile name can do."""

import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.routing import Route

from relay.web.languages import read_texts
from tests.fakes.live import Live
from tests.web.visitor import PASSWORD, Visitor, make_admin

FOREIGN: list[dict[str, str]] = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "origin": "http://relay.example"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1"},  # another port
]
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7001*7001}}'


def routes(live: Live) -> list[Route]:
    """All routes of the site for browsers, once it is loaded."""
    site = live.app.web.site
    assert site is not None
    return [one for one in site.routes if one.path != "/payments/stripe"]


def example(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "0123456789abcdef", path)


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda one: " ".join(one.values()))
async def test_no_form_is_taken_from_another_site(
    site: Live, visitor: Visitor, headers: dict[str, str]
) -> None:
    await visitor.sign_up()
    fields = await visitor.form("/account", "/account/password")
    cookie = {"cookie": f"relay={visitor.cookies['relay']}"}
    posts = [route for route in routes(site) if route.methods and "POST" in route.methods]
    assert len(posts) >= 13
    async with httpx.AsyncClient(base_url=site.url, headers={**cookie, **headers}) as foreign:
        for route in posts:
            answer = await foreign.post(example(route.path), data={**fields, "present": PASSWORD})
            assert answer.status_code == 403, route.path
            assert "another site" in answer.text
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_every_form_of_a_session_needs_its_token(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await make_admin(site)
    posts = [route for route in routes(site) if route.methods and "POST" in route.methods]
    for route in posts:
        for fields in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
            answer = await visitor.post(example(route.path), data={"present": PASSWORD, **fields})
            assert answer.status_code == 403, route.path
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_no_get_changes_anything(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key()
    await make_admin(site)
    database = site.app.database
    tables = ("users", "keys", "session", "link")

    async def state() -> list[Any]:
        return [await database.select(f"SELECT * FROM {table} ORDER BY 1") for table in tables]

    before = await state()
    gets = [route for route in routes(site) if route.methods and "GET" in route.methods]
    for route in gets:
        if route.path != "/dashboard/live":
            assert (await visitor.get(example(route.path))).status_code < 500, route.path
            assert (await visitor.head(example(route.path))).status_code < 500, route.path
    assert await state() == before


async def test_every_page_that_is_somebodys_asks_for_a_log_in(site: Live, visitor: Visitor) -> None:
    await visitor.get("/login")
    public = {
        "/", "/login", "/signup", "/setup", "/confirm", "/forgot", "/reset", "/preferences",
        "/static/{path:path}", "/login/code", "/login/code/passkey", "/login/code/passkey/options",
        "/login/passkey", "/login/passkey/options", "/login/with/{name}",
        "/login/callback/{name}", "/login/link", "/docs", "/docs/search.json", "/docs/{page}.md",
        "/docs/{page}", "/llms.txt", "/setup.sh", "/setup.ps1", "/status", "/status.json",
    }  # fmt: skip
    for route in routes(site):
        if route.path not in public:
            method = "POST" if "POST" in (route.methods or ()) else "GET"
            answer = await visitor.request(method, example(route.path))
            assert answer.status_code == 303, route.path
            assert answer.headers["location"].startswith("/login")


async def test_every_answer_carries_the_headers(site: Live, visitor: Visitor) -> None:
    answers = [
        await visitor.get(path)
        for path in ("/", "/login", "/signup", "/dashboard", "/nothing", "/reset?t=x", "/docs")
    ]
    answers.append(await visitor.post("/login", data={"email": "a", "password": "b"}))
    answers.append(await visitor.post("/login", content=b"x" * 70_000))
    answers.append(await visitor.post("/login", headers={"sec-fetch-site": "cross-site"}))
    assert {answer.status_code for answer in answers} == {200, 303, 404, 401, 413, 403}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store", answer.url
        assert answer.headers.get("request-id", "").startswith("req_")
        if answer.text:
            assert "<html" in answer.text
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|javascript:", answer.text)


async def test_a_hostile_name_is_text(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key(HOSTILE)
    search = f"/dashboard/requests?model={quote(HOSTILE)}"
    for path in ("/dashboard/keys", "/dashboard/requests", search):
        page = (await visitor.get(path)).text
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "49014001" not in page


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
async def test_a_log_in_leads_to_no_other_site(site: Live, visitor: Visitor, target: str) -> None:
    await visitor.sign_up()
    await visitor.submit("/account", "/logout")
    answer = await visitor.submit(
        "/login", email="grace@example.com", password=PASSWORD, next=target
    )
    assert answer.headers["location"] == "/dashboard"
    answer = await visitor.post("/preferences", data={"back": target, "theme": "dark"})
    assert answer.status_code == 403  # logged in: its form has a token
    fields = await visitor.form("/dashboard", "/preferences")
    answer = await visitor.post("/preferences", data={**fields, "back": target, "theme": "dark"})
    assert answer.headers["location"] == "/"


async def test_the_host_field_is_reflected_nowhere(site: Live, visitor: Visitor) -> None:
    for path in ("/", "/login", "/login/", "/static/", "/dashboard", "/dashboard/", "/nothing/"):
        answer = await visitor.get(path, headers={"host": "evil.example"})
        assert "evil.example" not in answer.text + str(answer.headers)


async def test_long_and_odd_requests_get_a_page(site: Live, visitor: Visitor) -> None:
    for body in (b"&" * 1000, b"a=%ff%fe", b"=" * 500, b"\0\1\2"):
        answer = await visitor.post("/login", content=body)
        assert answer.status_code in (400, 401)
        assert "<html" in answer.text
    assert (await visitor.request("DELETE", "/login")).status_code == 405
    assert (await visitor.get("/login/")).status_code == 200
    for odd in ("/dashboard/requests?before=x", "/dashboard/usage?from=2026-99-99&to=1&by=%00"):
        assert (await visitor.get(odd)).status_code == 303
    await visitor.sign_up()
    for odd in (
        "/dashboard/requests?before=-1", "/dashboard/requests?before=99999999999999999999999",
        "/dashboard/usage?from=0001-01-01&to=9999-12-31&by=x",
        "/dashboard/usage/data?metric=cost&from=0001-01-01&to=9999-12-31",
    ):  # fmt: skip
        assert (await visitor.get(odd)).status_code == 200, odd
    assert (await visitor.get("/dashboard/usage/data?metric=x")).status_code == 400


async def test_an_internal_error_is_a_page_without_details(
    site: Live, visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    await visitor.sign_up()
    await site.app.database.write(lambda connection: connection.execute("DROP TABLE usage_of"))
    answer = await visitor.get("/dashboard/requests")
    assert answer.status_code == 500
    assert "usage_of" not in answer.text
    assert read_texts()["en"]["error.failed"].partition(".")[0] in answer.text
    assert answer.headers["request-id"] in answer.text
    assert answer.headers["request-id"] in caplog.text
