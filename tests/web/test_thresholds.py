"""The page where a person chooses thresholds."""

import time
from typing import Any

import pytest

from relay.accounts import users
from relay.accounts.passwords import Passwords
from relay.store import thresholds
from relay.store.sessions import set_password
from tests.fakes.live import Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, WEB, Visitor


@pytest.fixture
async def person(relay_with: RelayWith, another: NewVisitor, mail: dict[str, Any]) -> Visitor:
    live = await relay_with(web=WEB, mail=mail)
    visitor = another(live)
    user = await users.create(
        live.app.database, live.settings, "grace@example.com", plan=None, is_admin=False,
        now=time.time(),
    )  # fmt: skip
    password_hash = await Passwords().hash(PASSWORD)
    await set_password(live.app.database, user.id, password_hash, time.time())
    assert (await visitor.log_in()).is_redirect
    return visitor


async def chosen(visitor: Visitor) -> thresholds.Choice | None:
    database = visitor.live.app.database
    [[user_id]] = await database.select("SELECT id FROM users WHERE email = 'grace@example.com'")
    return await thresholds.choice_of(database, user_id)


@pytest.mark.parametrize("text", ["80, 50,95 %", "50 80 95", "50%; 80%; 95%", "95，80，50"])
async def test_thresholds_are_kept_in_order(person: Visitor, text: str) -> None:
    answer = await person.submit("/account/thresholds", shares=text, balance="5")
    assert answer.headers["location"] == "/account?done=thresholds"
    assert await chosen(person) == thresholds.Choice([50, 80, 95], 5_000_000, "en")
    page = (await person.get("/account")).text
    assert "at 50, 80, 95 %" in page
    assert "below $5.00" in page
    assert 'value="50, 80, 95"' in (await person.get("/account/thresholds")).text


async def test_without_any_there_is_no_mail(person: Visitor) -> None:
    await person.submit("/account/thresholds", shares="50", balance="")
    await person.submit("/account/thresholds", shares="", balance="")
    assert await chosen(person) is None


@pytest.mark.parametrize(
    ("shares", "balance"),
    [
        ("0", ""),
        ("101", ""),
        ("1,2,3,4,5,6", ""),
        ("x", ""),
        ("50.5", ""),
        ("50", "-1"),
        ("50", "x"),
    ],
)
async def test_what_is_no_threshold_is_refused(person: Visitor, shares: str, balance: str) -> None:
    answer = await person.submit("/account/thresholds", shares=shares, balance=balance)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert await chosen(person) is None


async def test_a_relay_without_mail_says_so(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    for path in ("/account", "/account/thresholds"):
        assert "This relay sends no mail" in (await visitor.get(path)).text
    token = await visitor.form("/account", "/account/password")
    answer = await visitor.post("/account/thresholds", data={**token, "shares": "50"})
    assert answer.status_code == 404
