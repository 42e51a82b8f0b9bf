"""The second step of a log-in: codes of an app, recovery codes, and what an attacker can try."""

import re
import time
from typing import Any

import pyotp
import pytest

from relay.accounts.ceremonies import Ceremonies
from relay.accounts.log_in import TooOftenError
from relay.accounts.sealing import Sealing, UnsealableError
from relay.accounts.second_step import SecondStep, WrongCodeError
from relay.store.users import User, find_user
from tests.fakes.live import Live
from tests.web.visitor import PASSWORD, Visitor, audited, hidden_fields

EMAIL = "grace@example.com"
WAYS = "/account/log-in"


async def person(live: Live) -> User:
    found = await find_user(live.app.database, EMAIL)
    assert found is not None
    return found


async def turn_on(visitor: Visitor) -> tuple[pyotp.TOTP, list[str]]:
    """An app of the account that is logged in, and its recovery codes."""
    answer = await visitor.submit(WAYS, "/account/app", present=PASSWORD)
    assert answer.headers["location"] == "/account/app"
    page = await visitor.get("/account/app")
    found = re.search(r'<code id="secret">([A-Z2-7 ]+)</code>', page.text)
    assert found is not None
    app = pyotp.TOTP(found[1].replace(" ", ""))
    fields = hidden_fields(page.text, "/account/app/confirm")
    shown = await visitor.post("/account/app/confirm", data={**fields, "code": app.now()})
    assert shown.status_code == 200, shown.text
    codes = re.findall(r"\b(?:[a-z2-9]{4}-){3}[a-z2-9]{4}\b", shown.text)
    return app, codes


def next_code(app: pyotp.TOTP) -> str:
    """A code that was not used yet: of the next step, by which a clock may be ahead."""
    return app.at(time.time() + 30)


async def send_code(visitor: Visitor, code: str) -> Any:
    return await visitor.submit("/login/code", code=code)


async def test_a_code_is_asked_after_the_password(visitor: Visitor) -> None:
    await visitor.sign_up()
    app, codes = await turn_on(visitor)
    assert len(set(codes)) == 10
    visitor.cookies.clear()
    answer = await visitor.log_in()
    assert answer.headers["location"] == "/login/code"
    assert (await visitor.get("/dashboard")).status_code == 303  # not in yet
    assert (await send_code(visitor, "000000")).status_code == 401
    answer = await send_code(visitor, next_code(app))
    assert answer.headers["location"] == "/dashboard"
    assert (await visitor.get("/dashboard")).status_code == 200
    assert "login-step" not in visitor.cookies


