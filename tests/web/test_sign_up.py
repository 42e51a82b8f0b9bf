"""Opening accounts, mails to people, and the end of an account."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.accounts import codes
from relay.accounts.proof_of_work import ProofOfWork
from relay.accounts.sign_up import first_account_url, new_link
from relay.accounts.tokens import token_digest
from relay.store import database as store
from relay.store.audit import AuditFilter, entries
from relay.store.codes import Grant, list_codes
from relay.store.database import Database
from relay.store.users import find_user
from tests.alerts.services import Mailbox
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, WEB, Visitor, collected, solve


def local(url: str) -> str:
    """The path of a link."""
    return "/" + url.split("/", 3)[3]


# --- signing up ---


async def test_an_account_opens_on_the_configured_plan(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    plans = [{"id": "free"}, {"id": "pro", "max_keys": 2}]
    live = await relay_with(web={**WEB, "sign_up_plan": "pro"}, plan=plans)
    visitor = another(live)
    answer = await visitor.sign_up("Grace@Example.com")
    assert answer.headers["location"] == "/dashboard/keys?done=signed_up"
    user = await find_user(live.app.database, "grace@example.com")
    assert user is not None
    assert (user.email, user.plan, user.is_admin) == ("Grace@Example.com", "pro", False)


@pytest.mark.parametrize(
    ("email", "password", "words"),
    [
        ("grace", PASSWORD, "no e-mail address"),
        ("grace@localhost", PASSWORD, "no e-mail address"),
        ("grace@example.com", "short", "too short"),
        ("grace@example.com", "x" * 201, "too long"),
        ("grace@example.com", "aaaaaaaaaaaa", "too easily guessed"),
        ("grace@example.com", "grace@example.com", "too easily guessed"),
        (EMAIL, PASSWORD, "cannot be used"),
    ],
)
async def test_a_sign_up_that_cannot_be(
    visitor: Visitor, email: str, password: str, words: str
) -> None:
    fields = await visitor.form("/signup")
    fields["answer"] = solve(fields["challenge"])
    answer = await visitor.post("/signup", data={**fields, "email": email, "password": password})
    assert answer.status_code in (409, 422)
    assert words in answer.text
    assert f'value="{password}"' not in answer.text or email == password


async def test_a_sign_up_needs_work_for_each_account(visitor: Visitor) -> None:
    fields = await visitor.form("/signup")
    values = {**fields, "email": "a@example.com", "password": PASSWORD}
    assert (await visitor.post("/signup", data=values)).status_code == 422
    values["answer"] = solve(fields["challenge"])
    assert (await visitor.post("/signup", data=values)).status_code == 303
    visitor.cookies.clear()
    again = await visitor.post("/signup", data={**values, "email": "b@example.com"})
    assert again.status_code == 422
    assert "puzzle" in again.text


def test_a_puzzle_is_ours_in_time_and_used_once() -> None:
    proof = ProofOfWork()
    challenge = proof.challenge(8, 1000.0)
    answer = solve(challenge)
    wrong = next(str(n) for n in range(10**6) if str(n) != answer)
    assert not proof.accept(challenge, wrong + "x", 8, 1000.0)
    assert not proof.accept(challenge, "1" * 21, 8, 1000.0)
    assert not proof.accept(challenge, answer, 20, 1000.0)  # made when less was asked
    assert not proof.accept(challenge, answer, 8, 1000.0 + 1801)
    for forged in ("", "8.9.a.b", challenge[:-1], challenge.replace("8.", "0.", 1), "é.1"):
        assert not proof.accept(forged, answer, 8, 1000.0)
    assert proof.accept(challenge, answer, 8, 1000.0)
    assert not proof.accept(challenge, answer, 8, 1000.0)
    assert not ProofOfWork().accept(challenge, answer, 8, 1000.0)


async def test_a_closed_relay_opens_no_account(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with()
    visitor = another(live)
    assert "operator of this relay" in (await visitor.get("/signup")).text
    url = await codes.invite(live.app.database, live.settings, None, time.time())
    assert "<form class" not in (await visitor.get(local(url))).text
    token = url.partition("?t=")[2]
    values = {"email": "a@example.com", "password": PASSWORD, "t": token}
    assert (await visitor.post("/signup", data=values)).status_code == 403
    assert "/signup" not in (await visitor.get("/")).text


async def test_an_invitation_opens_one_account(relay_with: RelayWith, another: NewVisitor) -> None:
    plans = [{"id": "free"}, {"id": "pro"}]
    live = await relay_with(web={**WEB, "sign_up": "invite"}, plan=plans)
    visitor = another(live)
    values = {"email": "a@example.com", "password": PASSWORD}
    assert (await visitor.post("/signup", data=values)).status_code == 403
    database, settings = live.app.database, live.settings
    page = local(await codes.invite(database, settings, "pro", time.time()))
    assert (await visitor.submit(page, **values)).status_code == 303
    user = await find_user(live.app.database, "a@example.com")
    assert user is not None
    assert user.plan == "pro"
    visitor.cookies.clear()
    assert (await visitor.get(page)).status_code == 404
    late = await codes.invite(database, settings, None, time.time() - 8 * 86_400)
    assert (await visitor.get(local(late))).status_code == 404


async def test_a_link_of_an_earlier_version_opens_its_account(
    relay_with: RelayWith, another: NewVisitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token keeps its case, and the link is among the codes."""
    path, token, now = tmp_path / "old.db", "aB-_" * 10 + "xyz", time.time()
    names = sorted(one.name for one in store.MIGRATIONS.glob("*.sql"))
    number = next(n for n, name in enumerate(names) if name.endswith("_invitations.sql"))
    with monkeypatch.context() as before:
        (tmp_path / "migrations").mkdir()
        for name in names[:number]:
            (tmp_path / "migrations" / name).write_text((store.MIGRATIONS / name).read_text())
        before.setattr(store, "MIGRATIONS", tmp_path / "migrations")
        old = await Database.open(path)
        row = (token_digest(token), "invite", "pro", now + 9)
        insert = "INSERT INTO link (digest, purpose, plan, expires_at) VALUES (?, ?, ?, ?)"
        await old.write(lambda connection: connection.execute(insert, row))
        await old.close()
    plans = [{"id": "free"}, {"id": "pro"}]
    web = {**WEB, "sign_up": "invite"}
    live = await relay_with(web=web, plan=plans, database={"path": str(path)})
    visitor = another(live)
    assert (await visitor.get(f"/signup?t={token.lower()}")).status_code == 404
    page = f"/signup?t={token}"
    assert (await visitor.submit(page, email="a@example.com", password=PASSWORD)).is_redirect
    user = await find_user(live.app.database, "a@example.com")
    assert user is not None
    assert user.plan == "pro"
    [code] = await list_codes(live.app.database)
    assert (code.kind, code.used, code.uses) == ("invite", 1, 1)


