"""Passkeys: made and used by a device in Python, with everything that an attacker may change."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from relay import config
from relay.accounts.passkeys import (
    Answer,
    Passkeys,
    RelyingParty,
    WrongPasskeyError,
    relying_party,
)
from relay.store.users import find_user
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.web.authenticator import Authenticator
from tests.web.conftest import NewVisitor
from tests.web.test_second_step import turn_on
from tests.web.visitor import PASSWORD, WEB, Visitor, audited, hidden_fields

ORIGIN = "http://localhost:8080"
WAYS = "/account/log-in"
PARTY = RelyingParty("localhost", ORIGIN, "Relay")


@pytest.fixture
async def site(relay_with: RelayWith) -> Live:
    """A relay whose address has a name."""
    return await relay_with(web=WEB, server={"public_url": ORIGIN})


@pytest.fixture
async def device(visitor: Visitor) -> Authenticator:
    """A device with a passkey of a new account, whose browser is logged out."""
    await visitor.sign_up()
    device = Authenticator(ORIGIN)
    answer = await make(visitor, device)
    assert answer.headers["location"] == f"{WAYS}?done=passkey_added"
    visitor.cookies.clear()
    return device


async def ask_to_make(visitor: Visitor, password: str = PASSWORD) -> httpx.Response:
    fields = await visitor.form(WAYS, "/account/passkeys")
    data = {**fields, "present": password}
    return await visitor.post("/account/passkeys/options", data=data)


async def make(visitor: Visitor, device: Authenticator, name: str = "phone") -> httpx.Response:
    """Add a passkey to the account that is logged in."""
    options = await ask_to_make(visitor)
    assert options.status_code == 200, options.text
    fields = await visitor.form(WAYS, "/account/passkeys")
    credential = device.make(options.json())
    data = {**fields, "name": name, "credential": credential}
    return await visitor.post("/account/passkeys", data=data)


async def log_in(visitor: Visitor, device: Authenticator) -> httpx.Response:
    """Log in by the passkey alone."""
    options = await visitor.post("/login/passkey/options")
    assert options.status_code == 200, options.text
    device.count += 1
    credential = device.answer(options.json())
    return await visitor.post("/login/passkey", data={"credential": credential, "next": "/account"})


async def test_a_passkey_opens_its_account(visitor: Visitor, device: Authenticator) -> None:
    answer = await log_in(visitor, device)
    assert answer.headers["location"] == "/account"
    assert "grace@example.com" in (await visitor.get("/account")).text
    page = await visitor.get(WAYS)
    assert "phone" in page.text
    assert "Last seen" in page.text


async def test_options_ask_for_a_recognised_owner(visitor: Visitor, device: Authenticator) -> None:
    options = (await visitor.post("/login/passkey/options")).json()
    assert options["userVerification"] == "required"
    assert options["rpId"] == "localhost"
    assert not options["allowCredentials"]
    await visitor.log_in()
    options = (await ask_to_make(visitor)).json()
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert len(options["excludeCredentials"]) == 1
    assert "grace" not in json.dumps(options["user"]["id"])


def other_key(device: Authenticator) -> None:
    device.key = ec.generate_private_key(ec.SECP256R1())


CHANGES: dict[str, Callable[[Authenticator], Any]] = {
    "another origin": lambda device: setattr(device, "origin", "http://localhost:8081"),
    "another host": lambda device: setattr(device, "rp_id", "evil.example"),
    "nobody recognised": lambda device: setattr(device, "flags", 1),
    "nobody present": lambda device: setattr(device, "flags", 4),
    "another key": other_key,
    "an unknown id": lambda device: setattr(device, "id", b"x" * 32),
    "the handle of another account": lambda device: setattr(device, "user", "dXNyXzA"),
    "a count that went back": lambda device: setattr(device, "count", 2),
    "the same count": lambda device: setattr(device, "count", 4),
}


async def answered(passkeys: Passkeys, device: Authenticator, now: float = 0.0) -> Answer:
    """A device's answer to a new challenge."""
    question = await passkeys.ask(PARTY, "192.0.2.1", now)
    device.count += 1
    return Answer(question.token, device.answer(json.loads(question.options)), now)