async def test_the_app_page_has_a_picture_and_no_style(visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.submit(WAYS, "/account/app", present=PASSWORD)
    page = await visitor.get("/account/app")
    assert "<svg" in page.text
    assert "style=" not in page.text
    assert "otpauth://totp/Relay:grace%40example.com?secret=" in page.text


async def test_turning_it_on_needs_the_password_and_a_code(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    wrong = await visitor.submit(WAYS, "/account/app", present="wrong password")
    assert wrong.status_code == 422
    await visitor.submit(WAYS, "/account/app", present=PASSWORD)
    wrong = await visitor.submit("/account/app", "/account/app/confirm", code="123456")
    assert wrong.status_code == 422
    assert not await SecondStep(site.app.database).is_asked((await person(site)).id)


async def test_other_sessions_end_when_it_is_turned_on(
    visitor: Visitor, site: Live, another: Any
) -> None:
    await visitor.sign_up()
    other = another(site)
    await other.log_in()
    assert (await other.get("/dashboard")).status_code == 200
    await turn_on(visitor)
    assert (await other.get("/dashboard")).status_code == 303
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_a_code_is_accepted_once(visitor: Visitor) -> None:
    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    used = next_code(app)
    for expected in (303, 401):
        visitor.cookies.clear()
        await visitor.log_in()
        assert (await send_code(visitor, used)).status_code == expected


async def test_a_recovery_code_is_accepted_once(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    _, codes = await turn_on(visitor)
    for code, expected in ((codes[3].upper().replace("-", " "), 303), (codes[3], 401)):
        visitor.cookies.clear()
        await visitor.log_in()
        assert (await send_code(visitor, code)).status_code == expected
    rows = await site.app.database.select("SELECT digest FROM recovery_code")
    assert len(rows) == 9
    assert not any(codes[0].replace("-", "").encode() in row[0] for row in rows)


async def test_a_log_in_has_five_tries(visitor: Visitor) -> None:
    await visitor.sign_up()
    await turn_on(visitor)
    visitor.cookies.clear()
    await visitor.log_in()
    fields = await visitor.form("/login/code")
    statuses = [
        (await visitor.post("/login/code", data={**fields, "code": f"{n:06}"})).status_code
        for n in range(6)
    ]
    assert statuses[:5] == [401] * 5
    assert statuses[5] == 303  # back to the password
    await visitor.log_in()
    answer = await send_code(visitor, "000000")
    assert answer.status_code == 429  # for the account, too
    assert int(answer.headers["retry-after"]) > 0


async def test_a_new_password_by_link_asks_for_a_code(visitor: Visitor, site: Live) -> None:
    from relay.accounts.sign_up import new_link

    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    visitor.cookies.clear()
    user = await person(site)
    token = await new_link(site.app.database, "reset", time.time(), user=user)
    answer = await visitor.submit(f"/reset?t={token}", "/reset", password=PASSWORD + "!")
    assert answer.headers["location"] == "/login/code"
    answer = await send_code(visitor, next_code(app))
    assert answer.headers["location"] == "/dashboard?done=password_changed"


async def test_a_new_password_ends_log_ins_by_the_earlier_one(
    visitor: Visitor, site: Live, another: Any
) -> None:
    await visitor.sign_up()
    await turn_on(visitor)
    thief = another(site)
    await thief.log_in()
    assert (await thief.get("/login/code")).status_code == 200
    fields = {"present": PASSWORD, "password": PASSWORD + "!"}
    assert (await visitor.submit("/account", "/account/password", **fields)).status_code == 303
    assert (await thief.get("/login/code")).status_code == 303


async def test_turning_it_off_needs_password_and_code(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    _, codes = await turn_on(visitor)
    fields = await visitor.form(WAYS, "/account/recovery-codes")
    for present, code in (("wrong password", codes[0]), (PASSWORD, "000000")):
        data = {**fields, "present": present, "code": code}
        answer = await visitor.post("/account/app/remove", data=data)
        assert answer.status_code == 422
    data = {**fields, "present": PASSWORD, "code": codes[0]}
    renewed = await visitor.post("/account/recovery-codes", data=data)
    fresh = re.findall(r"\b(?:[a-z2-9]{4}-){3}[a-z2-9]{4}\b", renewed.text)
    assert len(fresh) == 10
    answer = await visitor.post("/account/app/remove", data={**data, "code": codes[1]})
    assert answer.status_code == 422  # of the earlier codes
    answer = await visitor.post("/account/app/remove", data={**data, "code": fresh[0]})
    assert answer.headers["location"] == f"{WAYS}?done=app_removed"
    for table in ("totp", "recovery_code"):
        assert await site.app.database.select(f"SELECT * FROM {table}") == []
    assert await audited(site, "factor.") == [
        "factor.app_on", "factor.code_used", "factor.codes_renewed", "factor.code_used",
        "factor.app_off",
    ]  # fmt: skip
    visitor.cookies.clear()
    assert (await visitor.log_in()).headers["location"] == "/dashboard"


async def test_the_secret_is_sealed_and_bound_to_its_account(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    user = await person(site)
    [[sealed]] = await site.app.database.select("SELECT sealed FROM totp")
    assert app.secret.encode() not in sealed
    sealing = Sealing(site.app.database)
    assert await sealing.open(sealed, user.id) == app.secret.encode()
    for octets, owner in ((sealed, "usr_0"), (sealed[:-1], user.id), (b"", user.id)):
        with pytest.raises(UnsealableError):
            await sealing.open(octets, owner)


@pytest.mark.parametrize(("steps", "is_right"), [(-2, 0), (-1, 1), (0, 1), (1, 1), (2, 0)])
async def test_a_clock_may_be_one_step_off(
    visitor: Visitor, site: Live, steps: int, is_right: int
) -> None:
    await visitor.sign_up()
    user = await person(site)
    second_step = SecondStep(site.app.database)
    assert await second_step.begin(user)
    enrolment = await second_step.enrolment(user, "Relay")
    assert enrolment is not None
    app, now = pyotp.TOTP(enrolment.secret), 1_000_000_000.0
    await second_step.confirm(user, app.at(int(now)), now)
    now += 300
    code = app.at(int(now) + steps * 30)
    if is_right:
        await second_step.check(user.id, code, now)
    with pytest.raises(WrongCodeError):  # for a second time, if not at all
        await second_step.check(user.id, code, now)


async def test_an_earlier_code_is_refused_after_a_later_one(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    user_id, second_step = (await person(site)).id, SecondStep(site.app.database)
    now = time.time() + 600
    await second_step.check(user_id, app.at(int(now)), now)
    with pytest.raises(WrongCodeError):
        await second_step.check(user_id, app.at(int(now) - 30), now)


async def test_codes_are_throttled_by_the_hour(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    await turn_on(visitor)
    user_id, second_step = (await person(site)).id, SecondStep(site.app.database)
    tries, now = 0, 1_000_000_000.0
    while now < 1_000_003_600:
        try:
            await second_step.check(user_id, "12 34 5x", now)
        except WrongCodeError:
            tries += 1
        except TooOftenError as error:
            now += error.seconds
    assert tries <= 40  # twenty at once, twenty an hour


async def test_an_export_says_what_is_on(visitor: Visitor) -> None:
    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    answer = await visitor.get("/account/export.json")
    ways = answer.json()["ways_to_log_in"]
    assert ways["authenticator_app_since"] > 0
    assert ways["recovery_codes_left"] == 10
    assert app.secret not in answer.text


async def test_the_account_page_shows_what_is_on(visitor: Visitor) -> None:
    await visitor.sign_up()
    assert "Not in use" in (await visitor.get("/account")).text
    await turn_on(visitor)
    assert "Recovery codes left: 10" in (await visitor.get("/account")).text


async def test_deleting_the_account_deletes_its_factors(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    await turn_on(visitor)
    answer = await visitor.submit("/account", "/account/delete", present=PASSWORD)
    assert answer.headers["location"] == "/login?done=account_deleted"
    for table in ("totp", "recovery_code", "passkey", "identity"):
        assert await site.app.database.select(f"SELECT * FROM {table}") == []


def test_what_is_under_way_is_bounded_and_ends() -> None:
    under_way: Ceremonies[int] = Ceremonies()
    tokens = [under_way.start("a", number, 0.0) for number in range(11)]
    assert under_way.find(tokens[0], 1.0) is None  # ten of one name
    assert under_way.find(tokens[10], 1.0) == 10
    assert under_way.take(tokens[10], 1.0) == 10
    assert under_way.take(tokens[10], 1.0) is None
    assert under_way.find(tokens[9], 300.0) is None
    assert under_way.find("x" * 100, 1.0) is None
    for number in range(6_000):
        under_way.start(str(number), number, 1.0)
    assert len(under_way) == 5_000
    under_way.start("a", 1, 400.0)
    assert len(under_way) == 1
    under_way.drop("a")
    assert len(under_way) == 0


async def test_a_code_may_be_typed_in_full_width(visitor: Visitor) -> None:
    await visitor.sign_up()
    app, codes = await turn_on(visitor)
    for code in (next_code(app), codes[0]):
        visitor.cookies.clear()
        await visitor.log_in()
        wide = "".join(chr(ord(one) + 0xFEE0) for one in code)
        assert (await send_code(visitor, wide)).headers["location"] == "/dashboard"


async def test_a_code_that_was_used_is_named(visitor: Visitor) -> None:
    await visitor.sign_up()
    app, _ = await turn_on(visitor)
    visitor.cookies.clear()
    await visitor.log_in()
    code = next_code(app)
    assert "wrong or too old" in (await send_code(visitor, "000000")).text
    await send_code(visitor, code)
    visitor.cookies.clear()
    await visitor.log_in()
    assert "was used before" in (await send_code(visitor, code)).text
