"""The administrators' pages by their forms: who may, what each shows and changes."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from relay import config
from relay.accounts.second_step import SecondStep
from relay.reload import Reloader
from relay.store import factors
from relay.store.users import find_user
from relay.web.admin.audit_log import word_key
from relay.web.languages import read_texts
from relay.web.security import LANGUAGE_COOKIE
from tests.alerts.services import Mailbox
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.upstream import OK, Seen, UpstreamWith, always
from tests.gateway.metering import settled
from tests.web.administration import (
    ADMIN,
    MODELS,
    PERSON,
    PLANS,
    act,
    add_people,
    id_of,
    last_entry,
    new_admin,
)
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor, ask, cells, hidden_fields


def refusal(status: bytes, body: bytes) -> bytes:
    """The octets of an upstream's error."""
    fields = b"content-type: application/json\r\ncontent-length: %d" % len(body)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, fields, body)


# --- who may ---


async def test_nobody_else_learns_that_there_is_anything(relay: Live, another: NewVisitor) -> None:
    visitor = another(relay)
    await visitor.sign_up("alan@example.com")
    site = relay.app.web.site
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


# --- upstreams ---


async def test_an_upstream_is_paused_and_resumed(relay: Live, admin: Visitor) -> None:
    page = await act(admin, "/admin/upstreams", "/admin/upstreams/main/pause")
    assert "Paused" in page.text
    assert relay.app.upstreams[0].health.paused
    entry = await last_entry(relay)
    assert (entry.action, entry.subject) == ("upstream.pause", "main")
    await act(admin, "/admin/upstreams", "/admin/upstreams/main/resume")
    assert not relay.app.upstreams[0].health.paused
    assert (await ask(relay, relay.key)) == [200]


