"""Every field for a number, with numbers that are none, or too large, or full-width."""

import re
from typing import Any

import msgspec
import pytest

from relay.config import MailSettings
from relay.web.numbers import micro_dollars, whole_number
from tests.alerts.services import Mailbox
from tests.fakes.live import Live, RelayWith
from tests.web.administration import PERSON, act, add_people, id_of, new_admin
from tests.web.conftest import NewVisitor
from tests.web.test_wrong_input import problems
from tests.web.visitor import WEB, Visitor

NO_NUMBERS = ("-1", "1.5", "1e3", "many", "NaN", "²", "٣", "0x10", "9" * 30, "1 2")
PERIOD = {"plan": "team", "days": "30", "plan_then": "team", "do": "start"}
BONUS = {"window": "requests/604800s", "amount": "10", "windows": "1"}
CREDIT = {"kind": "credit", "amount": "5", "number": "1", "uses": "1"}
FOR_TIME = {"kind": "plan", "plan": "team", "days": "3", "plan_then": "team", "number": "1"}
SIMULATED = {"model": "claude-opus-4-8", "characters": "10", "output": "10"}
# Page, action, fields that are right, the number among them, and whether 0 is one.
FIELDS = [
    pytest.param(page, action, fields, name, zero, id=f"{action or page}-{name}")
    for page, action, fields, name, zero in (
        (PERSON, "period", PERIOD, "days", False),
        (PERSON, "bonus", BONUS, "amount", False),
        (PERSON, "bonus", BONUS, "windows", True),
        (PERSON, "credit", {"amount": "5"}, "amount", False),
        ("/admin/codes", "", CREDIT, "amount", False),
        ("/admin/codes", "", CREDIT, "number", False),
        ("/admin/codes", "", CREDIT, "uses", False),
        ("/admin/codes", "", FOR_TIME, "days", False),
        (PERSON + "/keys/{}", "rules", {"concurrency": "3"}, "concurrency", True),
        (PERSON + "/keys/{}", "rules", {"limits": "requests=3/1d"}, "limits", False),
    )
]


@pytest.mark.parametrize(("page", "action", "fields", "name", "zero"), FIELDS)
async def test_a_number_that_is_none_is_refused_in_words(
    relay: Live,
    admin: Visitor,
    page: str,
    action: str,
    fields: dict[str, str],
    name: str,
    zero: bool,
) -> None:
    path = page.format(*(await add_people(relay, 1))[0])
    target = f"{path}/{action}" if action else path
    right = fields[name]
    digits = re.search("[0-9]+", right)
    assert digits is not None

    def with_number(text: str) -> dict[str, str]:
        return {**fields, name: right.replace(digits[0], text, 1)}

    refused = [*NO_NUMBERS, *([] if zero else ["0"])]
    if name == "amount" and action != "bonus":  # dollars have decimals, and may be taken back
        refused.remove("1.5")
        if action:
            refused.remove("-1")
    if name == "limits":
        refused = [one for one in refused if " " not in one]
    for text in refused:
        answer = await admin.submit(path, target, **with_number(text))
        assert answer.status_code == 422, text
        assert len(problems(answer.text)) == 1, text
    full_width = digits[0].translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    answer = await admin.submit(path, target, **with_number(full_width))
    assert answer.status_code in (200, 303), answer.text
    if zero:
        assert (await admin.submit(path, target, **with_number("0"))).status_code == 303


@pytest.mark.parametrize("name", ["characters", "output"])
@pytest.mark.parametrize("text", [*NO_NUMBERS, "4000001"])
async def test_the_simulator_refuses_it_too(
    relay: Live, admin: Visitor, name: str, text: str
) -> None:
    answer = await admin.get("/admin/simulator", params={**SIMULATED, name: text})
    assert len(problems(answer.text)) == 1
    answer = await admin.get("/admin/simulator", params={**SIMULATED, name: "１０"})
    assert problems(answer.text) == []


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0", "②"])
def test_what_is_no_whole_number_is_none(text: str) -> None:
    assert whole_number(text, 100) is None


def test_numbers_are_read_as_people_write_them() -> None:
    assert whole_number(" ４２ ", 100) == 42
    assert whole_number("0", 100, 0) == 0
    assert whole_number("101", 100) is None
    assert micro_dollars("＄１．５") == 1_500_000
    assert micro_dollars("－２") == -2_000_000
    assert micro_dollars("0") is None