@pytest.fixture
async def pure(site: Live) -> tuple[Passkeys, Authenticator]:
    """A device with a passkey of the first account, and those who check it, without pages."""
    passkeys, device = Passkeys(site.app.database), Authenticator(ORIGIN)
    user = await find_user(site.app.database, EMAIL)
    assert user is not None
    question = await passkeys.ask_to_make(PARTY, user, "session", 0.0)
    made = Answer(question.token, device.make(json.loads(question.options)), 0.0)
    await passkeys.add(PARTY, user, "session", made, "phone")
    return passkeys, device


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_answer_opens_nothing(
    pure: tuple[Passkeys, Authenticator], change: str
) -> None:
    passkeys, device = pure
    device.count = 4
    assert (await passkeys.check(PARTY, await answered(passkeys, device))).email == EMAIL
    CHANGES[change](device)
    with pytest.raises(WrongPasskeyError):
        await passkeys.check(PARTY, await answered(passkeys, device))


async def test_a_challenge_is_answered_once_and_by_its_browser(
    visitor: Visitor, device: Authenticator, site: Live, another: NewVisitor
) -> None:
    options = (await visitor.post("/login/passkey/options")).json()
    device.count = 7
    credential = device.answer(options)
    thief = another(site)
    await thief.post("/login/passkey/options")
    for browser, expected in ((thief, 401), (visitor, 303), (visitor, 401)):
        challenge = browser.cookies.get("passkey-challenge")
        answer = await browser.post("/login/passkey", data={"credential": credential})
        assert answer.status_code == expected
        browser.cookies.clear()
        if challenge:
            browser.cookies.set("passkey-challenge", challenge)


@pytest.mark.parametrize(("seconds", "is_right"), [(299.0, True), (301.0, False)])
async def test_a_challenge_lasts_five_minutes(
    pure: tuple[Passkeys, Authenticator], seconds: float, is_right: bool
) -> None:
    passkeys, device = pure
    answer = replace(await answered(passkeys, device), now=seconds)
    if is_right:
        assert (await passkeys.check(PARTY, answer)).email == EMAIL
    else:
        with pytest.raises(WrongPasskeyError):
            await passkeys.check(PARTY, answer)


async def test_a_challenge_to_log_in_makes_no_passkey(
    visitor: Visitor, device: Authenticator
) -> None:
    await visitor.log_in()
    thief = Authenticator(ORIGIN)
    options = (await visitor.post("/login/passkey/options", data=await csrf(visitor))).json()
    options["user"] = {"id": device.user}
    data = {**await csrf(visitor), "name": "evil", "credential": thief.make(options)}
    assert (await visitor.post("/account/passkeys", data=data)).status_code == 422
    options = (await ask_to_make(visitor)).json()
    device.count += 1
    data = {**await csrf(visitor), "credential": device.answer(options)}
    assert (await visitor.post("/login/passkey", data=data)).status_code == 401


async def csrf(visitor: Visitor) -> dict[str, str]:
    return await visitor.form(WAYS, "/account/passkeys")


async def test_a_challenge_belongs_to_one_session(
    visitor: Visitor, device: Authenticator, site: Live, another: NewVisitor
) -> None:
    await visitor.log_in()
    options = await ask_to_make(visitor)
    other = another(site)
    await other.log_in()
    other.cookies.set("passkey-challenge", visitor.cookies["passkey-challenge"])
    data = {**await csrf(other), "credential": Authenticator(ORIGIN).make(options.json())}
    assert (await other.post("/account/passkeys", data=data)).status_code == 422


async def test_a_passkey_needs_the_password_and_is_added_once(
    visitor: Visitor, device: Authenticator
) -> None:
    await visitor.log_in()
    answer = await ask_to_make(visitor, "wrong password")
    assert answer.status_code == 422
    assert answer.json()["problem"] == "The present password is wrong."
    assert (await make(visitor, device)).status_code == 409
    assert (await make(visitor, Authenticator(ORIGIN), "x" * 61)).status_code == 422


async def test_a_passkey_is_renamed_and_removed(
    visitor: Visitor, device: Authenticator, site: Live
) -> None:
    await visitor.log_in()
    page = (await visitor.get(WAYS)).text
    found = re.search(r"/account/passkeys/[0-9a-f]{16}", page)
    assert found is not None
    path = found[0]
    fields = hidden_fields(page, f"{path}/name")
    answer = await visitor.post(f"{path}/name", data={**fields, "name": "<b>key</b>"})
    assert answer.headers["location"] == f"{WAYS}?done=passkey_renamed"
    assert "&lt;b&gt;key&lt;/b&gt;" in (await visitor.get(WAYS)).text
    wrong = await visitor.post(f"{path}/remove", data={**fields, "present": "wrong password"})
    assert wrong.status_code == 422
    gone = await visitor.post("/account/passkeys/0000/remove", data={**fields})
    assert gone.status_code == 404
    answer = await visitor.post(f"{path}/remove", data={**fields, "present": PASSWORD})
    assert answer.headers["location"] == f"{WAYS}?done=passkey_removed"
    actions = await audited(site, "passkey.")
    assert actions == ["passkey.add", "passkey.rename", "passkey.remove"]
    visitor.cookies.clear()
    assert (await log_in(visitor, device)).status_code == 401


