"""The page of one key: its rules take effect at once, and a new key takes its place."""

import re

import pytest

from tests.fakes.caller import BODY
from tests.fakes.live import EMAIL, Live
from tests.gateway import metering
from tests.web.administration import PERSON, act, id_of, last_entry
from tests.web.conftest import NewVisitor
from tests.web.visitor import Visitor, ask

RULES = {
    "models": "claude-haiku-4-5\r\nclaude-opus-*",
    "addresses": "127.0.0.1",
    "limits": "requests=2/1d\r\nmoney=2.5/30d",
    "concurrency": "3",
}


async def page_of(live: Live, name: str) -> str:
    rows = await live.app.database.select("SELECT id FROM keys WHERE name = ?", (name,))
    return f"/dashboard/keys/{rows[0][0]}"


async def test_rules_of_a_key_are_in_force_at_once(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    key = await visitor.new_key("laptop")
    assert await ask(site, key, 1) == [200]
    path = await page_of(site, "laptop")
    page = (await act(visitor, path, f"{path}/rules", **RULES)).text
    assert "claude-haiku-4-5\nclaude-opus-*</textarea>" in page
    assert "requests=2/1d\nmoney=2.5/30d</textarea>" in page
    assert 'value="3"' in page
    assert (await metering.ask(site, key))[0] == 403  # another model
    body = {**BODY, "model": "claude-haiku-4-5"}
    statuses = [(await metering.ask(site, key, body=body))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    await act(visitor, path, f"{path}/rules", models="", addresses="", limits="", concurrency="")
    assert await ask(site, key, 1) == [200]
    await act(visitor, path, f"{path}/rules", addresses="192.0.2.0/24")
    assert await ask(site, key, 1) == [403]


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("models", "clau*de", "no name of a model"),
        ("addresses", "192.0.2.1/24", "192.0.2.0/24"),
        ("limits", "requests=5", "requests=100/1d"),
        ("concurrency", "many", "a whole number"),
        ("concurrency", "²", "a whole number"),
    ],
)
async def test_wrong_rules_are_kept_in_the_form(
    site: Live, visitor: Visitor, field: str, text: str, says: str
) -> None:
    await visitor.sign_up()
    await visitor.new_key("laptop")
    path = await page_of(site, "laptop")
    answer = await visitor.submit(path, f"{path}/rules", **{field: text})
    assert answer.status_code == 422
    assert says in answer.text
    assert text in answer.text
    assert (await visitor.get(path)).text.count(text) == 0  # nothing was saved


async def test_a_new_key_takes_the_place_of_one(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    first = await visitor.new_key("laptop")
    path = await page_of(site, "laptop")
    await act(visitor, path, f"{path}/rules", models="claude-sonnet-*")
    answer = await visitor.submit(path, f"{path}/rotate", grace="1h")
    second = re.search(r'<code id="key">([^<]+)</code>', answer.text)
    assert second is not None
    assert await ask(site, first, 1) == await ask(site, second[1], 1) == [200]
    assert "claude-sonnet-*" in (await visitor.get(path)).text
    answer = await visitor.submit(path, f"{path}/rotate", grace="0")
    third = re.search(r'<code id="key">([^<]+)</code>', answer.text)
    assert third is not None
    assert await ask(site, second[1], 1) == [401]
    assert await ask(site, third[1], 1) == [200]


async def test_nobody_sees_the_key_of_another(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    await visitor.new_key("laptop")
    path = await page_of(site, "laptop")
    other = another(site)
    await other.sign_up("alan@example.com")
    assert (await other.get(path)).status_code == 404
    fields = await other.form("/dashboard/keys")
    for action in ("rules", "rotate"):
        assert (await other.post(f"{path}/{action}", data=fields)).status_code == 404
    person = await id_of(site, "grace@example.com")
    admins = path.replace("/dashboard", f"/admin/people/{person}")
    assert (await other.get(admins)).status_code in (403, 404)


async def test_an_administrator_sets_rules_of_anybodys_key(relay: Live, admin: Visitor) -> None:
    person = PERSON.format(await id_of(relay, EMAIL))
    path = person + (await page_of(relay, "test")).removeprefix("/dashboard")
    assert f'href="{path}"' in (await admin.get(person)).text
    await act(admin, path, f"{path}/rules", models="claude-haiku-4-5")
    assert (await last_entry(relay)).action == "key.rules"
    assert (await metering.ask(relay))[0] == 403
    await act(admin, path, f"{path}/rules", models="")
    await act(admin, path, f"{path}/disable")
    assert (await metering.ask(relay))[0] in (401, 403)
    await act(admin, path, f"{path}/enable")
    assert (await metering.ask(relay))[0] == 200
    assert (await admin.get(f"{person}/keys/key_0000000000000000")).status_code == 404
