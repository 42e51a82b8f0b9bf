"""What administrators do about people: each change, its effect, and its entry in the audit log."""

import time

import pytest

from tests.fakes.live import EMAIL, Live
from tests.web.administration import ADMIN, PERSON, act, add_people, id_of, last_entry, new_admin
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, Visitor, ask, cells


async def test_people_are_found_sorted_and_paged(relay: Live, admin: Visitor) -> None:
    await add_people(relay, 120)
    page = (await admin.get("/admin/people")).text
    assert "122 accounts" in page
    assert "ada@example.com" in cells(page)[1]
    assert 'href="/admin/people?order=email&amp;direction=up&amp;page=3"' in page
    last = cells((await admin.get("/admin/people?page=3")).text)
    assert len(last) == 1 + 22
    assert "person00119" in last[-1]
    found = cells((await admin.get("/admin/people?q=PERSON0001_")).text)
    assert len(found) == 0
    assert len(cells((await admin.get("/admin/people?q=PERSON0001")).text)) == 1 + 10
    assert len(cells((await admin.get("/admin/people?state=admin")).text)) == 1 + 1
    down = cells((await admin.get("/admin/people?order=email&direction=down")).text)
    assert "person00119" in down[1]
    for odd in ("page=0", "page=99999", "page=x", "order=id;", "state=x", "plan=%27"):
        assert (await admin.get(f"/admin/people?{odd}")).status_code == 200


async def test_an_account_is_opened_with_a_link(
    relay: Live, admin: Visitor, another: NewVisitor
) -> None:
    answer = await admin.submit("/admin/people", email="new@example.com", plan="team")
    assert answer.status_code == 200
    link = answer.text.partition('id="link">')[2].partition("<")[0]
    visitor = another(relay)
    path = "/reset" + link.partition("/reset")[2].replace("&amp;", "&")
    answer = await visitor.submit(path, password=PASSWORD)
    assert answer.headers["location"].startswith("/dashboard")
    again = await admin.submit("/admin/people", email="new@example.com", plan="team")
    assert again.status_code == 409
    assert (await admin.submit("/admin/people", email="x", plan="pro")).status_code == 422