async def test_a_passkey_is_a_second_step(
    visitor: Visitor, device: Authenticator, site: Live, another: NewVisitor
) -> None:
    await visitor.log_in()
    await turn_on(visitor)
    visitor.cookies.clear()
    await visitor.log_in()
    page = (await visitor.get("/login/code")).text
    assert "/login/code/passkey" in page
    options = (await visitor.post("/login/code/passkey/options")).json()
    assert len(options["allowCredentials"]) == 1
    device.count = 9
    credential = device.answer(options)
    stranger = another(site)  # without the password
    assert (await stranger.post("/login/code/passkey/options")).status_code == 404
    answer = await stranger.post("/login/code/passkey", data={"credential": credential})
    assert answer.headers["location"] == "/login?done=step_expired"
    answer = await visitor.post("/login/code/passkey", data={"credential": credential})
    assert answer.headers["location"] == "/dashboard"
    assert (await visitor.get("/dashboard")).status_code == 200


async def test_a_passkey_of_another_is_no_second_step(
    visitor: Visitor, device: Authenticator, site: Live, another: NewVisitor
) -> None:
    other = another(site)
    await other.sign_up("eve@example.com")
    eve = Authenticator(ORIGIN)
    await make(other, eve)
    await visitor.log_in()
    await turn_on(visitor)
    visitor.cookies.clear()
    await visitor.log_in()
    eve.count = 3
    options = (await visitor.post("/login/code/passkey/options")).json()
    answer = await visitor.post("/login/code/passkey", data={"credential": eve.answer(options)})
    assert answer.status_code == 401


async def test_any_text_is_refused_as_an_answer(pure: tuple[Passkeys, Authenticator]) -> None:
    passkeys, device = pure
    chance = random.Random(7)
    values: list[Any] = [None, 5, [], {}, "", "!", "AAAA", "a" * 5000, "é"]
    needless = ("userHandle", "clientExtensionResults")
    for _ in range(200):
        answer = await answered(passkeys, device)
        document = json.loads(answer.text)
        place = chance.choice([document, document["response"]])
        name = chance.choice([one for one in place if one not in needless])
        place[name] = chance.choice(values)
        with pytest.raises(WrongPasskeyError):
            await passkeys.check(PARTY, replace(answer, text=json.dumps(document)))
    for text in ("", "[]", "{", "null", "{}"):
        with pytest.raises(WrongPasskeyError):
            await passkeys.check(PARTY, replace(await answered(passkeys, device), text=text))


async def test_challenges_are_limited_for_an_address(visitor: Visitor) -> None:
    statuses = [(await visitor.post("/login/passkey/options")).status_code for _ in range(21)]
    assert statuses == [200] * 20 + [429]


async def test_passkeys_are_exported_and_deleted(visitor: Visitor, device: Authenticator) -> None:
    await visitor.log_in()
    exported = (await visitor.get("/account/export.json")).json()
    assert [one["name"] for one in exported["ways_to_log_in"]["passkeys"]] == ["phone"]
    await visitor.submit("/account", "/account/delete", present=PASSWORD)
    assert await visitor.live.app.database.select("SELECT * FROM passkey") == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Relay.example", ("relay.example", "https://relay.example")),
        ("https://relay.example:443/llm", ("relay.example", "https://relay.example")),
        ("https://relay.example:8443", ("relay.example", "https://relay.example:8443")),
        ("http://localhost:80", ("localhost", "http://localhost")),
        ("http://a.localhost:81", ("a.localhost", "http://a.localhost:81")),
        ("http://relay.example", None),
        ("http://127.0.0.1:8080", None),
        ("https://192.0.2.1", None),
        ("https://[2001:db8::1]", None),
    ],
)
def test_the_site_of_passkeys_is_a_name_with_https(
    url: str, expected: tuple[str, str] | None
) -> None:
    settings = config.parse({"server": {"public_url": url}})
    party = None if expected is None else RelyingParty(*expected, "Relay")
    assert relying_party(settings) == party


async def test_no_passkeys_at_an_address_without_a_name(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    visitor = another(await relay_with(web=WEB))
    assert "passkey" not in (await visitor.get("/login")).text
    assert (await visitor.post("/login/passkey/options")).status_code == 404
