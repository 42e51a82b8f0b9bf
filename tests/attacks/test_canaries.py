"""A sweep for canaries: a relay handles marked secrets in every way that there is, and none of them
is left in its database, backups, logs, metrics, pages, errors, or in the text of its objects.

A content (a prompt, an answer) is looked for everywhere but in the answers to who sent it.
"""

import asyncio
import gc
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.alerts.services import Mailbox
from tests.attacks.canaries import (
    CONTENT,
    HOOK,
    IMAGE,
    PROMPT,
    REPLY,
    SMTP,
    TOOL,
    UPSTREAM,
    WEBHOOK,
    Canaries,
    marked_relay,
    quoting_upstream,
)
from tests.fakes.live import UPSTREAM_KEY, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import Seen, UpstreamWith
from tests.web.administration import act
from tests.web.conftest import NewVisitor
from tests.web.test_second_step import next_code, turn_on
from tests.web.visitor import PASSWORD, WEB, Visitor, collected, solve

ADMIN, PERSON = "root@example.com", "grace@example.com"
ADMIN_PASSWORD, NEXT_PASSWORD = "marked admin password 11", "marked next password 22"
WRONG_PASSWORD, RESET_PASSWORD = "marked wrong password 33", "marked reset password 44"
RESPONSES_KEY = "marked-key-of-responses-0123456789abcdef0123"
WRONG_KEY = "sk-llmapi-marked-wrong-key-0123456789012345678901234"
PERSONS_PAGES = (
    "/dashboard", "/dashboard/keys", "/dashboard/usage?by=key", "/dashboard/requests",
    "/dashboard/requests?failed=1", "/dashboard/requests.csv", "/account", "/account/log-in",
    "/account/export.json", "/dashboard/parts/latest", "/nowhere",
)  # fmt: skip
ADMINS_PAGES = (
    "/admin", "/admin/people", "/admin/upstreams", "/admin/models", "/admin/live",
    "/admin/failures", "/admin/backups", "/admin/audit", "/admin/codes", "/admin/announcements",
    "/admin/settings", f"/admin/simulator?model=claude-sonnet-4-7&who={PERSON}",
)  # fmt: skip
API_PATHS = (
    "/api/v1/people", "/api/v1/plans", "/api/v1/usage", "/api/v1/upstreams",
    "/api/v1/upstreams/days", "/v1/organizations/spend_limits/effective", "/openapi.json",
)  # fmt: skip
COMMANDS = ("audit", "key list", "user list", "check", "metrics", "backup copy.db")


