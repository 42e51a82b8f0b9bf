"""A form is carried out once, however often it is sent."""

import asyncio

import pytest

from relay.store import balance
from relay.store.codes import list_codes
from relay.web.sent_forms import SentForms, digest
from tests.fakes.live import Live
from tests.web.administration import PERSON, add_people
from tests.web.visitor import Visitor


async def test_credit_that_is_sent_twice_is_given_once(relay: Live, admin: Visitor) -> None:
    person = (await add_people(relay, 1))[0][0]
    page = PERSON.format(person)
    fields = {**await admin.form(page, f"{page}/credit"), "amount": "12.50", "note": "thanks"}
    action, headers = f"{page}/credit", {"referer": f"{relay.url}{page}?done=x"}
    answers = await asyncio.gather(
        *(admin.post(action, data=fields, headers=headers) for _ in range(3))
    )
    targets = sorted(answer.headers["location"] for answer in answers)
    assert targets.count(f"{page}?done=sent_before") == 2
    entries = await balance.statement(relay.app.database, person, 10)
    assert [entry.amount_micro for entry in entries] == [12_500_000]
    again = {**fields, "amount": "1"}  # the same page, another form
    assert (await admin.post(action, data=again)).status_code == 303
    assert len(await balance.statement(relay.app.database, person, 10)) == 2


async def test_a_refused_form_may_be_sent_again(relay: Live, admin: Visitor) -> None:
    page = PERSON.format((await add_people(relay, 1))[0][0])
    fields = {**await admin.form(page, f"{page}/credit"), "amount": "much", "note": ""}
    for _ in range(2):
        assert (await admin.post(f"{page}/credit", data=fields)).status_code == 422


async def test_a_reloaded_batch_of_codes_is_no_second(relay: Live, admin: Visitor) -> None:
    fields = await admin.form("/admin/codes", "/admin/codes")
    fields |= {"kind": "credit", "number": "2", "uses": "1", "amount": "1", "lifetime": ""}
    assert (await admin.post("/admin/codes", data=fields)).status_code == 200
    assert (await admin.post("/admin/codes", data=fields)).status_code == 303
    assert len(await list_codes(relay.app.database, None, 10, "")) == 2


async def test_a_reloaded_key_is_no_second(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    fields = {**await visitor.form("/dashboard/keys"), "name": "laptop", "lifetime": ""}
    assert (await visitor.post("/dashboard/keys", data=fields)).status_code == 200
    again = await visitor.post("/dashboard/keys", data=fields)
    assert again.headers["location"] == "/dashboard?done=sent_before"
    rows = await site.app.database.select("SELECT name FROM keys WHERE name = 'laptop'")
    assert rows == [("laptop",)]
    assert "It counts once" in (await visitor.get("/dashboard?done=sent_before")).text


@pytest.mark.parametrize(
    "referer", ["http://relay//evil.example/x", "evil", "https://evil.example"]
)
async def test_no_referer_leads_elsewhere(site: Live, visitor: Visitor, referer: str) -> None:
    await visitor.sign_up()
    fields = {**await visitor.form("/dashboard/keys"), "name": "laptop", "lifetime": ""}
    await visitor.post("/dashboard/keys", data=fields)
    again = await visitor.post("/dashboard/keys", data=fields, headers={"referer": referer})
    assert again.headers["location"] == "/dashboard?done=sent_before"


def test_sent_forms_are_bounded() -> None:
    sent = SentForms()
    for number in range(60):
        assert sent.claim("ada", digest("/x", {"once": str(number)}))
    assert not sent.claim("ada", digest("/x", {"once": "59"}))
    assert sent.claim("ada", digest("/x", {"once": "0"}))  # forgotten
    for number in range(2_000):
        sent.claim(f"person-{number}", b"form")
    assert sent.claim("ada", digest("/x", {"once": "59"}))


def test_fields_cannot_be_shifted_between_forms() -> None:
    assert digest("/x", {"a": "bc"}) != digest("/x", {"ab": "c"})
    assert digest("/x", {"a": "b"}) == digest("/x", {"a": "b"})
