"""Sessions: cookies, their ends, fixation and replay; hashes of passwords."""

import re
import time
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
import trustme

from relay.accounts.sessions import open_session, recognise
from relay.config import WebSettings
from relay.config.values import Duration
from relay.store.users import find_user
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.net.pems import trusting, write_pair
from tests.web.conftest import NewVisitor
from tests.web.visitor import HTML, PASSWORD, WEB, Visitor, hidden_fields, solve


def session_cookie(answer: httpx.Response) -> str:
    [field] = [one for one in answer.headers.get_list("set-cookie") if "relay=" in one]
    return field


async def test_passwords_are_hashed_with_owasps_parameters(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    rows = await site.app.database.select(
        "SELECT password_hash FROM users WHERE email <> ?", (EMAIL,)
    )
    assert re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[\w+/]{22}\$[\w+/]{43}", rows[0][0])


@pytest.mark.parametrize("is_secure", [True, False])
async def test_the_session_cookie_has_exactly_these_attributes(
    relay_with: RelayWith, another: NewVisitor, is_secure: bool
) -> None:
    scheme = "https" if is_secure else "http"
    live = await relay_with(web=WEB, server={"public_url": f"{scheme}://relay.example"})
    answer = await another(live).sign_up()
    name, _, rest = session_cookie(answer).partition("=")
    assert name == ("__Host-relay" if is_secure else "relay")
    token, *attributes = rest.split("; ")
    assert re.fullmatch(r"[\w-]{43}", token)
    expected = {"HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=lax"}
    assert set(attributes) == (expected | {"Secure"} if is_secure else expected)


async def test_only_the_digest_of_a_token_is_stored(
    site: Live, visitor: Visitor, tmp_path: Path
) -> None:
    await visitor.sign_up()
    await site.app.database.checkpoint()
    token = visitor.cookies["relay"].encode()
    for path in tmp_path.iterdir():  # noqa: ASYNC240
        assert token not in path.read_bytes(), path


async def test_a_log_in_never_takes_the_token_it_finds(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    visitor.cookies.clear()
    planted = "a" * 43
    visitor.cookies.set("relay", planted)
    assert (await visitor.get("/dashboard")).status_code == 303
    await visitor.log_in()
    tokens = {cookie.value for cookie in visitor.cookies.jar if cookie.name == "relay"}
    assert planted not in tokens or len(tokens) == 2
    visitor.cookies.clear()
    visitor.cookies.set("relay", planted)
    assert (await visitor.get("/dashboard")).status_code == 303


async def test_a_log_in_ends_the_session_before_it(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    before = visitor.cookies["relay"]
    fields = await visitor.form("/account", "/account/password")
    values = {**fields, "csrf": fields["csrf"], "email": "grace@example.com", "password": PASSWORD}
    assert (await visitor.post("/login", data=values)).status_code == 303
    assert visitor.cookies["relay"] != before
    async with Visitor(site, cookie=f"relay={before}") as thief:
        assert (await thief.get("/dashboard")).status_code == 303


@pytest.mark.parametrize("path", ["/logout", "/logout/everywhere"])
async def test_a_token_is_dead_after_the_log_out(site: Live, visitor: Visitor, path: str) -> None:
    await visitor.sign_up()
    token = visitor.cookies["relay"]
    answer = await visitor.post(path, data=await visitor.form("/account", path))
    cookie = SimpleCookie(session_cookie(answer))["relay"]
    assert (cookie.value, cookie["max-age"]) == ("", "0")
    async with Visitor(site, cookie=f"relay={token}") as thief:
        assert (await thief.get("/dashboard")).headers["location"].startswith("/login")


async def test_a_log_out_everywhere_ends_all_browsers(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    phone = another(site)
    await phone.log_in()
    assert (await phone.get("/dashboard")).status_code == 200
    await visitor.submit("/account", "/logout/everywhere")
    assert (await phone.get("/dashboard")).status_code == 303


async def test_one_browser_is_logged_out_by_another(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    phone = another(site, **{"user-agent": "Mozilla/5.0 (iPhone) Safari/605"})
    await phone.log_in()
    page = (await visitor.get("/account")).text
    assert "Safari, iPhone" in page
    [action] = set(re.findall(r"/account/sessions/\w+/end", page))
    answer = await visitor.submit("/account", action)
    assert answer.headers["location"] == "/account?done=session_ended"
    assert (await phone.get("/dashboard")).status_code == 303
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_nobody_ends_a_session_of_somebody_else(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    rows = await site.app.database.select("SELECT lower(hex(digest)) FROM session")
    other = another(site)
    await other.sign_up("eve@example.com")
    fields = await other.form("/account", "/account/password")
    answer = await other.post(f"/account/sessions/{rows[0][0][:16]}/end", data=fields)
    assert answer.status_code == 404
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_a_session_ends_by_age_unused_and_in_all(site: Live) -> None:
    database, start = site.app.database, time.time()
    user = await find_user(database, EMAIL)
    assert user is not None
    web = WebSettings(session_idle=Duration("7d"), session_limit=Duration("30d"))
    day = 86_400
    idle = await open_session(database, user, "127.0.0.1", "agent", start)
    assert await recognise(database, web, idle.token, start + 6.9 * day) is not None
    assert await recognise(database, web, idle.token, start + 13.8 * day) is not None
    assert await recognise(database, web, idle.token, start + 20.9 * day) is None
    used = await open_session(database, user, "127.0.0.1", "agent", start)
    for number in range(6):
        assert await recognise(database, web, used.token, start + number * 5 * day) is not None
    assert await recognise(database, web, used.token, start + 30.1 * day) is None


async def test_an_account_has_a_bounded_number_of_sessions(site: Live) -> None:
    database = site.app.database
    user = await find_user(database, EMAIL)
    assert user is not None
    opened = [await open_session(database, user, "::1", "a", 1e9 + n) for n in range(55)]
    assert (await database.select("SELECT count(*) FROM session"))[0][0] == 50
    assert await recognise(database, WebSettings(), opened[0].token, 1e9 + 60) is None
    assert await recognise(database, WebSettings(), opened[-1].token, 1e9 + 60) is not None


async def test_a_new_password_ends_all_other_sessions(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    phone = another(site)
    await phone.log_in()
    before = visitor.cookies["relay"]
    new = "another sentence 43"
    wrong = await visitor.submit("/account", "/account/password", present="x", password=new)
    assert wrong.status_code == 422
    assert "present password is wrong" in wrong.text
    done = await visitor.submit("/account", "/account/password", present=PASSWORD, password=new)
    assert done.headers["location"] == "/account?done=password_changed"
    assert visitor.cookies["relay"] != before
    assert (await visitor.get("/dashboard")).status_code == 200
    assert (await phone.get("/dashboard")).status_code == 303
    assert (await phone.log_in()).status_code == 401
    assert (await phone.log_in(password=new)).status_code == 303


async def test_a_session_cookie_is_no_key(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    token = visitor.cookies["relay"]
    for headers in ({"cookie": f"relay={token}"}, {"x-api-key": token}, {"cookie": site.key}):
        async with httpx.AsyncClient(base_url=site.url, headers=headers) as client:
            assert (await client.get("/v1/models")).status_code == 401
            assert (await client.post("/v1/messages", json={})).status_code == 401


@pytest.mark.parametrize("is_h2", [False, True])
async def test_pages_over_tls_are_secure_whatever_public_url_says(
    relay_with: RelayWith, tmp_path: Path, is_h2: bool
) -> None:
    authority = trustme.CA()
    pair = write_pair(tmp_path, authority, "localhost")
    tls = {"cert": pair.cert, "key": pair.key}
    live = await relay_with(web=WEB, server={"tls": tls})
    async with httpx.AsyncClient(
        base_url=f"https://localhost:{live.port}",
        verify=trusting(authority),
        http2=is_h2,
        headers=HTML,
    ) as client:
        page = await client.get("/signup")
        assert page.http_version == ("HTTP/2" if is_h2 else "HTTP/1.1")
        assert page.headers["strict-transport-security"] == "max-age=31536000"
        fields = hidden_fields(page.text, "/signup")
        fields |= {"answer": solve(fields["challenge"]), "email": "a@example.com"}
        answer = await client.post("/signup", data={**fields, "password": PASSWORD})
        assert session_cookie(answer).startswith("__Host-relay=")
        assert "Secure" in session_cookie(answer)
        assert (await client.get("/dashboard")).status_code == 200
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert (await client.post("/logout", headers=foreign)).status_code == 403