def bodies(*, stream: bool, words: str = PROMPT) -> dict[str, dict[str, Any]]:
    """The same request in each dialect, by its path."""
    common: dict[str, Any] = {"model": "claude-sonnet-4-7", "stream": stream}
    picture = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    url = f"data:image/png;base64,{IMAGE}"
    tool = {"name": "look", "description": TOOL}
    shape: dict[str, Any] = {"type": "object", "properties": {}}
    messages = [{"type": "text", "text": words}, {"type": "image", "source": picture}]
    chat = [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": url}}]
    items = [{"type": "input_text", "text": words}, {"type": "input_image", "image_url": url}]
    return {
        "/v1/messages": {
            **common, "max_tokens": 20, "tools": [{**tool, "input_schema": shape}],
            "system": PROMPT, "messages": [{"role": "user", "content": messages}],
        },
        "/v1/chat/completions": {
            **common, "tools": [{"type": "function", "function": {**tool, "parameters": shape}}],
            "messages": [{"role": "user", "content": chat}],
        },
        "/v1/responses": {
            **common, "tools": [{"type": "function", **tool, "parameters": shape}],
            "instructions": PROMPT, "store": False, "input": [{"role": "user", "content": items}],
        },
    }  # fmt: skip


async def test_a_running_relay_leaves_no_secret_anywhere(
    tmp_path: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAT", UPSTREAM)
    async with marked_relay(tmp_path, mailbox) as canaries:
        admin_key = await prepare(canaries)
        visitor = await sign_up(canaries, mailbox)
        key = await use_keys(canaries, visitor)
        await ask_in_every_way(canaries, key, admin_key)
        await call_the_api(canaries, admin_key)
        await administer(canaries)
        await secure_the_account(canaries, visitor, mailbox)
        await asyncio.gather(
            *(asyncio.to_thread(canaries.note_command, *one.split()) for one in COMMANDS)
        )
        canaries.secrets |= {f"content {number}": text for number, text in enumerate(CONTENT)}
        assert len(canaries.secrets) > 35
        places = canaries.sweep(address=PERSON)  # the sweep finds what is there
        assert {f"address in {place}" for place in ("relay.db-wal", "copy.db", "user list")} <= {
            *places
        }
        assert found(canaries) == ""
        canaries.process.send_signal(signal.SIGTERM)
        await until(lambda: canaries.process.poll() is not None, within=20)
        assert found(canaries) == ""


def found(canaries: Canaries) -> str:
    """What the sweep finds. The page of failures may have what an upstream repeats of a request:
    it is kept in memory alone, and docs/admin.md says so."""
    return "\n".join(
        one
        for one in canaries.sweep()
        if not (one.startswith("content") and one.endswith("/admin/failures"))
    )


async def test_no_text_of_an_object_shows_a_secret(
    relay_with: RelayWith, upstream_with: UpstreamWith, another: NewVisitor, tmp_path: Path
) -> None:
    """`repr` of every object of the relay, also while requests are under way."""
    asked, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def answer(reader: Any, writer: Any, seen: Seen) -> None:
        asked.release()
        await go_on.wait()
        await quoting_upstream()(reader, writer, seen)

    live = await relay_with(
        await upstream_with(answer),
        web=WEB,
        alert=[{"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:9/{HOOK}",
                "secret": WEBHOOK}],
        mail={"smtp": "127.0.0.1:9", "sender": "a@example.com", "user": "u", "password": SMTP},
        responses={"store": "database", "key": RESPONSES_KEY},
    )  # fmt: skip
    visitor = another(live)
    await visitor.get("/login")
    secrets = [live.key, UPSTREAM_KEY, WEBHOOK, HOOK, SMTP, RESPONSES_KEY, *CONTENT]
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers) as client:
        calls = [
            asyncio.create_task(client.post(path, json=body))
            for stream in (False, True)
            for path, body in bodies(stream=stream).items()
        ]
        for _ in calls:
            await asked.acquire()
        shown = texts_of_objects()
        go_on.set()
        assert [(await call).status_code for call in calls] == [200] * len(calls)
    shown |= texts_of_objects()
    assert len(shown) > 100
    unmasked = {(kind, one) for kind, text in shown for one in secrets if one in text}
    assert unmasked == set()


def texts_of_objects() -> set[tuple[str, str]]:
    """Kind and text of each object whose class is the relay's own."""
    found = set()
    for one in gc.get_objects():
        kind = type(one)
        if str(kind.__module__).partition(".")[0] == "relay":
            found.add((f"{kind.__module__}.{kind.__name__}", repr(one)))
    return found


async def prepare(canaries: Canaries) -> str:
    """An administrator with a password, and a key of the provisioning API."""
    passwords = [PASSWORD, ADMIN_PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD, RESET_PASSWORD]
    canaries.secrets |= {f"password {number}": text for number, text in enumerate(passwords)}
    canaries.secrets["wrong key"] = WRONG_KEY
    await asyncio.to_thread(canaries.run, "user", "create", ADMIN, "--admin")
    scopes = [f"--scope={thing}:read" for thing in ("people", "keys", "plans", "usage", "credit")]
    scopes += ["--scope=upstreams:read", "--scope=upstreams:write", "--scope=keys:write"]
    scopes += ["--scope=spend_limits:read", "--scope=people:write"]
    made = await asyncio.to_thread(canaries.run, "admin-key", "create", *scopes)
    canaries.secrets["admin key"] = made["key"]
    return str(made["key"])


def hold(canaries: Canaries, visitor: Visitor) -> None:
    """Take the session of a browser for a secret."""
    for name, value in visitor.cookies.items():
        if len(value) > 20:
            canaries.secrets[f"cookie {name} {len(canaries.secrets)}"] = value


async def sign_up(canaries: Canaries, mailbox: Mailbox) -> Visitor:
    """A person who has confirmed the address, by the link of a mail."""
    visitor = canaries.visitor()
    fields = await visitor.form("/signup")
    fields |= {"email": PERSON, "password": PASSWORD, "answer": solve(fields["challenge"])}
    with collected(mailbox.messages) as links:
        assert (await visitor.post("/signup", data=fields)).status_code == 200
        await until(lambda: mailbox.messages, within=20)
    with canaries.showing_once():  # the page has its link in a field
        page = "/" + links[0].split("/", 3)[3]
        canaries.secrets["link to confirm"] = page.partition("t=")[2]
        assert (await visitor.submit(page)).status_code == 303
    hold(canaries, visitor)
    wrong = canaries.visitor()
    assert (await wrong.log_in(PERSON, WRONG_PASSWORD)).status_code == 401
    await wrong.aclose()
    return visitor


async def use_keys(canaries: Canaries, visitor: Visitor) -> str:
    """A key that is renamed and stays, one that is deleted, and one that is rotated."""
    keys = []
    for name in ("laptop", "gone"):
        with canaries.showing_once():
            keys.append(await visitor.new_key(name))
    listed = await asyncio.to_thread(canaries.run, "key", "list")
    ids = {one["name"]: one["id"] for one in listed}
    await visitor.submit("/dashboard/keys", f"/dashboard/keys/{ids['laptop']}/name", name="home")
    await visitor.submit("/dashboard/keys", f"/dashboard/keys/{ids['gone']}/revoke")
    made = await asyncio.to_thread(canaries.run, "key", "create", "--user", PERSON)
    rotated = await asyncio.to_thread(canaries.run, "key", "rotate", made["id"])
    code = await asyncio.to_thread(canaries.run, "code", "credit", "50")
    texts = [*keys, made["key"], rotated["key"], code[0]["code"]]
    canaries.secrets |= {f"key or code {number}": text for number, text in enumerate(texts)}
    await asyncio.to_thread(canaries.run, "code", "redeem", PERSON, texts[-1])
    async with canaries.client() as client:  # until the relay knows of the credit
        body = bodies(stream=False)["/v1/messages"]
        with canaries.showing_once():
            while (  # noqa: ASYNC110
                await client.post("/v1/messages", json=body, headers={"x-api-key": keys[0]})
            ).status_code == 402:
                await asyncio.sleep(0.02)
    return keys[0]


async def ask_in_every_way(canaries: Canaries, key: str, admin_key: str) -> None:
    """Requests that succeed, that fail above, and that are refused here."""
    own, clear = {"x-api-key": key}, "/api/v1/upstreams/main/clear"
    async with canaries.client() as client:
        for stream in (False, True):
            for path, body in bodies(stream=stream).items():
                with canaries.showing_once():
                    answer = await client.post(path, json=body, headers=own)
                assert (answer.status_code, REPLY in answer.text) == (200, True), answer.text
        for status in (400, 401, 429, 500):
            for path, body in bodies(stream=status == 401, words=f"fail={status}").items():
                with canaries.showing_once():  # a caller may read the prompt in an error
                    answer = await client.post(path, json=body, headers=own)
                assert answer.status_code >= 400
                assert canaries.secrets["credential"] not in answer.text
                answer = await client.post(clear, json={}, headers={"x-api-key": admin_key})
                assert answer.status_code == 200, answer.text
        for path, body in bodies(stream=False).items():
            for headers in ({"x-api-key": WRONG_KEY}, {"authorization": f"Bearer {WRONG_KEY}"}):
                assert (await client.post(path, json=body, headers=headers)).status_code == 401
            for target in (f"{path}?key={key}", f"/{key}{path}", f"{path}/{key}", f"/api/v1/{key}"):
                assert (await client.post(target, json=body)).status_code in (401, 404, 405)
            broken = PROMPT.encode() + b"{"
            assert (await client.post(path, content=broken, headers=own)).status_code == 400
            with canaries.showing_once():  # the error has the model's name as the caller sent it
                answer = await client.post(path, json={**body, "model": key}, headers=own)
            assert answer.status_code == 404


async def call_the_api(canaries: Canaries, admin_key: str) -> None:
    """The provisioning API: what it lists, a key that it makes and rotates, and wrong calls."""
    headers = {"authorization": f"Bearer {admin_key}"}
    async with canaries.client() as client:
        for path in (*API_PATHS, f"/api/v1/people?key={admin_key}", f"/api/v1/{admin_key}"):
            await client.get(path, headers=headers)
            await client.get(path, headers={"x-api-key": WRONG_KEY})
        people = (await client.get("/api/v1/people", headers=headers)).json()["data"]
        path = next(f"/api/v1/people/{one['id']}" for one in people if one["email"] == PERSON)
        with canaries.showing_once():
            answer = await client.post(f"{path}/keys", json={"name": "api"}, headers=headers)
            made = answer.json()
            assert answer.status_code == 201, answer.text
            rotate = f"/api/v1/keys/{made['record']['id']}/rotate"
            rotated = (await client.post(rotate, json={}, headers=headers)).json()
        canaries.secrets |= {"key by the API": made["key"], "rotated by it": rotated["key"]}
        for part in ("", "/keys", "/statement"):
            assert (await client.get(path + part, headers=headers)).status_code == 200
        wrong = {"name": 7, "password": WRONG_PASSWORD}
        answer = await client.post(f"{path}/keys", json=wrong, headers=headers)
        assert answer.status_code in (400, 422)


async def administer(canaries: Canaries) -> None:
    """An administrator sets a password by a link, looks at every page and acts."""
    made = await asyncio.to_thread(canaries.run, "user", "link", ADMIN)
    page = "/" + made["url"].split("/", 3)[3]
    canaries.secrets["link of an administrator"] = page.partition("t=")[2]
    visitor = canaries.visitor()
    with canaries.showing_once():
        assert (await visitor.submit(page, password=ADMIN_PASSWORD)).status_code == 303
    hold(canaries, visitor)
    await act(visitor, "/admin/upstreams", "/admin/upstreams/main/pause")
    await act(visitor, "/admin/upstreams", "/admin/upstreams/main/resume")
    with canaries.showing_once():  # the answer to the administrator's own request
        await visitor.submit("/admin/upstreams", "/admin/upstreams/main/test")
    await visitor.submit("/admin/settings", "/admin/settings/check")
    await visitor.submit("/admin/settings", "/admin/settings/reload")
    await visitor.submit("/admin/backups", "/admin/backups")
    people = (await visitor.get("/admin/people")).text
    ids = set(re.findall(r"/admin/people/(usr_\w+)", people))
    for path in (*ADMINS_PAGES, *(f"/admin/people/{one}" for one in ids)):
        assert (await visitor.get(path)).status_code == 200, path
    await visitor.submit("/dashboard", "/logout")
    await visitor.aclose()


async def secure_the_account(canaries: Canaries, visitor: Visitor, mailbox: Mailbox) -> None:
    """An app and recovery codes, a new password, one by a link; then all pages of the person."""
    with canaries.showing_once():
        app, codes = await turn_on(visitor)
    canaries.secrets |= {"secret of the app": app.secret, "recovery code": codes[0]}
    hold(canaries, visitor)
    fields = {"present": PASSWORD, "password": NEXT_PASSWORD}
    assert (await visitor.submit("/account", "/account/password", **fields)).status_code == 303
    hold(canaries, visitor)
    for path in PERSONS_PAGES:
        await visitor.get(path)
    await visitor.submit("/account", "/logout")
    already = len(mailbox.messages)
    with collected(mailbox.messages) as links:
        await visitor.submit("/forgot", email=PERSON)
        await until(lambda: len(mailbox.messages) > already, within=20)
    page = "/" + links[0].split("/", 3)[3]
    canaries.secrets["link for a password"] = page.partition("t=")[2]
    with canaries.showing_once():
        assert (await visitor.submit(page, password=RESET_PASSWORD)).status_code == 303
    hold(canaries, visitor)
    guess = codes[0][:-1] + ("8" if codes[0].endswith("9") else "9")
    wrong = await visitor.submit("/login/code", code=guess)
    assert wrong.status_code == 401
    assert (await visitor.submit("/login/code", code=codes[1])).status_code == 303
    canaries.secrets["used recovery code"] = codes[1]
    hold(canaries, visitor)
    visitor.cookies.clear()
    await visitor.log_in(PERSON, RESET_PASSWORD)
    assert (await visitor.submit("/login/code", code=next_code(app))).status_code == 303
    hold(canaries, visitor)
    for path in PERSONS_PAGES:
        await visitor.get(path)
    await visitor.aclose()
