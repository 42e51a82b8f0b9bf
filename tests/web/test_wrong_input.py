"""Wrong input: each form says what is wrong, keeps what was typed, and changes nothing."""

import re
from html import unescape

import pytest

from relay.store.announcements import list_all
from relay.store.codes import list_codes
from tests.fakes.live import Live
from tests.web.administration import PERSON, add_people
from tests.web.conftest import NewVisitor
from tests.web.visitor import Visitor


def problems(html: str) -> list[str]:
    """The errors of a page."""
    return [unescape(one) for one in re.findall(r'<p class="problem"[^>]*>([^<]+)</p>', html)]


def typed(html: str, action: str) -> dict[str, str]:
    """What the form with this action shows in its fields."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', html, re.DOTALL)
    assert found is not None
    values: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", found[0]):
        name, value = (re.search(rf' {one}="([^"]*)"', tag) for one in ("name", "value"))
        if name is not None and 'type="hidden"' not in tag:
            values[name[1]] = unescape(value[1]) if value is not None else ""
    for name, options in re.findall(r'<select name="(\w+)">(.*?)</select>', found[0], re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected>', options)
        values[name] = chosen[1] if chosen else ""
    return values


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("credit", {"amount": "12,5", "note": "thanks <3"}),
        ("suspend", {"reason": "y" * 201}),
        ("period", {"plan": "team", "days": "0", "plan_then": "team"}),
        ("bonus", {"window": "requests/604800s", "amount": "many", "windows": "3"}),
    ],
)
async def test_a_refused_change_of_a_person_is_kept(
    relay: Live, admin: Visitor, action: str, fields: dict[str, str]
) -> None:
    page = PERSON.format((await add_people(relay, 1))[0][0])
    answer = await admin.submit(page, f"{page}/{action}", **fields)
    assert answer.status_code == 422
    assert len(problems(answer.text)) == 1
    assert typed(answer.text, f"{page}/{action}") == fields
    others = {"credit", "suspend", "period", "bonus"} - {action}
    fresh = (await admin.get(page)).text
    for other in others:  # fields of the same name in other forms are untouched
        form = f"{page}/{other}"
        assert typed(answer.text, form) == typed(fresh, form)


async def test_refused_codes_are_kept_in_their_form(relay: Live, admin: Visitor) -> None:
    fields = {"plan": "team", "days": "0", "plan_then": "team", "number": "7", "uses": "9"}
    fields |= {"lifetime": "90d", "note": "spring"}
    answer = await admin.submit("/admin/codes", kind="plan", **fields)
    assert answer.status_code == 422
    forms = re.findall(r'<form class="card".*?</form>', answer.text, re.DOTALL)
    shown = [typed(form, "/admin/codes") for form in forms]
    assert shown[1] == fields
    assert shown[0]["number"] == shown[2]["number"] == "1"


@pytest.mark.parametrize(
    "fields",
    [{"starts": "soon"}, {"starts": "2026-13-01T00:00"}, {"ends": "never"}],
)
async def test_a_moment_that_is_none_announces_nothing(
    relay: Live, admin: Visitor, fields: dict[str, str]
) -> None:
    answer = await admin.submit("/admin/announcements", text="Down", kind="notice", **fields)
    assert answer.status_code == 422
    assert len(problems(answer.text)) == 1
    assert ">Down</textarea>" in answer.text
    assert await list_all(relay.app.database) == []


async def test_a_choice_that_is_not_offered_does_nothing(relay: Live, admin: Visitor) -> None:
    sent = [
        ("/dashboard/keys", {"name": "laptop", "lifetime": "5y"}),
        ("/admin/codes", {"kind": "gold", "number": "1"}),
        ("/admin/codes", {"kind": "credit", "amount": "5", "number": "1", "lifetime": "5y"}),
        ("/admin/announcements", {"kind": "party", "text": "Hello"}),
    ]
    for page, fields in sent:
        answer = await admin.submit(page, **fields)
        assert answer.status_code == 422, page
        assert "Go back" in answer.text
    assert await list_all(relay.app.database) == []
    assert await list_codes(relay.app.database, None, 10, "") == []
    assert "You have no key yet" in (await admin.get("/dashboard/keys")).text


async def test_a_refused_key_keeps_its_name_and_end(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    answer = await visitor.submit("/dashboard/keys", name="n" * 101, lifetime="90d")
    assert answer.status_code == 422
    shown = typed(answer.text, "/dashboard/keys")
    assert shown == {"name": "n" * 101, "lifetime": "90d"}


async def test_wrong_rules_are_answered_in_the_language(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key()
    found = re.search(r"/dashboard/keys/key_\w+", (await visitor.get("/dashboard/keys")).text)
    assert found is not None
    visitor.headers["accept-language"] = "zh"
    answer = await visitor.submit(found[0], f"{found[0]}/rules", concurrency="many")
    assert re.search("[a-z]", problems(answer.text)[0]) is None
    answer = await visitor.submit(found[0], f"{found[0]}/rules", models="x" * 5000)
    assert len(problems(answer.text)[0]) < 400


async def test_a_key_page_names_the_key_before(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key()
    found = re.search(r"/dashboard/keys/key_\w+", (await visitor.get("/dashboard/keys")).text)
    assert found is not None
    warning = "The key before this one works until"
    assert warning not in (await visitor.get(found[0])).text
    await visitor.submit(found[0], f"{found[0]}/rotate", grace="24h")
    assert warning in (await visitor.get(found[0])).text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=2026-04-08&to=2026-04-01", "The first day is after the last one."),
        ("from=2026-04-99&to=2026-04-01", "2026-04-99 is no day."),
        ("to=2026-04-01", "The first day is missing."),
        ("range=century", "There is no such range."),
        ("from=2026-04-01&to=2026-04-08", ""),
        ("range=7d&from=2026-04-08&to=", ""),
        ("from=2026-04-01", ""),
        ("", ""),
    ],
)
async def test_a_range_that_is_none_is_named(
    site: Live, visitor: Visitor, query: str, says: str
) -> None:
    await visitor.sign_up()
    found = problems((await visitor.get(f"/dashboard/usage?{query}")).text)
    assert [one[: len(says)] for one in found] == ([says] if says else [])


async def test_the_simulator_names_a_wrong_number(relay: Live, admin: Visitor) -> None:
    for name, text in (("characters", "many"), ("characters", "4000001"), ("output", "-1")):
        query = {"model": "claude-opus-4-8", "characters": "10", "output": "10", name: text}
        answer = await admin.get("/admin/simulator", params=query)
        assert len(problems(answer.text)) == 1
        assert typed(answer.text, "/admin/simulator")[name] == text
        assert "Where it would go" not in answer.text


async def test_a_form_after_the_session_leads_back(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    stranger = another(site)
    headers = {"referer": f"{site.url}/dashboard/balance?x=1", "origin": site.url}
    answer = await stranger.post("/dashboard/balance/redeem", data={"code": "A"}, headers=headers)
    assert answer.status_code == 303
    shown = await stranger.get(answer.headers["location"])
    assert "Log in, and send the form again." in shown.text
    fields = {"email": "grace@example.com", "password": "correct horse 42 battery"}
    answer = await stranger.submit(answer.headers["location"], "/login", **fields)
    assert answer.headers["location"] == "/dashboard/balance?x=1"
    assert (await stranger.get("/dashboard/balance?x=1")).status_code == 200