async def test_cost_and_cap_of_an_upstream_are_shown(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    caps = {"cost_cap": {"day": 2.5}}
    live = await relay_with(upstream_options=caps, web=WEB, plan=PLANS, model=MODELS)
    admin = another(live)
    await new_admin(live, admin)
    assert "$0.00 / $2.50" in (await admin.get("/admin/parts/upstreams")).text
    await ask(live, live.key)
    cost = live.app.upstreams[0].spending.day
    assert cost > 0
    assert f"${cost / 1e6:.6f}".rstrip("0") in (await admin.get("/admin/parts/upstreams")).text


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
    relay: Live, admin: Visitor, tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    relay.app.reloading = Reloader(relay.app, str(file))
    database = relay.settings.database.path
    text = f'[database]\npath = "{database}"\n[pool]\nwait = "7s"\n'
    file.write_text(text)
    answer = await admin.submit("/admin/settings", "/admin/settings/check")
    assert "pool.wait: &#34;30s&#34; → &#34;7s&#34;" in answer.text or "pool.wait" in answer.text
    assert relay.app.settings.pool.wait != 7
    file.write_text("[pool]\nwait = 'never'\n")
    answer = await admin.submit("/admin/settings", "/admin/settings/reload")
    assert answer.status_code == 422
    assert "pool.wait" in answer.text
    assert "settings in force stay" in answer.text


async def test_no_secret_is_on_the_page_of_settings(relay: Live, admin: Visitor) -> None:
    page = (await admin.get("/admin/settings")).text
    assert "upstream[0].api_key" in page
    assert "upstream-credential-canary" not in page


async def test_a_backup_is_made_and_cannot_be_downloaded(relay: Live, admin: Visitor) -> None:
    page = await act(admin, "/admin/backups", "/admin/backups")
    made = cells(page.text)
    assert len(made) == 1 + 1
    name = made[1].split()[0]
    assert (await last_entry(relay)).subject == name
    for path in (f"/admin/backups/{name}", f"/static/{name}"):
        assert (await admin.get(path)).status_code == 404


async def test_the_simulator_says_what_would_happen(relay: Live, admin: Visitor) -> None:
    query = f"/admin/simulator?model=sonnet&who={EMAIL}&characters=4000&output=500"
    page = (await admin.get(query)).text
    assert "Would be chosen" in page
    assert "1,5" in page  # a quarter of its octets, and the answer
    relay.app.upstreams[0].health.pause()
    page = (await admin.get(query)).text
    assert "Passed over" in page
    assert "paused" in page
    assert "Unknown model" in (await admin.get("/admin/simulator?model=none")).text
    nobody = await admin.get("/admin/simulator?model=sonnet&who=nobody@x.org")
    assert "Nobody has" in nobody.text
    assert relay.app.upstreams[0].requests == 0


async def test_the_simulator_takes_names_that_patterns_match(relay: Live, admin: Visitor) -> None:
    for name in ("claude-sonnet-9", "claude-sonnet-9[1m]", "sonnet[1M]"):
        page = (await admin.get(f"/admin/simulator?model={quote(name)}")).text
        assert "Would be chosen" in page
        assert '<span class="muted">claude-sonnet-4-7</span>' in page
    assert '<option value="sonnet">' in page
    assert '<option value="claude-sonnet-*">' not in page  # is no name to ask for
    assert "sonnet, claude-sonnet-*" in (await admin.get("/admin/models")).text


async def test_a_simulated_request_takes_nothing(relay: Live, admin: Visitor) -> None:
    before = [list(one.rows()) for one in relay.app.ledger.counters()]
    for _ in range(5):
        await admin.get(f"/admin/simulator?model=sonnet&who={EMAIL}&characters=4000000")
    assert [list(one.rows()) for one in relay.app.ledger.counters()] == before


# --- relay requests and failures ---


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


async def test_an_id_leads_to_the_explanation(relay: Live, admin: Visitor) -> None:
    assert (await ask(relay, relay.key)) == [200]
    await settled(relay, 1)
    page = (await admin.get("/admin/failures")).text
    [link] = re.findall(r'href="(/admin/explain/req_[0-9a-f]{32})"', page)
    answer = await admin.get(link)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Rule: reported" in answer.text
    assert "Not kept" in answer.text
    unknown = await admin.get("/admin/explain/req_" + "0" * 32)
    assert unknown.status_code == 404
    assert "not in the database" in unknown.text


async def test_the_overview_says_what_is_wrong(relay: Live, admin: Visitor) -> None:
    assert "Nothing needs you now" in (await admin.get("/admin")).text
    await add_people(relay, 1, plan="team")
    page = (await admin.get("/admin/parts/now")).text
    assert "Low balance" in page
    assert "person00000@example.org" in page


async def test_the_audit_log_is_filtered(relay: Live, admin: Visitor) -> None:
    path = PERSON.format(await id_of(relay))
    await act(admin, path, f"{path}/plan", plan="team")
    await act(admin, path, f"{path}/credit", amount="3")
    page = (await admin.get(f"/admin/audit?action=user&subject={EMAIL}")).text
    assert len([row for row in cells(page) if "user.plan" in row]) == 1
    assert "balance.credit" not in page
    assert "No such change" in (await admin.get("/admin/audit?actor=nobody")).text
    assert hidden_fields(page, "/logout")


async def test_codes_are_made_shown_once_and_withdrawn(relay: Live, admin: Visitor) -> None:
    answer = await admin.submit(
        "/admin/codes",
        kind="credit",
        amount="5",
        number="3",
        uses="1",
        note="fair",
        **{"as": "csv"},
    )
    assert answer.headers["content-type"].startswith("text/csv")
    lines = answer.text.split()
    assert len(lines) == 1 + 3
    code = lines[1].partition(",")[0]
    shown = await admin.submit("/admin/codes", kind="invite", number="1", uses="2")
    assert "New codes: 1" in shown.text
    page = (await admin.get("/admin/codes")).text
    assert code not in page
    assert len(cells(page)) == 1 + 4
    batch = re.search(r"batch=(batch_\w+)\">batch_\w+</a> · fair", page)
    assert batch is not None
    page = await act(admin, f"/admin/codes?batch={batch[1]}", f"/admin/codes/{batch[1]}/revoke")
    assert page.text.count("Withdrawn") == 3
    assert (await last_entry(relay)).action == "code.revoke"
    for bad in ({"number": "0"}, {"number": "10001"}, {"amount": "x"}):
        fields = {"kind": "credit", "amount": "5", "number": "1", "uses": "1", **bad}
        assert (await admin.submit("/admin/codes", **fields)).status_code == 422


async def test_an_announcement_is_on_every_page(
    relay: Live, admin: Visitor, another: NewVisitor
) -> None:
    texts = {"text": "Down at noon <b>", "text_zh": "中午维护", "kind": "maintenance"}
    await act(admin, "/admin/announcements", "/admin/announcements", **texts)
    visitor = another(relay)
    for path in ("/login", "/signup", "/nothing"):
        assert "Down at noon &lt;b&gt;" in (await visitor.get(path)).text
        assert "中午维护" in (await visitor.get(path, headers={"accept-language": "zh"})).text
    page = (await admin.get("/admin/announcements")).text
    name = re.search(r"/admin/announcements/(ann_\w+)/remove", page)
    assert name is not None
    await act(admin, "/admin/announcements", f"/admin/announcements/{name[1]}/remove")
    assert "Down at noon" not in (await visitor.get("/login")).text
    ended = {"text": "x", "starts": "2026-01-02T00:00", "ends": "2026-01-01T00:00"}
    assert (await admin.submit("/admin/announcements", **ended)).status_code == 422


async def test_changes_of_log_ins_are_audited_in_words(admin: Visitor, relay: Live) -> None:
    user = await find_user(relay.app.database, ADMIN)
    assert user is not None
    second_step = SecondStep(relay.app.database)
    await second_step.new_recovery_codes(user, 1000.0, "192.0.2.1")
    page = (await admin.get("/admin/audit?action=factor")).text
    assert "Recovery codes renewed" in page
    assert "192.0.2.1" in page
    admin.cookies.set(LANGUAGE_COOKIE, "zh")
    assert "已更换恢复代码" in (await admin.get("/admin/audit?action=factor")).text


async def test_every_change_of_log_ins_has_its_words() -> None:
    folder = Path(factors.__file__).parent
    names = ("factors.py", "passkeys.py", "identities.py")
    source = "".join((folder / name).read_text() for name in names)
    actions = re.findall(r'Change\("([a-z_.]+)"', source)
    assert len(actions) == 9
    for action in actions:
        assert f"admin_change.{word_key(action)}" in read_texts()["zh"]


async def test_an_administrator_gets_a_test_mail(
    relay: Live, admin: Visitor, mail: dict[str, Any], mailbox: Mailbox
) -> None:
    page, action = "/admin/settings", "/admin/settings/mail/test"
    token = await admin.form("/admin/people", "/admin/people")
    assert (await admin.post(action, data=token)).status_code == 404
    relay.app.settings = msgspec.structs.replace(
        relay.app.settings, mail=config.MailSettings(**mail)
    )
    answer = await admin.submit(page, action)
    assert "took the test message" in answer.text
    assert f"To: {ADMIN}".encode() in mailbox.messages[0]
    assert (await last_entry(relay)).action == "mail.test"
    mailbox.refusal = "550 not you"
    answer = await admin.submit(page, action)
    assert answer.status_code == 502
    assert "refused with 550" in answer.text
