"""The administrators' pages by their forms: what each changes, who may, and what is audited."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relay.reload import Reloader
from relay.store.audit import AuditEntry, entries
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.upstream import OK, Seen, UpstreamWith, always
from tests.web.administration import ADMIN, MODELS, PLANS, add_people, new_admin
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, WEB, Visitor, ask, cells, hidden_fields

PERSON = "/admin/people/{}"


@pytest.fixture
async def live(relay_with: RelayWith, tmp_path: Path) -> Live:
    backups = {"path": str(tmp_path / "backups")}
    return await relay_with(web=WEB, plan=PLANS, model=MODELS, backup=backups)


@pytest.fixture
async def admin(live: Live, another: NewVisitor) -> Visitor:
    """A browser in which an administrator is logged in."""
    visitor = another(live)
    await new_admin(live, visitor)
    return visitor


def refusal(status: bytes, body: bytes) -> bytes:
    """The octets of an upstream's error."""
    fields = b"content-type: application/json\r\ncontent-length: %d" % len(body)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, fields, body)


async def id_of(live: Live, email: str = EMAIL) -> str:
    rows = await live.app.database.select("SELECT id FROM users WHERE email = ?", (email,))
    return str(rows[0][0])


async def last_entry(live: Live) -> AuditEntry:
    return (await entries(live.app.database, limit=1))[0]


async def act(visitor: Visitor, page: str, action: str, **fields: str) -> Any:
    """Send the form of a page and follow its answer."""
    answer = await visitor.submit(page, action, **fields)
    assert answer.status_code == 303, answer.text
    return await visitor.get(answer.headers["location"])


# --- who may ---


async def test_nobody_else_learns_that_there_is_anything(live: Live, another: NewVisitor) -> None:
    visitor = another(live)
    await visitor.sign_up("alan@example.com")
    site = live.app.web.site
    assert site is not None
    paths = [
        one for one in site.routes if one.path.startswith("/admin") and "as/end" not in one.path
    ]
    assert len(paths) >= 25
    fields = await visitor.form("/account", "/account/password")
    for route in paths:
        for method in route.methods or ():
            answer = await visitor.request(method, route.path, data=fields or None)
            assert answer.status_code == 404, route.path
    assert "/admin" not in (await visitor.get("/dashboard")).text


# --- people ---


async def test_people_are_found_sorted_and_paged(live: Live, admin: Visitor) -> None:
    await add_people(live, 120)
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
    live: Live, admin: Visitor, another: NewVisitor
) -> None:
    answer = await admin.submit("/admin/people", email="new@example.com", plan="team")
    assert answer.status_code == 200
    link = answer.text.partition('id="link">')[2].partition("<")[0]
    visitor = another(live)
    path = "/reset" + link.partition("/reset")[2].replace("&amp;", "&")
    answer = await visitor.submit(path, password=PASSWORD)
    assert answer.headers["location"].startswith("/dashboard")
    again = await admin.submit("/admin/people", email="new@example.com", plan="team")
    assert again.status_code == 409
    assert (await admin.submit("/admin/people", email="x", plan="pro")).status_code == 422


