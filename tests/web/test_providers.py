"""Log-ins by other providers: who is let in, who is linked, and what a hostile one can try."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import pytest

from tests.fakes.live import EMAIL, Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.provider import CLIENT, SECRET, Provider, running_provider
from tests.web.test_second_step import next_code, send_code, turn_on
from tests.web.visitor import PASSWORD, WEB, Visitor, audited

WAYS = "/account/log-in"
BACK = "/login/callback/main"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


def settings_of(provider: Provider, **more: Any) -> dict[str, Any]:
    row = {
        "name": "main",
        "title": "Main",
        "issuer": provider.url,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "sign_up": True,
    }
    return {**WEB, "oidc": [{**row, **more}]}


@pytest.fixture
async def site(relay_with: RelayWith, provider: Provider) -> Live:
    """A relay where the provider may open accounts."""
    return await relay_with(web=settings_of(provider))


def address_in(answer: httpx.Response) -> str:
    found = re.search(r'content="0; url=([^"]+)"', answer.text)
    assert found is not None, answer.text
    return unescape(found[1])


async def leave(visitor: Visitor) -> str:
    """Where the browser is sent."""
    return address_in(await visitor.submit("/login", "/login/with/main"))


async def come_in(visitor: Visitor, provider: Provider) -> httpx.Response:
    """Log in by the provider."""
    back = provider.authorize(await leave(visitor))
    return await visitor.get(BACK, params=back)


async def rows(site: Live, table: str = "identity") -> list[tuple[Any, ...]]:
    return await site.app.database.select(f"SELECT * FROM {table}")


async def test_somebody_new_gets_an_account(
    visitor: Visitor, provider: Provider, site: Live, another: NewVisitor
) -> None:
    url = await leave(visitor)
    query = dict(httpx.URL(url).params)
    assert query["response_type"] == "code"
    assert query["scope"] == "openid email"
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"] == f"{site.settings.server.public_url}{BACK}"
    assert len(query["state"]) == len(query["nonce"]) == 43
    answer = await visitor.get(BACK, params=provider.authorize(url))
    assert answer.headers["location"] == "/dashboard/keys?done=signed_up"
    assert "grace@example.com" in (await visitor.get("/account")).text
    again = another(site)
    provider.email = "moved@example.com"  # they are known by their subject
    assert (await come_in(again, provider)).headers["location"] == "/dashboard"
    assert "grace@example.com" in (await again.get("/account")).text
    assert provider.asked.count("/jwks") == 1
    assert provider.asked.count("/.well-known/openid-configuration") == 1
    assert len(await rows(site)) == 1


@pytest.mark.parametrize("verified", [False, "yes"])
async def test_an_unverified_address_lets_nobody_in(
    visitor: Visitor, provider: Provider, site: Live, verified: Any
) -> None:
    provider.verified = verified
    answer = await come_in(visitor, provider)
    assert answer.status_code == 403
    assert "has not verified your e-mail address" in answer.text
    assert await rows(site) == []


async def test_an_answer_that_is_not_believed_lets_nobody_in(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    provider.spoil = lambda claims: claims.update(nonce="another")
    assert (await come_in(visitor, provider)).status_code == 502
    assert (await visitor.get("/dashboard")).status_code == 303
    assert await rows(site) == []


async def test_a_state_works_once_and_in_its_browser(
    visitor: Visitor, provider: Provider, site: Live, another: NewVisitor
) -> None:
    back = provider.authorize(await leave(visitor))
    thief = another(site)
    assert (await thief.get(BACK, params=back)).status_code == 502  # without a visit of its own
    await leave(thief)
    assert (await thief.get(BACK, params=back)).status_code == 502  # with another one
    cookie = visitor.cookies["provider-visit"]
    assert (await visitor.get(BACK, params=back)).status_code == 303
    visitor.cookies.clear()
    visitor.cookies.set("provider-visit", cookie)
    again = provider.authorize(f"{provider.url}/?state={back['state']}")
    assert (await visitor.get(BACK, params=again)).status_code == 502
    assert (await visitor.get("/dashboard")).status_code == 303


@pytest.mark.parametrize(
    "change",
    [{"state": "x"}, {"state": ""}, {"code": ""}, {"code": "x"}, {"iss": "https://evil.example"}],
)
async def test_a_changed_return_lets_nobody_in(
    visitor: Visitor, provider: Provider, change: dict[str, str]
) -> None:
    back = provider.authorize(await leave(visitor))
    assert (await visitor.get(BACK, params={**back, **change})).status_code == 502
    assert (await visitor.get(BACK, params=back)).status_code == 502  # the visit is over


async def test_somebody_who_says_no_comes_back_to_the_log_in(
    visitor: Visitor, provider: Provider
) -> None:
    state = provider.authorize(await leave(visitor))["state"]
    answer = await visitor.get(BACK, params={"state": state, "error": "access_denied"})
    assert answer.headers["location"] == "/login?done=provider_denied"


async def test_an_account_with_the_address_is_linked_by_its_password(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await visitor.sign_up()
    visitor.cookies.clear()
    answer = await come_in(visitor, provider)
    assert answer.headers["location"] == "/login/link"
    assert (await visitor.get("/dashboard")).status_code == 303
    wrong = await visitor.submit("/login/link", password="wrong password")
    assert wrong.status_code == 401
    assert await rows(site) == []
    answer = await visitor.submit("/login/link", password=PASSWORD)
    assert answer.headers["location"] == "/dashboard?done=provider_linked"
    visitor.cookies.clear()
    assert (await come_in(visitor, provider)).headers["location"] == "/dashboard"


async def test_linking_waits_for_the_second_step(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await visitor.sign_up()
    app, codes = await turn_on(visitor)
    visitor.cookies.clear()
    await come_in(visitor, provider)
    answer = await visitor.submit("/login/link", password=PASSWORD)
    assert answer.headers["location"] == "/login/code"
    assert await rows(site) == []
    await send_code(visitor, next_code(app))
    assert len(await rows(site)) == 1
    visitor.cookies.clear()
    assert (await come_in(visitor, provider)).headers["location"] == "/login/code"
    assert (await send_code(visitor, codes[0])).headers["location"] == "/dashboard"


async def test_an_account_without_password_is_not_linked_by_address(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    provider.email = EMAIL.upper()  # made on the command line
    assert (await come_in(visitor, provider)).headers["location"] == "/login/link"
    assert (await visitor.submit("/login/link", password="")).status_code == 401
    assert await rows(site) == []


async def test_who_is_logged_in_links_and_unlinks(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await visitor.sign_up("ann@example.com")
    start = "/account/identities/main/link"
    assert (await visitor.submit(WAYS, start, present="wrong password")).status_code == 422
    url = address_in(await visitor.submit(WAYS, start, present=PASSWORD))
    answer = await visitor.get(BACK, params=provider.authorize(url))
    assert answer.headers["location"] == f"{WAYS}?done=provider_linked"
    page = (await visitor.get(WAYS)).text
    assert "grace@example.com" in page
    exported = (await visitor.get("/account/export.json")).json()
    assert exported["ways_to_log_in"]["other_providers"][0]["email"] == "grace@example.com"
    found = re.search(r"/account/identities/[0-9a-f]{16}/remove", page)
    assert found is not None
    answer = await visitor.submit(WAYS, found[0], present="wrong password")
    assert answer.status_code == 422
    answer = await visitor.submit(WAYS, found[0], present=PASSWORD)
    assert answer.headers["location"] == f"{WAYS}?done=provider_unlinked"
    assert await audited(site, "identity.") == ["identity.link", "identity.unlink"]
    assert await rows(site) == []


async def test_a_link_ends_with_the_session_that_asked_for_it(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await visitor.sign_up("ann@example.com")
    url = address_in(await visitor.submit(WAYS, "/account/identities/main/link", present=PASSWORD))
    cookie = visitor.cookies["provider-visit"]
    visitor.cookies.clear()
    await visitor.sign_up("bob@example.com")
    visitor.cookies.set("provider-visit", cookie)
    answer = await visitor.get(BACK, params=provider.authorize(url))
    assert answer.status_code == 502
    assert await rows(site) == []


async def test_nobody_is_linked_twice(visitor: Visitor, provider: Provider, site: Live) -> None:
    await come_in(visitor, provider)
    visitor.cookies.clear()
    await visitor.sign_up("ann@example.com")
    url = address_in(await visitor.submit(WAYS, "/account/identities/main/link", present=PASSWORD))
    answer = await visitor.get(BACK, params=provider.authorize(url))
    assert answer.status_code == 409
    assert len(await rows(site)) == 1


async def test_the_last_way_in_stays_and_a_fresh_session_proves(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await come_in(visitor, provider)
    found = re.search(r"/account/identities/[0-9a-f]{16}/remove", (await visitor.get(WAYS)).text)
    assert found is not None
    answer = await visitor.submit(WAYS, found[0])
    assert answer.status_code == 422
    assert "only way into the account" in answer.text
    await site.app.database.write(
        lambda connection: connection.execute("UPDATE session SET created_at = created_at - 700")
    )
    answer = await visitor.submit("/account", "/account/delete")
    assert answer.status_code == 422
    assert "Log out and in again" in answer.text
    visitor.cookies.clear()
    await come_in(visitor, provider)
    answer = await visitor.submit("/account", "/account/delete")
    assert answer.headers["location"] == "/login?done=account_deleted"
    assert await rows(site) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [({"sign_up": False}, "no account here"), ({"domains": ["example.org"]}, "your domain")],
)
async def test_the_operator_says_who_may_come(
    relay_with: RelayWith, provider: Provider, another: NewVisitor, more: Any, words: str
) -> None:
    visitor = another(await relay_with(web=settings_of(provider, **more)))
    answer = await come_in(visitor, provider)
    assert answer.status_code == 403
    assert words in answer.text


async def test_github_is_asked_in_its_own_way(
    relay_with: RelayWith, provider: Provider, another: NewVisitor
) -> None:
    site = await relay_with(web=settings_of(provider, kind="github"))
    visitor = another(site)
    url = await leave(visitor)
    query = dict(httpx.URL(url).params)
    assert url.startswith(f"{provider.url}/login/oauth/authorize?")
    assert query["scope"] == "read:user user:email"
    assert "nonce" not in query
    answer = await visitor.get(BACK, params=provider.authorize(url))
    assert answer.headers["location"] == "/dashboard/keys?done=signed_up"
    assert [row[:2] for row in await rows(site)] == [(provider.url, "4711")]
    provider.verified = False
    visitor.cookies.clear()
    assert (await come_in(visitor, provider)).status_code == 403
    provider.answers["/api/v3/user"] = {"id": "4711"}
    assert (await come_in(visitor, provider)).status_code == 502


async def test_a_provider_that_is_away_is_an_error_for_people(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    with running_provider() as provider:
        pass  # it has ended
    visitor = another(await relay_with(web=settings_of(provider)))
    answer = await visitor.submit("/login", "/login/with/main")
    assert answer.status_code == 502
    assert "Main could not be asked" in answer.text
    assert (await visitor.post("/login/with/other")).status_code == 404
    assert (await visitor.get("/login/callback/other")).status_code == 404


async def test_secrets_and_tokens_are_kept_nowhere(
    visitor: Visitor, provider: Provider, site: Live
) -> None:
    await come_in(visitor, provider)
    assert SECRET not in repr(site.settings)
    pages = [(await visitor.get(path)).text for path in ("/account", WAYS, "/account/export.json")]
    dump = json.dumps(site.log()) + "".join(pages)
    stored = "\n".join(
        [str(row) for [name] in await site.app.database.select(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ) for row in await rows(site, name)]
    )  # fmt: skip
    for canary in (SECRET, "token-canary", "code-0"):
        assert canary not in dump + stored


async def test_a_provider_that_is_not_ours(relay_with: RelayWith, another: NewVisitor) -> None:
    arguments = ["-W", "ignore", "-m", "oidc_provider_mock", "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            line = (await process.stdout.readline()).decode()
            assert line, "the provider does not start"
            found = re.search(r"http://[\w.]+:\d+", line)
        provider = Provider(found[0])
        site = await relay_with(web=settings_of(provider))
        visitor = another(site)
        async with httpx.AsyncClient(base_url=provider.url) as browser:
            claims = {"email": "grace@example.com", "email_verified": True}
            await browser.put("/users/grace", json=claims)
            url = await leave(visitor)
            answer = await browser.post(url, data={"sub": "grace"})
        answer = await visitor.get(BACK, params=httpx.URL(answer.headers["location"]).params)
        assert answer.headers["location"] == "/dashboard/keys?done=signed_up"
        assert [row[1] for row in await rows(site)] == ["grace"]
    finally:
        process.terminate()
        await process.wait()