async def test_an_invitation_code_opens_as_many_accounts(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    plans = [{"id": "free"}, {"id": "pro"}]
    live = await relay_with(web={**WEB, "sign_up": "invite"}, plan=plans)
    database, visitor = live.app.database, another(live)
    assert 'name="t"' in (await visitor.get("/signup")).text
    options = codes.BatchOptions(uses=2)
    [made] = await codes.create(
        database, live.settings, Grant("invite", plan="pro"), options, time.time()
    )
    written = made.code.reveal().lower().replace("-", " ")  # as somebody types it
    for email in ("a@example.com", "b@example.com"):
        answer = await visitor.submit(f"/signup?t={written}", email=email, password=PASSWORD)
        assert answer.status_code == 303
        user = await find_user(database, email)
        assert user is not None
        assert user.plan == "pro"
        [entry] = await entries(database, AuditFilter(subject=user.id))
        assert (entry.actor, entry.action, entry.address) == (user.id, "user.create", "127.0.0.1")
        visitor.cookies.clear()
    assert (await visitor.get(f"/signup?t={written}")).status_code == 404
    [credit] = await codes.create(
        database, live.settings, Grant("credit", 1_000_000), options, time.time()
    )
    assert (await visitor.get(f"/signup?t={credit.code.reveal()}")).status_code == 404


async def test_a_code_is_not_used_up_by_an_address_that_is_taken(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web={**WEB, "sign_up": "invite"})
    database, visitor = live.app.database, another(live)
    grant, options = Grant("invite"), codes.BatchOptions()
    [made] = await codes.create(database, live.settings, grant, options, time.time())
    page = f"/signup?t={made.code.reveal()}"
    assert (await visitor.submit(page, email=EMAIL, password=PASSWORD)).status_code == 409
    assert (await visitor.submit(page, email="a@example.com", password=PASSWORD)).is_redirect


# --- the first administrator ---


async def test_the_first_link_opens_one_administrator(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with()
    database, visitor = live.app.database, another(live)
    assert await first_account_url(database, live.settings, time.time()) == ""
    await database.write(lambda c: c.execute("DELETE FROM keys"))
    await database.write(lambda c: c.execute("DELETE FROM users"))
    earlier = await first_account_url(database, live.settings, time.time())
    page = local(await first_account_url(database, live.settings, time.time()))
    assert (await visitor.get(local(earlier))).status_code == 404
    weak = await visitor.submit(page, email="root@example.com", password="short")
    assert weak.status_code == 422
    done = await visitor.submit(page, email="root@example.com", password=PASSWORD)
    assert done.status_code == 303
    user = await find_user(database, "root@example.com")
    assert user is not None
    assert user.is_admin
    assert (await another(live).get(page)).status_code == 404


async def test_the_first_link_is_void_once_there_is_an_account(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with()
    token = await new_link(live.app.database, "admin", time.time())
    visitor = another(live)
    answer = await visitor.submit(f"/setup?t={token}", email="eve@example.com", password=PASSWORD)
    assert answer.status_code == 404
    assert await find_user(live.app.database, "eve@example.com") is None


# --- mail ---


async def test_an_address_is_confirmed_before_its_account_opens(
    relay_with: RelayWith, another: NewVisitor, mailbox: Mailbox, mail: dict[str, Any]
) -> None:
    live = await relay_with(web=WEB, mail=mail)
    visitor = another(live)
    fields = await visitor.form("/signup")
    fields |= {"email": "new@example.com", "password": PASSWORD}
    fields["answer"] = solve(fields["challenge"])
    with collected(mailbox.messages) as links:
        answer = await visitor.post("/signup", data=fields)
        assert answer.status_code == 200
        await until(lambda: mailbox.messages)
    assert await find_user(live.app.database, "new@example.com") is None
    [url] = links
    assert url.startswith("http://127.0.0.1:8080/confirm?t=")
    assert (await visitor.get(local(url))).status_code == 200  # a GET opens nothing
    assert await find_user(live.app.database, "new@example.com") is None
    assert (await visitor.submit(local(url))).status_code == 303
    assert (await visitor.get("/dashboard")).status_code == 200
    assert (await another(live).get(local(url))).status_code == 404

    taken = another(live)
    fields = await taken.form("/signup")
    fields |= {"email": "new@example.com", "password": PASSWORD}
    fields["answer"] = solve(fields["challenge"])
    with collected(mailbox.messages) as links:
        again = await taken.post("/signup", data=fields)
        await until(lambda: len(mailbox.messages) == 2)
    assert again.text == answer.text  # nobody learns that it is taken
    assert [local(one) for one in links] == ["/login", "/forgot"]


async def test_a_forgotten_password_is_set_by_mail(
    relay_with: RelayWith, another: NewVisitor, mailbox: Mailbox, mail: dict[str, Any]
) -> None:
    live = await relay_with(web=WEB, mail=mail)
    visitor = another(live)
    unknown = await visitor.submit("/forgot", email="nobody@example.com")
    with collected(mailbox.messages) as links:
        known = await visitor.submit("/forgot", email=EMAIL)
        await until(lambda: mailbox.messages)
    assert known.text == unknown.text
    assert b"To: " + EMAIL.encode() in mailbox.messages[0]
    page = local(links[0])
    weak = await visitor.submit(page, password="short")
    assert weak.status_code == 422
    done = await visitor.submit(page, password=PASSWORD)
    assert done.headers["location"] == "/dashboard?done=password_changed"
    assert (await another(live).get(page)).status_code == 404
    assert (await another(live).log_in(EMAIL)).status_code == 303
    assert len(mailbox.messages) == 1


async def test_mails_to_one_address_are_limited(
    relay_with: RelayWith, another: NewVisitor, mailbox: Mailbox, mail: dict[str, Any]
) -> None:
    live = await relay_with(web=WEB, mail=mail)
    visitor = another(live)
    statuses = [(await visitor.submit("/forgot", email=EMAIL)).status_code for _ in range(8)]
    assert statuses[:6] == [200] * 6
    assert statuses[7] == 429


async def test_without_mail_the_operator_is_named(visitor: Visitor) -> None:
    assert "relay user link" in (await visitor.get("/forgot")).text
    assert (await visitor.post("/forgot", data={"email": EMAIL})).status_code == 404


async def test_a_mail_that_is_not_taken_is_logged_without_its_link(
    relay_with: RelayWith, another: NewVisitor, mailbox: Mailbox, mail: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    mailbox.refusal = "550 no"
    live = await relay_with(web=WEB, mail=mail)
    await another(live).submit("/forgot", email=EMAIL)
    await until(lambda: "not sent" in caplog.text)
    assert "550" in caplog.text
    assert EMAIL not in caplog.text


# --- the end ---


async def test_a_deleted_account_leaves_nothing_that_works(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    key = await visitor.new_key()
    headers = {"x-api-key": key}
    assert (await visitor.get("/v1/models", headers=headers)).status_code == 200
    wrong = await visitor.submit("/account", "/account/delete", present="x")
    assert wrong.status_code == 422
    done = await visitor.submit("/account", "/account/delete", present=PASSWORD)
    assert done.headers["location"] == "/login?done=account_deleted"
    assert (await visitor.get("/v1/models", headers=headers)).status_code == 401
    assert (await visitor.log_in()).status_code == 401
    database = site.app.database
    for table in ("users", "keys", "session"):
        rows = await database.select(f"SELECT count(*) FROM {table}")
        assert rows[0][0] == (0 if table == "session" else 1)  # the fixture's own
    assert (await another(site).sign_up()).status_code == 303  # the address is free


async def test_the_last_administrator_stays(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await site.app.database.write(lambda c: c.execute("UPDATE users SET is_admin = 1"))
    answer = await visitor.submit("/account", "/account/delete", present=PASSWORD)
    assert answer.status_code == 303  # there is another one
    other = Visitor(site)
    await other.sign_up("root@example.com")
    update = "UPDATE users SET is_admin = (email = 'root@example.com')"
    await site.app.database.write(lambda c: c.execute(update))
    answer = await other.submit("/account", "/account/delete", present=PASSWORD)
    assert answer.status_code == 409
    assert "only administrator" in answer.text
    await other.aclose()


async def test_no_secret_is_in_database_log_or_page(
    site: Live, visitor: Visitor, tmp_path: Path
) -> None:
    """Passwords, tokens and keys, after all that a person does."""
    await visitor.sign_up()
    key = await visitor.new_key("canary")
    values = {"email": "grace@example.com", "password": "wrong-password-canary"}
    fields = await visitor.form("/account", "/account/password")
    assert (await visitor.post("/login", data={**fields, **values})).status_code == 401
    reset = await new_link(site.app.database, "reset", time.time())
    await visitor.get(f"/reset?t={reset}")
    secrets = [PASSWORD, "wrong-password-canary", visitor.cookies["relay"], key, reset]
    site.log()
    await site.app.database.checkpoint()
    pages = [
        (await visitor.get(path)).text
        for path in ("/dashboard", "/dashboard/keys", "/account", "/account/export.json")
    ]
    texts = [page.encode() for page in pages]
    texts += [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]  # noqa: ASYNC240
    check: Callable[[str], bool] = lambda one: any(one.encode() in text for text in texts)  # noqa: E731
    assert [secret for secret in secrets if check(secret)] == []