async def test_a_plan_is_changed(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    page = await act(admin, path, f"{path}/plan", plan="team")
    assert "The plan is changed" in page.text
    entry = await last_entry(live)
    assert (entry.action, entry.before, entry.after) == (
        "user.plan", {"plan": "pro"}, {"plan": "team"},
    )  # fmt: skip
    assert entry.actor == await id_of(live, ADMIN)
    assert entry.address == "127.0.0.1"
    assert (await admin.submit(path, f"{path}/plan", plan="gone")).status_code == 422


@pytest.mark.parametrize(
    ("amount", "micro"),
    [("25", 25_000_000), ("$12.50", 12_500_000), ("0.000001", 1), ("-4", -4_000_000)],
)
async def test_credit_is_given(live: Live, admin: Visitor, amount: str, micro: int) -> None:
    path = PERSON.format(await id_of(live))
    await act(admin, path, f"{path}/credit", amount=amount, note="by hand")
    rows = await live.app.database.select("SELECT amount_micro, note FROM statement")
    assert [tuple(row) for row in rows] == [(micro, "by hand")]
    assert (await last_entry(live)).action == "balance.credit"


@pytest.mark.parametrize("amount", ["", "0", "x", "1.0000001", "1e6", "9999999", "٣", "--4"])
async def test_no_other_amount_is_taken(live: Live, admin: Visitor, amount: str) -> None:
    path = PERSON.format(await id_of(live))
    assert (await admin.submit(path, f"{path}/credit", amount=amount)).status_code == 422
    assert await live.app.database.select("SELECT 1 FROM statement") == []


async def test_a_suspension_has_a_reason_and_an_end(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    assert (await admin.submit(path, f"{path}/suspend", reason=" ")).status_code == 422
    page = await act(admin, path, f"{path}/suspend", reason="the card was refused")
    assert "the card was refused" in page.text
    assert await ask(live, live.key) == [403]
    assert (await last_entry(live)).action == "user.suspend"
    await act(admin, path, f"{path}/resume")
    assert await ask(live, live.key) == [200]
    own = PERSON.format(await id_of(live, ADMIN))
    assert (await admin.submit(own, f"{own}/suspend", reason="x")).status_code == 409


async def test_one_window_is_reset_and_enlarged(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    await ask(live, live.key, 3)
    page = (await admin.get(path)).text
    assert "<b>397</b>" in page
    assert "<b>1,997</b>" in page
    page = (await act(admin, path, f"{path}/reset", window="requests/18000s")).text
    assert "<b>400</b>" in page
    assert "<b>1,997</b>" in page
    assert (await last_entry(live)).action == "window.reset"
    page = (
        await act(admin, path, f"{path}/bonus", window="requests/18000s", amount="50", windows="2")
    ).text
    assert "<b>450</b>" in page
    assert (await last_entry(live)).action == "window.bonus"
    for bad in ({"amount": "x"}, {"amount": "-1"}, {"windows": "1001"}, {"window": "requests/9s"}):
        fields = {"window": "requests/18000s", "amount": "5", "windows": "1", **bad}
        assert (await admin.submit(path, f"{path}/bonus", **fields)).status_code == 422
    answer = await admin.submit(path, f"{path}/reset", window="requests/9s")
    assert answer.status_code == 422


async def test_a_key_is_revoked_at_once(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    rows = await live.app.database.select("SELECT id FROM keys")
    await act(admin, path, f"{path}/keys/{rows[0][0]}/revoke")
    assert await ask(live, live.key) == [401]
    own = PERSON.format(await id_of(live, ADMIN))  # not a key of this person
    fields = await admin.form(path, f"{path}/plan")
    answer = await admin.post(f"{own}/keys/{rows[0][0]}/revoke", data=fields)
    assert answer.status_code == 404


async def test_the_administration_is_given_and_taken(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    for wanted in (1, 0):
        await act(admin, path, f"{path}/admin")
        rows = await live.app.database.select(
            "SELECT is_admin FROM users WHERE email = ?", (EMAIL,)
        )
        assert rows[0][0] == wanted
        assert (await last_entry(live)).after == {"is_admin": bool(wanted)}
    own = PERSON.format(await id_of(live, ADMIN))
    fields = await admin.form(path, f"{path}/plan")
    assert (await admin.post(f"{own}/admin", data=fields)).status_code == 409


# --- logged in as somebody else ---


async def test_an_administrator_sees_what_a_person_sees(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    page = await act(admin, path, f"{path}/as")
    assert f"You see the pages of {EMAIL}" in page.text
    assert (await last_entry(live)).action == "user.log_in_as"
    assert "test" in (await admin.get("/dashboard/keys")).text
    assert (await admin.get("/admin/people")).status_code == 404
    back = await act(admin, "/dashboard", "/admin/as/end")
    assert back.url.path == path
    assert ADMIN in (await admin.get("/account")).text


async def test_neither_money_nor_log_ins_change_meanwhile(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    stale = await admin.form("/account", "/account/password")
    await act(admin, path, f"{path}/as")
    site = live.app.web.site
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


async def test_nobody_makes_the_cookie_themselves(live: Live, another: NewVisitor) -> None:
    visitor, admin = another(live), another(live)
    await new_admin(live, admin)
    path = PERSON.format(await id_of(live))
    await act(admin, path, f"{path}/as")
    await visitor.sign_up("alan@example.com")
    stolen = admin.cookies["relay-as"]
    visitor.cookies.set("relay-as", stolen)
    assert EMAIL not in (await visitor.get("/account")).text
    for value in (stolen[:-1] + "x", stolen.replace(".", "x"), "..", "a.b.c", ""):
        admin.cookies.delete("relay-as")
        admin.cookies.set("relay-as", value)
        assert "You see the pages" not in (await admin.get("/account")).text
    own = await id_of(live, ADMIN)
    answer = await admin.post(
        f"/admin/people/{own}/as", data=await admin.form(path, f"{path}/plan")
    )
    assert answer.status_code == 409


# --- upstreams ---


async def test_an_upstream_is_paused_and_resumed(live: Live, admin: Visitor) -> None:
    page = await act(admin, "/admin/upstreams", "/admin/upstreams/main/pause")
    assert "Paused" in page.text
    assert live.app.upstreams[0].health.paused
    entry = await last_entry(live)
    assert (entry.action, entry.subject) == ("upstream.pause", "main")
    await act(admin, "/admin/upstreams", "/admin/upstreams/main/resume")
    assert not live.app.upstreams[0].health.paused
    assert (await ask(live, live.key)) == [200]


async def test_a_test_shows_the_raw_answer(
    relay_with: RelayWith, upstream_with: UpstreamWith, another: NewVisitor
) -> None:
    secret = "upstream-credential-canary"
    text = b'{"error":{"message":"the key ' + secret.encode() + b' <b>is bad</b>"}}'
    upstream = await upstream_with(always(refusal(b"401 Unauthorized", text)))
    live = await relay_with(upstream, web=WEB, plan=PLANS, model=MODELS)
    admin = another(live)
    await new_admin(live, admin)
    answer = await admin.submit("/admin/upstreams", "/admin/upstreams/main/test")
    assert answer.status_code == 200
    assert "Does not work 401" in " ".join(answer.text.split())
    assert "&lt;b&gt;is bad" in answer.text
    assert secret not in answer.text
    assert (await last_entry(live)).action == "upstream.test"


# --- settings, backups, simulator ---


async def test_settings_are_compared_and_reloaded(
    live: Live, admin: Visitor, tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    live.app.reloading = Reloader(live.app, str(file))
    database = live.settings.database.path
    text = f'[database]\npath = "{database}"\n[pool]\nwait = "7s"\n'
    file.write_text(text)
    answer = await admin.submit("/admin/settings", "/admin/settings/check")
    assert "pool.wait: &#34;30s&#34; → &#34;7s&#34;" in answer.text or "pool.wait" in answer.text
    assert live.app.settings.pool.wait != 7
    file.write_text("[pool]\nwait = 'never'\n")
    answer = await admin.submit("/admin/settings", "/admin/settings/reload")
    assert answer.status_code == 422
    assert "pool.wait" in answer.text
    assert "settings in force stay" in answer.text


async def test_no_secret_is_on_the_page_of_settings(live: Live, admin: Visitor) -> None:
    page = (await admin.get("/admin/settings")).text
    assert "upstream[0].api_key" in page
    assert "upstream-credential-canary" not in page


async def test_a_backup_is_made_and_cannot_be_downloaded(live: Live, admin: Visitor) -> None:
    page = await act(admin, "/admin/backups", "/admin/backups")
    made = cells(page.text)
    assert len(made) == 1 + 1
    name = made[1].split()[0]
    assert (await last_entry(live)).subject == name
    for path in (f"/admin/backups/{name}", f"/static/{name}"):
        assert (await admin.get(path)).status_code == 404


async def test_the_simulator_says_what_would_happen(live: Live, admin: Visitor) -> None:
    query = f"/admin/simulator?model=sonnet&who={EMAIL}&characters=4000&output=500"
    page = (await admin.get(query)).text
    assert "Would be chosen" in page
    assert "1,5" in page  # a quarter of its octets, and the answer
    live.app.upstreams[0].health.pause()
    page = (await admin.get(query)).text
    assert "Passed over" in page
    assert "paused" in page
    assert "Unknown model" in (await admin.get("/admin/simulator?model=none")).text
    nobody = await admin.get("/admin/simulator?model=sonnet&who=nobody@x.org")
    assert "Nobody has" in nobody.text
    assert live.app.upstreams[0].requests == 0


async def test_a_simulated_request_takes_nothing(live: Live, admin: Visitor) -> None:
    before = [list(one.rows()) for one in live.app.ledger.counters()]
    for _ in range(5):
        await admin.get(f"/admin/simulator?model=sonnet&who={EMAIL}&characters=4000000")
    assert [list(one.rows()) for one in live.app.ledger.counters()] == before


# --- live requests and failures ---


async def test_a_request_in_flight_is_shown(
    relay_with: RelayWith, upstream_with: UpstreamWith, another: NewVisitor
) -> None:
    opened = asyncio.Event()

    async def answer(_: object, writer: asyncio.StreamWriter, __: Seen) -> None:
        await opened.wait()
        writer.write(OK)

    upstream = await upstream_with(answer)
    live = await relay_with(upstream, web=WEB, plan=PLANS, model=MODELS)
    admin = another(live)
    await new_admin(live, admin)
    asking = asyncio.create_task(ask(live, live.key))
    await upstream.asked.wait()
    page = (await admin.get("/admin/parts/live")).text
    assert EMAIL in page
    assert "main" in page
    assert "the only one" in page
    opened.set()
    await asking
    assert "No request is in flight" in (await admin.get("/admin/parts/live")).text


async def test_a_failure_has_the_upstreams_words(
    relay_with: RelayWith, upstream_with: UpstreamWith, another: NewVisitor
) -> None:
    text = b'{"type":"error","error":{"type":"api_error","message":"too many cooks"}}'
    upstream = await upstream_with(always(refusal(b"500 Internal Server Error", text)))
    live = await relay_with(upstream, web=WEB, plan=PLANS, model=MODELS)
    admin = another(live)
    await new_admin(live, admin)
    await ask(live, live.key)
    page = (await admin.get("/admin/failures")).text
    assert "too many cooks" in page
    assert "too many cooks" not in (await admin.get("/admin/failures?q=nothing")).text


async def test_the_overview_says_what_is_wrong(live: Live, admin: Visitor) -> None:
    assert "Nothing needs you now" in (await admin.get("/admin")).text
    await add_people(live, 1, plan="team")
    page = (await admin.get("/admin/parts/now")).text
    assert "Low balance" in page
    assert "person00000@example.org" in page


async def test_the_audit_log_is_filtered(live: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(live))
    await act(admin, path, f"{path}/plan", plan="team")
    await act(admin, path, f"{path}/credit", amount="3")
    page = (await admin.get(f"/admin/audit?action=user&subject={EMAIL}")).text
    assert len([row for row in cells(page) if "user.plan" in row]) == 1
    assert "balance.credit" not in page
    assert "No such change" in (await admin.get("/admin/audit?actor=nobody")).text
    assert hidden_fields(page, "/logout")
