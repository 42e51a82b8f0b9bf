"""What a person sees of their limits and keys."""

import re
import time

from relay.store.balance import credit
from relay.store.users import find_user
from tests.fakes.live import Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor, ask, owner

PRO = {
    "id": "pro", "name": "Pro", "max_keys": 3, "enforce": "account",
    "limits": [
        {"requests": 1200, "per": "5h"}, {"requests": 6000, "per": "7d"},
        {"requests": 60, "per": "1m"},
    ],
}  # fmt: skip


# --- limits ---


async def test_windows_show_exact_numbers_and_their_resets(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web=WEB, plan=[PRO])
    visitor = another(live)
    await visitor.sign_up()
    page = (await visitor.get("/dashboard")).text
    assert page.count("Starts with your next request") == 2
    assert "Requests per 5 h" in page
    assert page.index("Requests per 5 h") < page.index("Requests per 7 d")
    key = await visitor.new_key()
    before = time.time()
    assert await ask(live, key, 7) == [200] * 7
    part = (await visitor.get("/dashboard/parts/windows")).text
    assert "<b>1,193</b>" in part
    assert "7 of 1,200 used" in part
    assert "<b>5,993</b>" in part
    assert '<progress max="6000" value="7"' in part
    resets = re.findall(r'Full again <time datetime="([^"]+)Z"', part)
    assert len(resets) == 2
    ends = [time.mktime(time.strptime(at, "%Y-%m-%dT%H:%M:%S")) - time.timezone for at in resets]
    for end, per in zip(ends, (5 * 3600, 7 * 86_400), strict=True):
        assert before + per - 2 < end < time.time() + per + 1


async def test_limits_of_keys_are_shown_for_each_key(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web=WEB, plan=[{**PRO, "enforce": "key"}])
    visitor = another(live)
    await visitor.sign_up()
    assert "no key yet" in (await visitor.get("/dashboard")).text
    first = await visitor.new_key("first")
    await visitor.new_key("second")
    await ask(live, first, 2)
    part = (await visitor.get("/dashboard/parts/windows")).text
    left = re.findall(r"<h2>(\w+)</h2>|<b>([\d,]+)</b>", part)
    assert [a or b for a, b in left] == ["first", "1,198", "5,998", "second", "1,200", "6,000"]


async def test_a_plan_that_is_gone_is_named(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with(web=WEB)
    visitor = another(live)
    await visitor.sign_up()
    await live.app.database.write(lambda c: c.execute("UPDATE users SET plan = 'old'"))
    page = await visitor.get("/dashboard")
    assert page.status_code == 200
    assert "“old” is no longer offered" in page.text


async def test_a_balance_is_shown_where_there_is_one(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    assert "<dt>Balance" not in (await visitor.get("/dashboard")).text
    user = await find_user(site.app.database, "grace@example.com")
    assert user is not None
    await credit(site.app.database, user.id, 12_345_678, "", time.time())
    assert "$12.345678" in (await visitor.get("/dashboard")).text


# --- keys ---


async def test_a_key_is_shown_once_with_snippets(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    answer = await visitor.submit("/dashboard/keys", name="laptop", lifetime="30d")
    [key] = re.findall(r'id="key">([^<]+)<', answer.text)
    # Itself, in both lines that set up a machine, in each snippet, and in the links to CC Switch.
    assert answer.text.count(key) == 1 + 2 + 8 + 3
    for path in ("/dashboard/keys", "/dashboard/chat", "/docs", "/docs/agents"):
        assert key not in (await visitor.get(path)).text
    assert key not in str(site.log())
    assert answer.headers["cache-control"] == "no-store"
    assert await ask(site, key) == [200]
    page = (await visitor.get("/dashboard/keys")).text
    assert key not in page
    assert f"sk-llmapi-…{key[-4:]}" in page
    assert "laptop" in page
    assert "until" in page


async def test_a_revoked_key_is_refused_by_the_next_request(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    key = await visitor.new_key()
    _, key_id = await owner(site, visitor)
    assert await ask(site, key) == [200]
    answer = await visitor.submit("/dashboard/keys", f"/dashboard/keys/{key_id}/revoke")
    assert answer.headers["location"] == "/dashboard/keys?done=key_revoked"
    assert await ask(site, key) == [401]


async def test_a_key_is_disabled_and_enabled(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    key = await visitor.new_key()
    _, key_id = await owner(site, visitor)
    for change, state, statuses in (("disable", "Disabled", [403]), ("enable", "Live", [200])):
        answer = await visitor.submit("/dashboard/keys", f"/dashboard/keys/{key_id}/{change}")
        assert answer.headers["location"] == f"/dashboard/keys?done=key_{change}d"
        assert f">{state}<" in (await visitor.get("/dashboard/keys")).text
        assert await ask(site, key) == statuses


async def test_a_key_is_renamed(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key("old")
    _, key_id = await owner(site, visitor)
    path = f"/dashboard/keys/{key_id}/name"
    await visitor.submit("/dashboard/keys", path, name="Neuer Name ☕")
    assert "Neuer Name ☕" in (await visitor.get("/dashboard/keys")).text
    answer = await visitor.submit("/dashboard/keys", path, name="x" * 101)
    assert answer.status_code == 422


async def test_a_plan_bounds_the_number_of_keys(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with(web=WEB, plan=[{**PRO, "max_keys": 1}])
    visitor = another(live)
    await visitor.sign_up()
    await visitor.new_key()
    answer = await visitor.submit("/dashboard/keys", name="more", lifetime="")
    assert answer.status_code == 409
    assert "allows 1 live keys" in answer.text


async def test_nobody_reaches_the_keys_of_another(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    key = await visitor.new_key("mine")
    _, key_id = await owner(site, visitor)
    eve = another(site)
    await eve.sign_up("eve@example.com")
    await eve.new_key("hers")
    fields = await eve.form("/dashboard/keys")
    for action in ("name", "disable", "enable", "revoke"):
        path = f"/dashboard/keys/{key_id}/{action}"
        assert (await eve.post(path, data={**fields, "name": "x"})).status_code == 404
    assert await ask(site, key) == [200]
    for path in ("/dashboard", "/dashboard/requests", f"/dashboard/requests?key={key_id}"):
        assert "mine" not in (await eve.get(path)).text
