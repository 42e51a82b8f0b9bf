"""A browser without JavaScript: follows forms and keeps cookies, as httpx does."""

import asyncio
import hashlib
import itertools
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx

from relay.store.audit import entries
from tests.fakes.live import Live

PASSWORD = "correct horse 42 battery"
HTML = {"accept": "text/html", "sec-fetch-site": "same-origin"}
WEB: dict[str, Any] = {"sign_up": "open", "sign_up_work": 8, "log_ins_per_address": 1000}


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's authorities takes 50 ms


class Visitor(httpx.AsyncClient):
    """See the module."""

    def __init__(self, live: Live, **headers: str) -> None:
        super().__init__(base_url=live.url, headers={**HTML, **headers}, timeout=30, verify=_NO_TLS)
        self.live = live

    async def form(self, page: str, action: str | None = None) -> dict[str, str]:
        """The hidden fields of a page's form."""
        answer = await self.get(page)
        assert answer.status_code == 200, answer.text
        return hidden_fields(answer.text, action or page.partition("?")[0])

    async def submit(self, page: str, action: str | None = None, **fields: str) -> httpx.Response:
        """Fill in a page's form and send it."""
        values = {**await self.form(page, action), **fields}
        return await self.post(action or page.partition("?")[0], data=values)

    async def sign_up(self, email: str = "grace@example.com") -> httpx.Response:
        """Open an account, and be logged in."""
        fields = await self.form("/signup")
        fields["answer"] = solve(fields["challenge"])
        fields |= {"email": email, "password": PASSWORD}
        answer = await self.post("/signup", data=fields)
        assert answer.status_code == 303, answer.text
        return answer

    async def log_in(
        self, email: str = "grace@example.com", password: str = PASSWORD
    ) -> httpx.Response:
        """Send the form to log in."""
        return await self.submit("/login", email=email, password=password)

    async def new_key(self, name: str = "laptop", lifetime: str = "") -> str:
        """Make a key."""
        answer = await self.submit("/dashboard/keys", name=name, lifetime=lifetime)
        assert answer.status_code == 200, answer.text
        found = re.search(r'<code id="key">([^<]+)</code>', answer.text)
        assert found is not None
        return found[1]


def hidden_fields(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the form with this action."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', html, re.DOTALL)
    assert found is not None, html
    tags = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', found[0])
    return {name: unescape(value) for name, value in tags}


def solve(challenge: str) -> str:
    """The answer to a puzzle, as a browser finds it."""
    bits = int(challenge.partition(".")[0])
    for number in itertools.count():
        digest = hashlib.sha256(f"{challenge}:{number}".encode()).digest()
        if not int.from_bytes(digest, "big") >> (256 - bits):
            return str(number)
    raise AssertionError


@contextmanager
def collected(messages: list[bytes]) -> Iterator[list[str]]:
    """The links in mails that arrive meanwhile."""
    links: list[str] = []
    before = len(messages)
    yield links
    for message in messages[before:]:
        links += re.findall(r"https?://\S+", message.decode())


async def ask(live: Live, key: str, times: int = 1, **fields: Any) -> list[int]:
    """Requests through the relay; their statuses."""
    body = {"model": "claude-sonnet-4-7", "max_tokens": 20, **fields}
    body["messages"] = [{"role": "user", "content": "hi"}]
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=live.url, headers=headers) as client:
        return [(await client.post("/v1/messages", json=body)).status_code for _ in range(times)]


async def make_admin(live: Live, email: str = "grace@example.com") -> None:
    """Make an administrator of somebody."""
    await live.app.database.write(
        lambda connection: connection.execute(
            "UPDATE users SET is_admin = 1 WHERE email = ?", (email,)
        )
    )


async def owner(live: Live, visitor: Visitor) -> tuple[str, str]:
    """The account of a visitor and its first key."""
    rows = await live.app.database.select(
        "SELECT user_id, keys.id FROM keys JOIN users ON users.id = user_id "
        "WHERE email = 'grace@example.com'"
    )
    return rows[0][0], rows[0][1]


def cells(html: str) -> list[str]:
    """The text of each row of a table."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


async def until_logged(live: Live, number: int) -> None:
    """Wait until so many requests have ended on disk."""
    statement = "SELECT count(*) FROM usage"
    while (await live.app.database.select(statement))[0][0] < number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def audited(live: Live, beginning: str) -> list[str]:
    """The audited actions that begin so, the oldest first; each by the account itself."""
    rows = [one for one in await entries(live.app.database) if one.action.startswith(beginning)]
    assert all(one.actor == one.subject and one.address == "127.0.0.1" for one in rows), rows
    return [one.action for one in reversed(rows)]