@pytest.mark.parametrize(
    ("action", "fields", "cause"),
    [
        ("credit", {"amount": "5", "note": "x" * 201}, "A note has up to 200"),
        ("credit", {"amount": "none"}, "Write an amount in dollars"),
        ("period", {**PERIOD, "days": "0"}, "from 1 to 3,660 days"),
        ("period", {**PERIOD, "plan": "gone"}, "There is no such plan"),
        ("period", {**PERIOD, "do": "extend"}, "No period runs"),
        ("bonus", {**BONUS, "amount": "0"}, "how much more"),
        ("bonus", {**BONUS, "windows": "1001"}, "for how many windows"),
        ("bonus", {**BONUS, "window": "requests/7s"}, "The plan has no such limit"),
        ("bonus", {**BONUS, "window": "soon"}, "The plan has no such limit"),
        ("suspend", {"reason": " "}, "Give a reason"),
        ("suspend", {"reason": "a\u200eb"}, "cannot be shown"),
        ("credit", {"amount": "5", "note": "a\u200eb"}, "cannot be shown"),
        ("suspend", {"reason": "x" * 201}, "A reason has up to 200"),
    ],
)
async def test_an_error_names_its_one_cause(
    relay: Live, admin: Visitor, action: str, fields: dict[str, str], cause: str
) -> None:
    path = PERSON.format((await add_people(relay, 1))[0][0])
    answer = await admin.submit(path, f"{path}/{action}", **fields)
    (problem,) = problems(answer.text)
    assert cause in problem


@pytest.mark.parametrize(
    ("page", "fields", "cause"),
    [
        ("/admin/codes", {**CREDIT, "number": "0"}, "number of codes"),
        ("/admin/codes", {**CREDIT, "uses": "0"}, "how many people"),
        ("/admin/codes", {**CREDIT, "amount": ""}, "Write the amount"),
        ("/admin/codes", {**CREDIT, "note": "x" * 201}, "A note has up to 200"),
        ("/admin/codes", {**CREDIT, "note": "a\u200eb"}, "cannot be shown"),
        ("/admin/codes", {**FOR_TIME, "days": "0"}, "Write the days"),
        ("/admin/announcements", {"kind": "notice", "text": "a\u200eb"}, "cannot be shown"),
        ("/admin/codes", {**FOR_TIME, "plan": "gone"}, "There is no such plan"),
        ("/admin/announcements", {"kind": "notice", "text": ""}, "Write the text"),
        ("/admin/announcements", {"kind": "notice", "text": "x" * 2001}, "up to 2,000"),
        ("/admin/announcements", {"kind": "incident", "text": "x"}, "needs a title"),
        ("/admin/announcements", {"kind": "notice", "text": "x", "title": "x" * 121}, "up to 120"),
        ("/admin/announcements", {"kind": "notice", "text": "x", "starts": "soon"}, "in UTC"),
        (
            "/admin/announcements",
            {"kind": "notice", "text": "x", "ends": "2020-01-01T00:00"},
            "The end is before the start",
        ),
        ("/admin/people", {"email": "nobody", "plan": "pro"}, "no e-mail address"),
        ("/admin/people", {"email": "a@example.com", "plan": "gone"}, "There is no such plan"),
    ],
)
async def test_a_form_of_the_operator_names_its_one_cause(
    relay: Live, admin: Visitor, page: str, fields: dict[str, str], cause: str
) -> None:
    answer = await admin.submit(page, **fields)
    assert answer.status_code == 422
    (problem,) = problems(answer.text)
    assert cause in problem


async def test_models_that_nothing_serves_are_named(relay: Live, admin: Visitor) -> None:
    """Saved all the same: they may come later."""
    person, key = (await add_people(relay, 1))[0]
    path = PERSON.format(person) + f"/keys/{key}"
    models = "claude-sonnet-4-8\nclaude-sonet-4-7\nclaude-opus-*\nsonnet\ngpt-*"
    page = (await act(admin, path, f"{path}/rules", models=models)).text
    assert "The rules of the key are saved." in page
    warned = re.findall(r'<p class="warning"[^>]*>(.*?)</p>', page)
    assert [re.sub("<[^>]+>", "", one) for one in warned] == [
        "No upstream serves claude-sonet-4-7 now. Names like it: claude-sonnet-4-7, "
        "claude-opus-4-8",
        "No upstream serves gpt-* now.",
    ]
    assert (
        "No upstream serves claude-sonet-4-7, gpt-* now."
        in (await admin.get(PERSON.format(person))).text
    )


async def test_a_failed_test_mail_says_nothing_of_settings(
    relay_with: RelayWith, another: NewVisitor, mailbox: Mailbox, mail: dict[str, Any]
) -> None:
    live = await relay_with(web=WEB)
    visitor = another(live)
    await new_admin(live, visitor)
    live.app.settings = msgspec.structs.replace(
        live.app.settings, mail=MailSettings(**{**mail, "smtp": mailbox.address})
    )
    mailbox.refusal = "550 no"
    answer = await visitor.submit("/admin/settings", "/admin/settings/mail/test")
    assert answer.status_code == 502
    assert "the mail server refused with 550" in answer.text
    assert "The settings in force stay" not in answer.text


async def test_a_person_without_a_key_is_not_taken_for_the_reader(
    relay: Live, admin: Visitor
) -> None:
    await relay.create_user("nobody@example.org")
    page = PERSON.format(await id_of(relay, "nobody@example.org"))
    assert "You have no key yet" not in (await admin.get(page)).text