async def test_a_plan_is_changed(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    page = await act(admin, path, f"{path}/plan", plan="team")
    assert "The plan is changed" in page.text
    entry = await last_entry(relay)
    assert (entry.action, entry.before, entry.after) == (
        "user.plan", {"plan": "pro"}, {"plan": "team"},
    )  # fmt: skip
    assert entry.actor == await id_of(relay, ADMIN)
    assert entry.address == "127.0.0.1"
    assert (await admin.submit(path, f"{path}/plan", plan="gone")).status_code == 422


@pytest.mark.parametrize(
    ("amount", "micro"),
    [("25", 25_000_000), ("$12.50", 12_500_000), ("0.000001", 1), ("-4", -4_000_000)],
)
async def test_credit_is_given(relay: Live, admin: Visitor, amount: str, micro: int) -> None:
    path = PERSON.format(await id_of(relay))
    await act(admin, path, f"{path}/credit", amount=amount, note="by hand")
    rows = await relay.app.database.select("SELECT amount_micro, note FROM statement")
    assert [tuple(row) for row in rows] == [(micro, "by hand")]
    assert (await last_entry(relay)).action == "balance.credit"


@pytest.mark.parametrize("amount", ["", "0", "x", "1.0000001", "1e6", "9999999", "٣", "--4"])
async def test_no_other_amount_is_taken(relay: Live, admin: Visitor, amount: str) -> None:
    path = PERSON.format(await id_of(relay))
    assert (await admin.submit(path, f"{path}/credit", amount=amount)).status_code == 422
    assert await relay.app.database.select("SELECT 1 FROM statement") == []


async def test_a_suspension_has_a_reason_and_an_end(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    assert (await admin.submit(path, f"{path}/suspend", reason=" ")).status_code == 422
    page = await act(admin, path, f"{path}/suspend", reason="the card was refused")
    assert "the card was refused" in page.text
    assert await ask(relay, relay.key) == [403]
    assert (await last_entry(relay)).action == "user.suspend"
    await act(admin, path, f"{path}/resume")
    assert await ask(relay, relay.key) == [200]
    own = PERSON.format(await id_of(relay, ADMIN))
    assert (await admin.submit(own, f"{own}/suspend", reason="x")).status_code == 409


async def test_one_window_is_reset_and_enlarged(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    await ask(relay, relay.key, 3)
    page = (await admin.get(path)).text
    assert "<b>397</b>" in page
    assert "<b>1,997</b>" in page
    page = (await act(admin, path, f"{path}/reset", window="requests/18000s")).text
    assert "<b>400</b>" in page
    assert "<b>1,997</b>" in page
    assert (await last_entry(relay)).action == "window.reset"
    page = (
        await act(admin, path, f"{path}/bonus", window="requests/18000s", amount="50", windows="2")
    ).text
    assert "<b>450</b>" in page
    assert (await last_entry(relay)).action == "window.bonus"
    for bad in ({"amount": "x"}, {"amount": "-1"}, {"windows": "1001"}, {"window": "requests/9s"}):
        fields = {"window": "requests/18000s", "amount": "5", "windows": "1", **bad}
        assert (await admin.submit(path, f"{path}/bonus", **fields)).status_code == 422
    answer = await admin.submit(path, f"{path}/reset", window="requests/9s")
    assert answer.status_code == 422


async def test_a_key_is_revoked_at_once(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    rows = await relay.app.database.select("SELECT id FROM keys")
    await act(admin, path, f"{path}/keys/{rows[0][0]}/revoke")
    assert await ask(relay, relay.key) == [401]
    own = PERSON.format(await id_of(relay, ADMIN))  # not a key of this person
    fields = await admin.form(path, f"{path}/plan")
    answer = await admin.post(f"{own}/keys/{rows[0][0]}/revoke", data=fields)
    assert answer.status_code == 404


async def test_the_administration_is_given_and_taken(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    for wanted in (1, 0):
        await act(admin, path, f"{path}/admin")
        rows = await relay.app.database.select(
            "SELECT is_admin FROM users WHERE email = ?", (EMAIL,)
        )
        assert rows[0][0] == wanted
        assert (await last_entry(relay)).after == {"is_admin": bool(wanted)}
    own = PERSON.format(await id_of(relay, ADMIN))
    fields = await admin.form(path, f"{path}/plan")
    assert (await admin.post(f"{own}/admin", data=fields)).status_code == 409


# --- logged in as somebody else ---


async def test_an_administrator_sees_what_a_person_sees(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    page = await act(admin, path, f"{path}/as")
    assert f"You see the pages of {EMAIL}" in page.text
    assert (await last_entry(relay)).action == "user.log_in_as"
    assert "test" in (await admin.get("/dashboard/keys")).text
    assert (await admin.get("/admin/people")).status_code == 404
    keys = await relay.app.database.select("SELECT id FROM keys")
    renamed = f"/dashboard/keys/{keys[0][0]}/name"
    await act(admin, "/dashboard/keys", renamed, name="found")
    entry = await last_entry(relay)  # names who did it, not for whom
    assert (entry.action, entry.actor) == ("key.rename", await id_of(relay, ADMIN))
    back = await act(admin, "/dashboard", "/admin/as/end")
    assert (await last_entry(relay)).action == "user.log_in_as_end"
    assert back.url.path == path
    assert ADMIN in (await admin.get("/account")).text


async def test_neither_money_nor_log_ins_change_meanwhile(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    stale = await admin.form("/account", "/account/password")
    await act(admin, path, f"{path}/as")
    site = relay.app.web.site
    assert site is not None
    fields = await admin.form("/dashboard", "/preferences")
    for route in site.routes:
        if "POST" not in (route.methods or ()) or route.path in (
            "/preferences", "/logout", "/admin/as/end", "/dashboard/keys/{id}/name",
            "/dashboard/keys/{id}/revoke",
        ):  # fmt: skip
            continue
        answer = await admin.post(route.path.replace("{id}", "x"), data=fields)
        assert answer.status_code in (403, 404), route.path
    # A form that was opened before does not act for the person now.
    assert (await admin.post("/dashboard/keys/x/revoke", data=stale)).status_code == 403


async def test_nobody_makes_the_cookie_themselves(relay: Live, another: NewVisitor) -> None:
    visitor, admin = another(relay), another(relay)
    await new_admin(relay, admin)
    path = PERSON.format(await id_of(relay))
    await act(admin, path, f"{path}/as")
    await visitor.sign_up("alan@example.com")
    stolen = admin.cookies["relay-as"]
    visitor.cookies.set("relay-as", stolen)
    assert EMAIL not in (await visitor.get("/account")).text
    for value in (
        stolen[:-1] + ("y" if stolen.endswith("x") else "x"),
        stolen.replace(".", "x"),
        "..",
        "a.b.c",
        "",
    ):
        admin.cookies.delete("relay-as")
        admin.cookies.set("relay-as", value)
        assert "You see the pages" not in (await admin.get("/account")).text
    own = await id_of(relay, ADMIN)
    answer = await admin.post(
        f"/admin/people/{own}/as", data=await admin.form(path, f"{path}/plan")
    )
    assert answer.status_code == 409


async def test_a_plan_runs_for_some_days(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    fields = {"plan": "team", "plan_then": "pro", "days": "30", "do": "start"}
    await act(admin, path, f"{path}/period", **fields)
    page = await act(admin, path, f"{path}/period", **{**fields, "days": "5", "do": "extend"})
    assert "then pro" in page.text
    rows = await relay.app.database.select(
        "SELECT plan, plan_until FROM users WHERE email = ?", (EMAIL,)
    )
    assert rows[0][0] == "team"
    assert rows[0][1] == pytest.approx(time.time() + 35 * 86_400, abs=60)
    answer = await admin.submit(path, f"{path}/period", **{**fields, "days": "0"})
    assert answer.status_code == 422
